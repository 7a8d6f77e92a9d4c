"""The open devices of a session and the buffers between them and the converter."""

import time

import numpy as np

from engine.devices import AudioBackend, AudioDevice, DeviceStream, open_stream
from engine.live.drift import DriftControl, DriftResampler, EdgeResampler
from engine.live.options import SAMPLE_RATE
from engine.signal.clip import FloatArray

DEVICE_BLOCK_MS = 10.0
CROSSFADE_S = 0.004
BURST_S = 0.020
TRIM_ABOVE_S = 0.006
START_MARGIN_S = 0.015
MOST_MEASURED_MARGIN_S = 0.005
MARGIN_STEP_S = 0.002
MOST_MARGIN_S = 0.040
MOST_PATIENCE = 4
_LOST_AFTER_S = 1.0
_SLOW_START_S = 4.0


def _device_block(sample_rate: int, block_ms: float) -> int:
    return round(sample_rate * min(block_ms, DEVICE_BLOCK_MS) / 1000)


class Liveness:
    """Tells a device that has gone without saying so from one that is slow to start."""

    def __init__(self, stream: DeviceStream) -> None:
        self._stream = stream
        self._callbacks = 0
        self._moved = time.monotonic()
        self._started = False

    def is_lost(self) -> bool:
        """Whether the device ended its stream, or has made no callback for a second (four at the start)."""
        now = time.monotonic()
        if self._stream.callbacks != self._callbacks:
            self._started = self._started or self._callbacks > 20
            self._callbacks = self._stream.callbacks
            self._moved = now
        return not self._stream.is_active or now - self._moved > (_LOST_AFTER_S if self._started else _SLOW_START_S)


class Stumbles:
    """Tells whether devices report xruns so often that they need more buffering of their own."""

    MOST, WINDOW_S = 4, 10.0

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._count = 0

    def are_many(self, device_xruns: int) -> bool:
        """Look at the devices' counter, which may have been set back; True after `MOST` new ones within `WINDOW_S`."""
        now = time.monotonic()
        self._seen += [now] * max(0, device_xruns - self._count)
        self._count = device_xruns
        self._seen = [moment for moment in self._seen if now - moment < self.WINDOW_S]
        return len(self._seen) >= self.MOST


class InputLink:
    """A recording device, its ring, and the way to 48 kHz.

    Args:
        backend: The system of devices.
        device: Where to record.
        sample_rate: Hz of the device.
        block_ms: What `take` gives at once. The device's own blocks are 10 ms at most, for its delay's sake.
        channel: Recorded channel; None for the mean of two.
        patience: Factor of the device's own buffering.
        duplex: The open stream of a device that both records and plays; None opens one.

    Attributes:
        gathering_ms: How long the first of a block's device blocks waits for the last.
    """

    def __init__(
        self,
        backend: AudioBackend,
        device: AudioDevice,
        sample_rate: int,
        block_ms: float,
        channel: int | None,
        patience: int = 1,
        duplex: DeviceStream | None = None,
    ) -> None:
        self.block = round(sample_rate * block_ms / 1000)
        self.sample_rate = sample_rate
        self.gathering_ms = 1000 * (self.block - _device_block(sample_rate, block_ms)) / sample_rate
        self.stream = duplex or open_stream(
            backend,
            sample_rate=sample_rate,
            block_samples=_device_block(sample_rate, block_ms),
            input_device=device,
            channel=channel,
            latency_s=patience * max(2 * DEVICE_BLOCK_MS, block_ms) / 1000,
        )
        assert self.stream.capture is not None
        self.end = self.stream.capture
        self.resampler = EdgeResampler(sample_rate, SAMPLE_RATE)
        self.liveness = Liveness(self.stream)
        self.dropped_samples = 0
        self._fade = np.linspace(0.0, 1.0, max(1, int(CROSSFADE_S * sample_rate)), dtype=np.float32)
        self._most_waiting = 2 * self.block + int(BURST_S * sample_rate)

    def take(self) -> FloatArray | None:
        """The next block at 48 kHz, or None while it has not come; drops what is stale."""
        ring = self.end.ring
        if ring.available < self.block:
            return None
        block = np.empty(self.block, dtype=np.float32)
        waiting = ring.available
        if waiting > self._most_waiting:
            count = min(len(self._fade), self.block)
            old = np.empty(count, dtype=np.float32)
            ring.read_into(old)
            self.dropped_samples += count + ring.skip(waiting - count - self.block)
            ring.read_into(block)
            block[:count] = old * (1 - self._fade[:count]) + block[:count] * self._fade[:count]
        else:
            ring.read_into(block)
        return self.resampler.push(block)


