"""The last seconds of a session, for drawing."""

from dataclasses import dataclass

import numpy as np

from engine.live.options import SAMPLE_RATE
from engine.signal.clip import FloatArray

COLUMN_S = 0.010
_COLUMN = int(COLUMN_S * SAMPLE_RATE)


@dataclass(frozen=True, eq=False)
class HistoryView:
    """Columns of 10 ms, oldest first; [T] each.

    Attributes:
        source_low: Lowest source sample of the column; `source_high` the highest; `converted_*` the same for what goes
            out.
        source_f0_hz: NaN when unvoiced.
        converted_f0_hz: NaN when unvoiced.
        last_column: Columns ever finished; tells whether anything is new.
    """

    source_low: FloatArray
    source_high: FloatArray
    converted_low: FloatArray
    converted_high: FloatArray
    source_f0_hz: FloatArray
    converted_f0_hz: FloatArray
    last_column: int


class LiveHistory:
    """Written by the live thread, read by any other; reading may tear the newest column, which the next frame mends.

    Args:
        seconds: How far back it reaches.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._size = round(seconds / COLUMN_S)
        self._columns = np.zeros((4, self._size), dtype=np.float32)
        self._f0 = np.full((2, self._size), np.nan, dtype=np.float32)
        self._pending = [np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32)]
        self._finished = 0

    def add(
        self, source: FloatArray, converted: FloatArray, source_f0_hz: FloatArray, converted_f0_hz: FloatArray
    ) -> None:
        """Count a block in; [N] samples each and the F0 frames finished with it, [T]."""
        pending = [np.concatenate([self._pending[0], source]), np.concatenate([self._pending[1], converted])]
        count = min(len(pending[0]), len(pending[1])) // _COLUMN
        for number in range(count):
            place = self._finished % self._size
            for index, samples in enumerate(pending):
                part = samples[number * _COLUMN : (number + 1) * _COLUMN]
                self._columns[2 * index, place] = part.min()
                self._columns[2 * index + 1, place] = part.max()
            frame = number if number < len(source_f0_hz) else -1
            self._f0[0, place] = source_f0_hz[frame] if len(source_f0_hz) else np.nan
            self._f0[1, place] = converted_f0_hz[frame] if len(converted_f0_hz) else np.nan
            self._finished += 1
        self._pending = [samples[count * _COLUMN :] for samples in pending]

    def view(self) -> HistoryView:
        """Copies of the last seconds."""
        finished = self._finished
        order = (np.arange(self._size) + finished) % self._size
        columns, f0 = self._columns[:, order], self._f0[:, order]
        return HistoryView(columns[0], columns[1], columns[2], columns[3], f0[0], f0[1], finished)
