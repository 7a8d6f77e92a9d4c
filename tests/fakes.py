"""Stand-ins for devices and models, and test signals."""

import threading
import time
from collections.abc import Callable

import numpy as np

from engine.devices import AudioDevice, StreamRequest
from engine.devices.backend import DeviceCallback
from engine.errors import AudioDeviceError
from engine.signal.clip import FloatArray


def tone(
    frequency_hz: float = 220.0, seconds: float = 1.0, sample_rate: int = 48000, amplitude: float = 0.5
) -> FloatArray:
    """A sine, [N]."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def sweep(
    start_hz: float = 60.0,
    end_hz: float = 12000.0,
    seconds: float = 1.0,
    sample_rate: int = 48000,
    amplitude: float = 0.5,
) -> FloatArray:
    """A sine whose frequency rises exponentially, [N]."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    rate = np.log(end_hz / start_hz) / seconds
    phase = 2 * np.pi * start_hz * (np.exp(rate * times) - 1) / rate
    return (amplitude * np.sin(phase)).astype(np.float32)


def noise(seed: int = 0, seconds: float = 1.0, sample_rate: int = 48000, amplitude: float = 0.1) -> FloatArray:
    """White noise, [N]."""
    rng = np.random.default_rng(seed)
    return (amplitude * rng.standard_normal(round(seconds * sample_rate))).astype(np.float32)