class OutputLink:
    """A playing device, its ring, the way from 48 kHz, and the correction for its clock.

    Args:
        backend: The system of devices.
        device: Where to play.
        sample_rate: Hz of the device.
        block_ms: What `give` brings at once; the device's own blocks are 10 ms at most.
        margin_s: Reserve to keep in the ring at the moment before new samples come.
        patience: Factor of the device's own buffering.
        records: Whether the same stream is to record, too, by the same clock.
        channel: Recorded channel, if so.
    """

    def __init__(
        self,
        backend: AudioBackend,
        device: AudioDevice,
        sample_rate: int,
        block_ms: float,
        margin_s: float,
        patience: int = 1,
        *,
        records: bool = False,
        channel: int | None = None,
    ) -> None:
        self.block = round(sample_rate * block_ms / 1000)
        self.sample_rate = sample_rate
        self.margin_s = margin_s
        self.stream = open_stream(
            backend,
            sample_rate=sample_rate,
            block_samples=_device_block(sample_rate, block_ms),
            input_device=device if records else None,
            output_device=device,
            channel=channel,
            prefill_samples=self.block + int(margin_s * sample_rate),
            latency_s=patience * max(2 * DEVICE_BLOCK_MS, block_ms) / 1000,
        )
        assert self.stream.playback is not None
        self.end = self.stream.playback
        self.resampler = EdgeResampler(SAMPLE_RATE, sample_rate)
        self.drift = DriftResampler()
        self.control = DriftControl(sample_rate)
        self.liveness = Liveness(self.stream)
        self.trimmed_samples = 0
        self._underflows = 0
        self._to_trim = 0
        self._fade = np.linspace(0.0, 1.0, max(1, int(CROSSFADE_S * sample_rate)), dtype=np.float32)

    @property
    def margin_samples(self) -> int:
        """The reserve aimed at, in samples of the device."""
        return int(self.margin_s * self.sample_rate)

    @property
    def latency_ms(self) -> float:
        """Delay of the filters here."""
        return self.resampler.latency_ms + 1000 * self.drift.latency_samples / self.sample_rate

    def level_samples(self) -> float:
        """What is left to play as if the device played evenly; 0 is the last moment to bring more."""
        elapsed = time.perf_counter() - self.end.last_read_s
        return self.end.ring.available - min(elapsed, 0.05) * self.sample_rate

    def give(self, samples: FloatArray, seconds: float) -> None:
        """Hand over converted samples at 48 kHz.

        Args:
            samples: [N].
            seconds: Of audio the block stands for, for the drift control.
        """
        if self.end.underflows > self._underflows:
            # One block came too late: from now on a little more is kept in reserve.
            self._underflows = self.end.underflows
            self.margin_s = min(self.margin_s + MARGIN_STEP_S, MOST_MARGIN_S)
            self.end.prefill_samples = self.block + self.margin_samples
            self.control.forget_levels()
        if self.end.is_playing and self.control.observe(self.level_samples(), self.margin_samples, seconds):
            self.drift.ppm = self.control.ppm
            above = self.control.level_samples - self.margin_samples
            if above > TRIM_ABOVE_S * self.sample_rate:  # too much for a gentle correction: cut it out at once
                self._to_trim = int(above)
        out = self.drift.push(self.resampler.push(samples))
        self.end.ring.write(self._without_excess(out))

    def _without_excess(self, out: FloatArray) -> FloatArray:
        most = self.margin_samples + 2 * self.block + int(BURST_S * self.sample_rate)
        excess = max(self.end.ring.available + len(out) - most, self._to_trim)
        fade = self._fade[: len(out) // 2]
        cut = min(excess, len(out) - len(fade))
        if cut <= 0:
            return out
        self._to_trim = max(0, self._to_trim - cut)
        self.trimmed_samples += cut
        self.control.forget_levels()
        kept = out[cut:].copy()
        kept[: len(fade)] = out[: len(fade)] * (1 - fade) + kept[: len(fade)] * fade
        return kept

    def reset_counts(self) -> None:
        """Forget what the start cost."""
        self.end.underflows = self.end.device_xruns = 0
        self._underflows = self.trimmed_samples = 0
