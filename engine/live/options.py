"""What live mode is told, and what it says of itself."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Protocol

from engine.errors import AutoVoiceError
from engine.signal.clip import FloatArray

SAMPLE_RATE = 48000
BLOCK_CHOICES_MS = (5.0, 10.0, 15.0, 20.0, 30.0, 40.0)


class VoiceStream(Protocol):
    """The part of a conversion stream that live mode uses; mono, 48 kHz on both sides.

    `voice`, `transpose_semitones` and `formant_semitones` may be set while running, without a click.
    """

    voice: Any
    transpose_semitones: float
    formant_semitones: float

    @property
    def latency_samples(self) -> int:
        """How many samples the output lags behind the input."""

    def push(self, samples: FloatArray) -> FloatArray:
        """Give [N], take [N], delayed by `latency_samples`; N may differ from call to call."""

    def reset(self) -> None:
        """Forget everything heard so far."""

    @property
    def recent_f0(self) -> tuple[FloatArray, FloatArray]:
        """F0 of the latest frames, Hz: source [T] and converted [T], 10 ms apart, newest last, NaN unvoiced."""


@dataclass(frozen=True)
class LiveSettings:
    """Everything that may change while live, replaced whole.

    Attributes:
        input_gain_db: Before everything else.
        high_pass_hz: Rumble below is removed; 0 turns it off.
        noise_suppression: Whether steady noise is lowered before conversion; adds 10 ms.
        gate_enabled: Whether silence is kept silent.
        gate_threshold_dbfs: Level that opens the gate; it closes 6 dB lower.
        transpose: "auto" moves the speaker's median pitch to the voice's; a number is semitones.
        formant_semitones: Moves the resonances.
        wet: 1 is the converted voice alone, 0 the dry one (as late as the converted).
        output_gain_db: Before the limiter.
        muted: Nothing goes out.
        bypassed: The dry voice goes out, as late as the converted would.
        monitor_gain_db: Level on the monitor device.
    """

    input_gain_db: float = 0.0
    high_pass_hz: float = 70.0
    noise_suppression: bool = False
    gate_enabled: bool = True
    gate_threshold_dbfs: float = -50.0
    transpose: Literal["auto"] | float = "auto"
    formant_semitones: float = 0.0
    wet: float = 1.0
    output_gain_db: float = 0.0
    muted: bool = False
    bypassed: bool = False
    monitor_gain_db: float = 0.0


@dataclass(frozen=True)
class LiveOptions:
    """What is fixed while live; changing it means a restart.

    Attributes:
        input_device: Id, name or part of a name; None takes the system's default.
        output_device: The same for playing.
        monitor_device: A second device that plays the same, to hear oneself; None for none.
        input_channel: Index of the recorded channel; None takes the mean of the first two.
        input_rate: Hz; None takes the device's own.
        output_rate: Hz; None takes the device's own.
        block_ms: Block of both devices, 5 to 40; "auto" measures this machine.
        record: FLAC file for the converted voice; the dry one goes beside it as "NAME-dry.flac".
    """

    input_device: str | None = None
    output_device: str | None = None
    monitor_device: str | None = None
    input_channel: int | None = 0
    input_rate: int | None = None
    output_rate: int | None = None
    block_ms: float | Literal["auto"] = "auto"
    record: Path | None = None


class LiveState(Enum):
    """Where a session stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    LIVE = "live"
    PAUSED = "paused"  # a device is gone; goes on by itself when it returns
    FAILED = "failed"


@dataclass(frozen=True)
class LatencyParts:
    """Where the delay from mouth to ear comes from, ms.

    Attributes:
        input_device: As the device states it; includes waiting for its block.
        input_buffer: Captured and not yet taken, be it that a block longer than the device's own is not yet full.
        resampling: Filters where a device's rate is not 48 kHz, and the drift correction's.
        algorithmic: Noise suppression, conversion and limiter, from their geometry.
        computing: Median time from taking a block to having it converted.
        output_buffer: Converted and not yet handed to the device.
        output_device: As the device states it.
    """

    input_device: float = 0.0
    input_buffer: float = 0.0
    resampling: float = 0.0
    algorithmic: float = 0.0
    computing: float = 0.0
    output_buffer: float = 0.0
    output_device: float = 0.0

    @property
    def total(self) -> float:
        """Their sum: the delay one hears."""
        return (
            self.input_device + self.input_buffer + self.resampling + self.algorithmic
            + self.computing + self.output_buffer + self.output_device
        )  # fmt: skip


@dataclass(frozen=True)
class LiveCounts:
    """What went wrong since the stream settled.

    Attributes:
        blocks: Device blocks processed.
        input_overflows: Blocks lost because the capture ring was full.
        output_underflows: Times the output ran dry and faded to silence.
        device_xruns: Xruns the devices reported.
        dropped_blocks: Stale input thrown away so that the delay does not grow, in blocks.
        trimmed_ms: Converted audio thrown away for the same reason.
        device_losses: Times a stream was opened anew: its device went away, stood still, or stumbled too often.
    """

    blocks: int = 0
    input_overflows: int = 0
    output_underflows: int = 0
    device_xruns: int = 0
    dropped_blocks: int = 0
    trimmed_ms: float = 0.0
    device_losses: int = 0

    @property
    def xruns(self) -> int:
        """All interruptions one could hear."""
        return self.input_overflows + self.output_underflows + self.device_xruns + self.dropped_blocks


@dataclass(frozen=True)
class LiveSnapshot:
    """A session at one moment; replaced whole about 30 times a second.

    Attributes:
        state: Where it stands.
        message: One sentence on what is going on, or what went wrong.
        hint: What to try, or "".
        error: Why the session failed or pauses.
        seconds: Since the stream settled.
        block_ms: In use.
        input_peak_dbfs: Of the last 30 to 40 ms, after the input gain.
        output_peak_dbfs: The same for what goes out.
        gate_open: Whether the gate lets the voice through.
        transpose_semitones: In use, also when chosen automatically.
        transpose_settled: False while the automatic choice is still listening.
        source_f0_hz: Latest, NaN when unvoiced.
        converted_f0_hz: Latest, NaN when unvoiced.
        latency: Parts of the delay.
        counts: What went wrong.
        rtf_median: Computing time over audio time; `rtf_p99` and `rtf_max` likewise.
        input_buffer_ms: Captured and not yet taken, now.
        output_buffer_ms: Converted and not yet played, now.
        drift_ppm: Correction in use between the two devices' clocks.
        notice: Something beside the stream failed, such as a recording.
        recording_seconds: Length of the recording, None while not recording.
    """

    state: LiveState = LiveState.STOPPED
    message: str = ""
    hint: str = ""
    error: AutoVoiceError | None = None
    seconds: float = 0.0
    block_ms: float = 0.0
    input_peak_dbfs: float = -120.0
    output_peak_dbfs: float = -120.0
    gate_open: bool = False
    transpose_semitones: float = 0.0
    transpose_settled: bool = False
    source_f0_hz: float = float("nan")
    converted_f0_hz: float = float("nan")
    latency: LatencyParts = field(default_factory=LatencyParts)
    counts: LiveCounts = field(default_factory=LiveCounts)
    rtf_median: float = 0.0
    rtf_p99: float = 0.0
    rtf_max: float = 0.0
    input_buffer_ms: float = 0.0
    output_buffer_ms: float = 0.0
    drift_ppm: float = 0.0
    notice: AutoVoiceError | None = None
    recording_seconds: float | None = None
