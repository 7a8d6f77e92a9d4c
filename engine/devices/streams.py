"""The two ends of live audio: what a device captured, and what it is to play."""

import threading
import time

import numpy as np
import numpy.typing as npt

from engine.devices.backend import AudioBackend, AudioDevice, RawStream, StreamRequest
from engine.devices.ring import SampleRing
from engine.signal.clip import FloatArray

FADE_S = 0.003
_RING_S = 1.5


class CaptureEnd:
    """Takes one channel of what a device captures into a ring; its callback only copies and counts.

    Args:
        sample_rate: Hz of the device.
        channel: Index of the channel to take; None takes the mean of the first two.
    """

    def __init__(self, sample_rate: int, *, channel: int | None = 0) -> None:
        self.ring = SampleRing(int(sample_rate * _RING_S))
        self.overflows = 0
        self.device_xruns = 0
        self.callbacks = 0
        self.thread_id = 0
        self._channel = channel
        self._mixed = np.zeros(1 << 15, dtype=np.float32)

    def on_block(self, indata: npt.NDArray[np.float32], xrun: bool) -> None:
        """Copy indata [N, C]; called on the device's thread."""
        if not self.thread_id:
            self.thread_id = threading.get_native_id()
        if xrun:
            self.device_xruns += 1
        if self._channel is None and indata.shape[1] > 1:
            mixed = self._mixed[: len(indata)]
            np.add(indata[:, 0], indata[:, 1], out=mixed)
            np.multiply(mixed, 0.5, out=mixed)
        else:
            mixed = indata[:, self._channel or 0]
        if not self.ring.write(mixed):
            self.overflows += 1
        self.callbacks += 1


class PlaybackEnd:
    """Plays what a ring holds on every channel of a device; its callback only copies and counts.

    Nothing is played before the ring holds `prefill_samples`. When the ring runs dry the last sample fades to silence
    over 3 ms instead of breaking off, the ring fills up to `prefill_samples` again, and playing fades in.

    Args:
        sample_rate: Hz of the device.
        prefill_samples: Samples to gather before playing starts, and again after an underflow.

    Attributes:
        is_playing: False before the first sample and during an underflow.
        underflows: Times the ring ran dry.
        device_xruns: Callbacks that came with the device's own report of an xrun.
        thread_id: The device's thread, as the system numbers it; 0 before the first block.
        last_read_s: time.perf_counter() of the last block read.
        expects_audio: Set to False when the ring may run dry in the ordinary way, at the end of a recording.
    """

    def __init__(self, sample_rate: int, *, prefill_samples: int) -> None:
        self.ring = SampleRing(int(sample_rate * _RING_S))
        self.prefill_samples = prefill_samples
        self.underflows = 0
        self.device_xruns = 0
        self.callbacks = 0
        self.thread_id = 0
        self.last_read_s = 0.0
        self.is_playing = False
        self.expects_audio = True
        fade = max(8, int(sample_rate * FADE_S))
        self._fade_out = (0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, fade))).astype(np.float32)
        self._fade_in = self._fade_out[::-1].copy()
        self._last = 0.0
        self._fade_position = fade

    def on_block(self, outdata: npt.NDArray[np.float32], xrun: bool) -> None:
        """Fill outdata [N, C]; called on the device's thread."""
        if not self.thread_id:
            self.thread_id = threading.get_native_id()
        if xrun:
            self.device_xruns += 1
        out = outdata[:, 0]
        if self.is_playing:
            if self.ring.read_into(out):
                self._last = float(out[-1])
                self.last_read_s = time.perf_counter()
            else:
                self._run_dry(out)
        elif self.ring.available >= max(self.prefill_samples, len(out)) and self.ring.read_into(out):
            count = min(len(out), len(self._fade_in))
            np.multiply(out[:count], self._fade_in[:count], out=out[:count])
            self._last = float(out[-1])
            self.last_read_s = time.perf_counter()
            self.is_playing = True
        else:
            self._fade_away(out)
        for channel in range(1, outdata.shape[1]):
            outdata[:, channel] = out
        self.callbacks += 1

    def _run_dry(self, out: FloatArray) -> None:
        if self.expects_audio:
            self.underflows += 1
        self.is_playing = False
        left = min(self.ring.available, len(out))
        if left:
            self.ring.read_into(out[:left])
            self._last = float(out[left - 1])
        self._fade_position = 0
        self._fade_away(out[left:])

    def _fade_away(self, out: FloatArray) -> None:
        count = min(len(out), len(self._fade_out) - self._fade_position)
        if count > 0:
            start = self._fade_position
            np.multiply(self._fade_out[start : start + count], self._last, out=out[:count])
            self._fade_position += count
        out[max(count, 0) :] = 0.0


