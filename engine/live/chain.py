"""The signal's way through live mode, without devices: condition, convert, gate, mix, limit."""

from dataclasses import dataclass

import numpy as np

from engine.live.conditioning import DelayLine, Gate, HighPass, SmoothGain
from engine.live.options import SAMPLE_RATE, LiveSettings, VoiceStream
from engine.live.suppression import HeldNotes, NoiseSuppressor
from engine.live.transposing import AutoTranspose
from engine.signal import Limiter
from engine.signal.clip import FloatArray

CEILING_DBTP = -1.0
LIMITER_LOOK_S = 0.0015
GATE_LOOK_S = 0.008
_HOP = SAMPLE_RATE // 100  # samples from one F0 frame to the next
_NO_F0 = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ChainBlock:
    """What one block became.

    Attributes:
        source: The conditioned source, [N], not delayed.
        dry: The source before conditioning, [N], not delayed; what a dry recording keeps.
        converted: What goes out, [N], delayed by the chain's latency.
        source_f0_hz: Of the frames this block finished, [T].
        converted_f0_hz: The same after transposition, [T].
    """

    source: FloatArray
    dry: FloatArray
    converted: FloatArray
    source_f0_hz: FloatArray
    converted_f0_hz: FloatArray


class LiveChain:
    """Everything between the two devices' rings, at 48 kHz and mono.

    Used by one thread. `settings` may be replaced, and `use_voice` called, between two blocks; neither clicks.

    Args:
        stream: Converts.
        target_median_hz: Median pitch of the voice; NaN when unknown, then "auto" does not transpose.
        settings: To begin with.
    """

    def __init__(self, stream: VoiceStream, target_median_hz: float, settings: LiveSettings | None = None) -> None:
        self.stream = stream
        self.settings = settings or LiveSettings()
        self.auto_transpose = AutoTranspose()
        self._target_median_hz = target_median_hz
        self._high_pass = HighPass(SAMPLE_RATE, self.settings.high_pass_hz)
        self._suppressor = NoiseSuppressor()
        self._suppressing = self.settings.noise_suppression
        self._suppressor_age = 0
        self._notes = HeldNotes()
        self.gate = Gate(SAMPLE_RATE)
        self._limiter = Limiter(SAMPLE_RATE, CEILING_DBTP, 1, look_ahead_s=LIMITER_LOOK_S)
        self._input_gain = SmoothGain(SAMPLE_RATE, _amplitude(self.settings.input_gain_db))
        self._output_gain = SmoothGain(SAMPLE_RATE, _amplitude(self.settings.output_gain_db))
        self._wet = SmoothGain(SAMPLE_RATE, self.settings.wet)
        self._open = SmoothGain(SAMPLE_RATE, 0.0 if self.settings.muted else 1.0)
        self._num_pushed = 0
        self._dry_delay = DelayLine(stream.latency_samples)
        self._gate_delay = DelayLine(max(0, stream.latency_samples - int(GATE_LOOK_S * SAMPLE_RATE)))

    @property
    def latency_samples(self) -> int:
        """Delay from source to converted, from the stages' geometry."""
        suppressor = self._suppressor.latency_samples if self._suppressing else 0
        return suppressor + self.stream.latency_samples + self._limiter.latency_samples

    @property
    def transpose_semitones(self) -> float:
        """In use now."""
        return float(self.stream.transpose_semitones)

    def use_voice(self, voice: object, target_median_hz: float) -> None:
        """Convert to another voice from the next block on."""
        self.stream.voice = voice
        self._target_median_hz = target_median_hz

    def push(self, captured: FloatArray) -> ChainBlock:
        """Give captured samples [N], any N."""
        settings = self.settings
        dry = captured * self._input_gain.curve(len(captured), _amplitude(settings.input_gain_db))
        source = self._suppress(self._high_pass.push(dry, settings.high_pass_hz), settings.noise_suppression)
        gate = self._gate_delay.push(self.gate.push(source, settings.gate_threshold_dbfs, settings.gate_enabled))
        self.stream.formant_semitones = settings.formant_semitones
        if settings.transpose != "auto":
            self.stream.transpose_semitones = float(settings.transpose)
        else:
            self.stream.transpose_semitones = self.auto_transpose.semitones
        converted = self.stream.push(source)
        source_f0_hz, converted_f0_hz = self._new_f0(len(captured))
        self._notes.listen(source_f0_hz, self.gate.is_open)
        self.auto_transpose.listen(source_f0_hz, self._target_median_hz)
        out = self._mix(converted, self._dry_delay.push(source), gate, settings)
        return ChainBlock(source, dry, out, source_f0_hz, converted_f0_hz)

    def _new_f0(self, num_samples: int) -> tuple[FloatArray, FloatArray]:
        before, self._num_pushed = self._num_pushed // _HOP, self._num_pushed + num_samples
        count = self._num_pushed // _HOP - before
        if not count:
            return _NO_F0, _NO_F0
        source, converted = self.stream.recent_f0
        return source[-count:], converted[-count:]

    def _suppress(self, samples: FloatArray, wanted: bool) -> FloatArray:
        if not wanted and not self._suppressing:
            self._suppressor_age = 0
            return samples
        if not self._suppressor_age:
            self._suppressor = NoiseSuppressor()
        suppressed = self._suppressor.push(samples, note_is_held=self._notes.is_held)
        self._suppressor_age += len(samples)
        if wanted == self._suppressing:
            return suppressed
        if wanted and self._suppressor_age < NoiseSuppressor.LEARNING_S * SAMPLE_RATE:
            return samples
        # Switching crossfades over this block; the delay changes by the suppressor's 10 ms.
        self._suppressing = wanted
        share = np.linspace(0.0, 1.0, len(samples), dtype=np.float32)
        old, new = (samples, suppressed) if wanted else (suppressed, samples)
        return old * (1 - share) + new * share

    def _mix(self, converted: FloatArray, dry: FloatArray, gate: FloatArray, settings: LiveSettings) -> FloatArray:
        count = len(converted)
        wet = self._wet.curve(count, 0.0 if settings.bypassed else settings.wet)
        out = (dry + (converted - dry) * wet) * gate
        out = out * self._output_gain.curve(count, 1.0 if settings.bypassed else _amplitude(settings.output_gain_db))
        out = out * self._open.curve(count, 0.0 if settings.muted else 1.0)
        return self._limiter.push(out[np.newaxis, :].astype(np.float32))[0]


def _amplitude(gain_db: float) -> float:
    return float(10 ** (gain_db / 20))
