"""Recording what live mode says, by a thread of its own."""

import threading
from pathlib import Path

import numpy as np

from engine.devices import SampleRing
from engine.errors import AutoVoiceError
from engine.live.options import SAMPLE_RATE
from engine.signal import AudioWriter
from engine.signal.clip import FloatArray

_RING_S = 10.0
_TURN_S = 0.1


def dry_path(path: Path) -> Path:
    """Where the dry voice goes: "talk.flac" -> "talk-dry.flac"."""
    return path.with_name(f"{path.stem}-dry{path.suffix}")


class LiveRecorder:
    """Writes the converted voice to a file, and the dry one beside it, while live.

    The live thread calls `add`, which only copies; a writer thread opens, encodes and closes. Both files are mono at
    48 kHz; the dry one is not delayed, so the converted voice lags behind it by the algorithmic delay.

    Args:
        path: The converted voice's file; its folder must exist.

    Attributes:
        error: Why writing failed, or None.
        lost_blocks: Blocks that the disk was too slow for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: AutoVoiceError | None = None
        self.lost_blocks = 0
        self._rings = [SampleRing(int(SAMPLE_RATE * _RING_S)) for _ in range(2)]
        self._stopping = threading.Event()
        self._written = 0
        self._thread = threading.Thread(target=self._write, name="live recording")
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether both files are finished, or writing failed."""
        return not self._thread.is_alive()

    @property
    def seconds(self) -> float:
        """Length written so far."""
        return self._written / SAMPLE_RATE

    def add(self, converted: FloatArray, dry: FloatArray) -> None:
        """Take [N] samples each."""
        stored = [ring.write(samples) for ring, samples in zip(self._rings, (converted, dry), strict=True)]
        if not all(stored) and self.error is None:
            self.lost_blocks += 1

    def request_close(self) -> None:
        """Ask for the rest to be written and both files to be finished, and return at once."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until that is done."""
        self._thread.join()

    def _write(self) -> None:
        writers: list[AudioWriter] = []
        try:
            for destination in (self.path, dry_path(self.path)):
                writers.append(AudioWriter(destination, SAMPLE_RATE, 1))
            while True:
                last_turn = self._stopping.wait(_TURN_S)
                for ring, writer in zip(self._rings, writers, strict=True):
                    samples = np.empty(ring.available, dtype=np.float32)
                    ring.read_into(samples)
                    writer.write(samples[np.newaxis, :])
                    if writer is writers[0]:
                        self._written += len(samples)
                if last_turn:
                    break
            for writer in writers:
                writer.close()
        except AutoVoiceError as error:
            self.error = error
            for writer in writers:
                writer.discard()