def voice_like(
    f0_hz: float = 140.0, seconds: float = 1.0, sample_rate: int = 48000, amplitude: float = 0.3
) -> FloatArray:
    """A harmonic tone with a vowel's formants and a little vibrato, [N]; pitch trackers take it for a voice."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    f0 = f0_hz * 2 ** (0.02 * np.sin(2 * np.pi * 5 * times))
    phase = 2 * np.pi * np.cumsum(f0) / sample_rate
    wave = np.zeros_like(times)
    for harmonic in range(1, int(min(8000, sample_rate / 2.5) / f0_hz)):
        frequency = harmonic * f0_hz
        gain = sum(1 / (1 + ((frequency - formant) / 90) ** 2) for formant in (600, 1100, 2500)) + 0.01
        wave += gain * np.sin(harmonic * phase)
    return (amplitude * wave / np.abs(wave).max()).astype(np.float32)


class FakeDevices:
    """A system of audio devices without hardware, behind the same calls as PortAudio's.

    `pump` carries blocks through the real callbacks: every open input is given the samples, every open output is
    asked for as many. `unplug` makes streams of a device inactive and takes it off the list.

    Args:
        refused_rates: Rates that opening refuses.
    """

    def __init__(self, *, refused_rates: tuple[int, ...] = ()) -> None:
        self._plugged = {
            "mic": AudioDevice("Fake: mic", "Microphone", "Fake", 2, 0, 48000, is_default_input=True),
            "speakers": AudioDevice("Fake: speakers", "Speakers", "Fake", 0, 2, 48000, is_default_output=True),
            "headset": AudioDevice("Fake: headset", "Headset", "Fake", 1, 2, 44100),
        }
        self._unplugged: dict[str, AudioDevice] = {}
        self.refused_rates = refused_rates
        self.streams: list[FakeStream] = []
        self.opened = 0

    def devices(self, *, refresh: bool = False) -> list[AudioDevice]:
        return list(self._plugged.values())

    def supports(self, device: AudioDevice, sample_rate: int, *, is_input: bool, channels: int = 1) -> bool:
        return sample_rate not in self.refused_rates

    def open(self, request: StreamRequest, callback: DeviceCallback) -> "FakeStream":
        for device in (request.input_device, request.output_device):
            if device is not None and device not in self._plugged.values():
                raise AudioDeviceError(f"The device '{device.name}' is gone.", hint="Plug it in again.")
        if request.sample_rate in self.refused_rates:
            raise AudioDeviceError(f"The device refuses {request.sample_rate} Hz.", hint="Choose another rate.")
        stream = FakeStream(self, request, callback)
        self.streams.append(stream)
        self.opened += 1
        return stream

    def device(self, name: str) -> AudioDevice:
        return self._plugged[name]

    def unplug(self, name: str) -> None:
        device = self._unplugged[name] = self._plugged.pop(name)
        for stream in list(self.streams):
            if device in (stream.request.input_device, stream.request.output_device):
                stream.is_active = False

    def plug_in(self, name: str) -> None:
        self._plugged[name] = self._unplugged.pop(name)

    def feed(self, block: FloatArray, *, xrun: bool = False) -> None:
        """Give a mono block [N] to every running input, on all its channels."""
        for stream in list(self.streams):
            stream.feed(block, xrun)

    def drain(self, num_samples: int, *, xrun: bool = False) -> FloatArray:
        """Ask every running output for samples; returns the first channel of the first one, or zeros."""
        played = [stream.drain(num_samples, xrun) for stream in list(self.streams)]
        return next((p for p in played if p is not None), np.zeros(num_samples, dtype=np.float32))

    def pump(
        self, samples: FloatArray, block: int = 480, *, pace: float = 1.0, taken: Callable[[], int] | None = None
    ) -> FloatArray:
        """Play `samples` [N] into the inputs block by block while the outputs are drained; returns what they played.

        Args:
            samples: What the microphone hears.
            block: Samples per callback.
            pace: Seconds of waiting per second of audio: 1 is real time, 0 as fast as possible.
            taken: Counts blocks that were taken; each block waits for the one before, so that a busy machine makes the
                test slower and not different.
        """
        played = []
        due = time.monotonic()
        for position in range(0, len(samples) - block + 1, block):
            before = taken() if taken else 0
            self.feed(samples[position : position + block])
            deadline = time.monotonic() + 5.0
            while taken and taken() == before and time.monotonic() < deadline:
                time.sleep(0.001)
            played.append(self.drain(block))
            due = max(due + pace * block / 48000, time.monotonic() - 0.02)
            time.sleep(max(0.0, due - time.monotonic()))
        return np.concatenate(played) if played else np.zeros(0, dtype=np.float32)


class FakeStream:
    input_latency_s = 0.01
    output_latency_s = 0.01

    def __init__(self, devices: FakeDevices, request: StreamRequest, callback: DeviceCallback) -> None:
        self._devices, self.request, self._callback = devices, request, callback
        self._lock = threading.Lock()
        self.is_active = False

    def start(self) -> None:
        self.is_active = True

    def close(self) -> None:
        with self._lock:
            self.is_active = False
        if self in self._devices.streams:
            self._devices.streams.remove(self)

    def feed(self, block: FloatArray, xrun: bool = False) -> None:
        with self._lock:
            if self.is_active and self.request.input_device is not None:
                wide = np.repeat(block[:, np.newaxis], self.request.input_channels, axis=1)
                self._callback(wide, None, len(block), xrun)

    def drain(self, num_samples: int, xrun: bool = False) -> FloatArray | None:
        with self._lock:
            if not self.is_active or self.request.output_device is None:
                return None
            out = np.full((num_samples, self.request.output_channels), np.nan, dtype=np.float32)
            self._callback(None, out, num_samples, xrun)
        return out[:, 0]


class FakeConverter:
    """A conversion stream of known latency: it halves the amplitude and turns the sign over.

    Args:
        latency_samples: How late it is.
        f0_hz: The pitch it claims to hear in everything louder than -60 dBFS.
        work_s: Seconds each push takes.
    """

    def __init__(self, latency_samples: int = 960, *, f0_hz: float = 110.0, work_s: float = 0.0) -> None:
        self.latency_samples, self.f0_hz, self.work_s = latency_samples, f0_hz, work_s
        self.voice: object = None
        self.transpose_semitones = 0.0
        self.formant_semitones = 0.0
        self.reset()

    def reset(self) -> None:
        self._held = np.zeros(self.latency_samples, dtype=np.float32)
        self._f0: list[float] = []
        self._samples = 0
        self.pushes = 0

    def push(self, samples: FloatArray) -> FloatArray:
        if self.work_s:
            time.sleep(self.work_s)
        before, self._samples = self._samples // 480, self._samples + len(samples)
        heard = len(samples) and np.abs(samples).max() > 1e-3
        self._f0 += [self.f0_hz if heard else float("nan")] * (self._samples // 480 - before)
        self._f0 = self._f0[-300:]
        joined = np.concatenate([self._held, np.float32(-0.5) * samples])
        self._held = joined[len(samples) :]
        self.pushes += 1
        return joined[: len(samples)]

    @property
    def recent_f0(self) -> tuple[FloatArray, FloatArray]:
        source = np.array(self._f0, dtype=np.float32)
        return source, source * np.float32(2 ** (self.transpose_semitones / 12))