class DeviceStream:
    """One open stream and its ends: an input, an output, or both driven by one clock.

    Args:
        raw: Made by `open_stream`.
        capture: The recording end, or None.
        playback: The playing end, or None.
    """

    def __init__(self, raw: RawStream, capture: CaptureEnd | None, playback: PlaybackEnd | None) -> None:
        self._raw = raw
        self.capture, self.playback = capture, playback

    @property
    def is_active(self) -> bool:
        """Whether the device still calls back, as far as it says."""
        return self._raw.is_active

    @property
    def callbacks(self) -> int:
        """Blocks carried so far; stands still when a device has gone without saying so."""
        end = self.capture or self.playback
        return end.callbacks if end else 0

    @property
    def input_latency_ms(self) -> float:
        """Delay of recording as the device states it, ms."""
        return 1000 * self._raw.input_latency_s

    @property
    def output_latency_ms(self) -> float:
        """Delay of playing as the device states it, ms."""
        return 1000 * self._raw.output_latency_s

    def start(self) -> None:
        """Begin to record and play."""
        self._raw.start()

    def close(self) -> None:
        """Stop and give the device back."""
        self._raw.close()


def open_stream(
    backend: AudioBackend,
    *,
    sample_rate: int,
    block_samples: int,
    input_device: AudioDevice | None = None,
    output_device: AudioDevice | None = None,
    channel: int | None = 0,
    prefill_samples: int = 0,
    latency_s: float | None = None,
) -> DeviceStream:
    """Open a device to record from, one to play to, or both with one clock.

    Args:
        backend: The system of devices.
        sample_rate: Hz, of both sides.
        block_samples: Samples a callback carries.
        input_device: Where to record, or None.
        output_device: Where to play, or None.
        channel: Recorded channel; None takes the mean of the first two.
        prefill_samples: Samples gathered before playing starts.
        latency_s: Buffering asked of the device; None asks for its least.

    Raises:
        AudioDeviceError: A device is missing or busy, or refuses the rate.
        ValueError: Neither device is given.
    """
    if input_device is None and output_device is None:
        raise ValueError("a stream needs an input or an output device")
    capture = CaptureEnd(sample_rate, channel=channel) if input_device else None
    playback = PlaybackEnd(sample_rate, prefill_samples=prefill_samples) if output_device else None
    wanted = 2 if channel is None else channel + 1
    request = StreamRequest(
        input_device=input_device,
        output_device=output_device,
        sample_rate=sample_rate,
        block_samples=block_samples,
        input_channels=max(1, min(wanted, input_device.max_input_channels)) if input_device else 0,
        output_channels=max(1, min(2, output_device.max_output_channels)) if output_device else 0,
        latency_s=latency_s,
    )

    def on_block(
        indata: npt.NDArray[np.float32] | None, outdata: npt.NDArray[np.float32] | None, _count: int, xrun: bool
    ) -> None:
        if capture is not None and indata is not None:
            capture.on_block(indata, xrun)
        if playback is not None and outdata is not None:
            playback.on_block(outdata, xrun and capture is None)  # one report counts once

    return DeviceStream(backend.open(request, on_block), capture, playback)
