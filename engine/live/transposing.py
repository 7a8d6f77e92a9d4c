"""Choosing the transposition by listening."""

import math

import numpy as np

from engine.signal.clip import FloatArray


class AutoTranspose:
    """Moves the speaker's median pitch to the voice's, settles, and then stays still.

    The first choice is made after 0.3 s of voiced sound and refined until there were 1.5 s, which in ordinary speech is
    under 3 s. From then on it stays, unless the median of the last ten voiced seconds is off by more than
    `RELISTEN_SEMITONES`: somebody else speaks, and listening begins anew.
    """

    FIRST_S, SETTLED_S, WINDOW_S = 0.3, 1.5, 10.0
    RELISTEN_SEMITONES = 3.5
    MOST_SEMITONES = 24.0
    LOOK_EVERY = 10  # voiced frames, since a median takes time

    def __init__(self) -> None:
        self._window = np.zeros(int(self.WINDOW_S * 100))
        self._count = self._next_look = 0
        self._target_hz = math.nan
        self.semitones = 0.0
        self.is_settled = False

    def listen(self, source_f0_hz: FloatArray, target_median_hz: float) -> float:
        """Count new frames in, 10 ms apart, NaN unvoiced; the transposition to use, semitones."""
        voiced = source_f0_hz[np.isfinite(source_f0_hz)]
        for value in voiced:
            self._window[self._count % len(self._window)] = value
            self._count += 1
        changed = target_median_hz != self._target_hz and self._count > 0
        self._target_hz = target_median_hz
        if not target_median_hz > 0 or self._count < self.FIRST_S * 100:
            return self.semitones
        if not changed and self._count < self._next_look:
            return self.semitones
        self._next_look = self._count + self.LOOK_EVERY
        # Rounded to a tenth, so that refining is not a wobble.
        wanted = round(12 * math.log2(target_median_hz / float(np.median(self._window[: self._count]))), 1)
        wanted = min(max(wanted, -self.MOST_SEMITONES), self.MOST_SEMITONES)
        if self.is_settled and not changed:
            if self._count < len(self._window) or abs(wanted - self.semitones) <= self.RELISTEN_SEMITONES:
                return self.semitones
            self._count = self._next_look = 0
            self.is_settled = False
            return self.semitones
        self.semitones = wanted
        self.is_settled = self._count >= self.SETTLED_S * 100
        return self.semitones
