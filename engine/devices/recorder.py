"""Recording a microphone into memory, for the Voices wizard."""

import threading
from dataclasses import dataclass

import numpy as np

from engine.devices.backend import AudioBackend, AudioDevice
from engine.devices.choice import choose_device
from engine.devices.streams import DeviceStream, open_stream
from engine.errors import AudioDeviceError
from engine.signal.clip import AudioClip, FloatArray

CLIP_LEVEL = 0.99
_SILENCE_DBFS = -120.0
_POLL_S = 0.02
_LOST_AFTER_S = 1.0


@dataclass(frozen=True)
class RecorderLevels:
    """How loud a recording is; replaced whole every 20 ms.

    Attributes:
        seconds: Recorded so far.
        peak_dbfs: Highest sample of the last 20 to 40 ms.
        rms_dbfs: Mean level of the same stretch.
        held_peak_dbfs: Highest sample of the last two seconds.
        clipped: Whether any sample so far reached full scale.
        error: Set when the device went away; the recording up to then is kept.
    """

    seconds: float = 0.0
    peak_dbfs: float = _SILENCE_DBFS
    rms_dbfs: float = _SILENCE_DBFS
    held_peak_dbfs: float = _SILENCE_DBFS
    clipped: bool = False
    error: AudioDeviceError | None = None


class InputRecorder:
    """Records one channel of a device at the device's own rate.

    `start` begins a new recording, `levels` may be read at any time from any thread, `stop` returns what was recorded.
    With `monitor_only` the levels move but nothing is kept, for setting the input gain before recording.

    Args:
        backend: The system of devices.
        device: Where to record; None takes the system's default.
        sample_rate: Hz; None takes the device's own.
        channel: Recorded channel; None takes the mean of the first two.
        max_seconds: Recording ends by itself after this long.
    """

    def __init__(
        self,
        backend: AudioBackend,
        device: AudioDevice | None = None,
        *,
        sample_rate: int | None = None,
        channel: int | None = 0,
        max_seconds: float = 600.0,
    ) -> None:
        self._backend, self._device, self._channel = backend, device, channel
        self._wanted_rate, self._max_seconds = sample_rate, max_seconds
        self._stream: DeviceStream | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._blocks: list[FloatArray] = []
        self._levels = RecorderLevels()
        self.sample_rate = sample_rate or 0

    @property
    def levels(self) -> RecorderLevels:
        """The latest levels."""
        return self._levels

    @property
    def is_recording(self) -> bool:
        """Whether the device is open and the recording goes on."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, *, monitor_only: bool = False) -> None:
        """Open the device and begin anew.

        Raises:
            AudioDeviceError: The device is missing or busy, or refuses the rate.
        """
        self._close()
        device = self._device or choose_device(self._backend.devices(), None, is_input=True)
        self.sample_rate = self._wanted_rate or device.default_sample_rate
        self._blocks, self._levels = [], RecorderLevels()
        self._stream = open_stream(
            self._backend,
            sample_rate=self.sample_rate,
            block_samples=self.sample_rate // 100,
            input_device=device,
            channel=self._channel,
            latency_s=0.1,  # nobody listens: a deep buffer loses nothing
        )
        self._stopping.clear()
        self._thread = threading.Thread(target=self._drain, args=(self._stream, monitor_only), name="recorder")
        self._stream.start()
        self._thread.start()

    def stop(self) -> AudioClip:
        """End the recording and return it, [1, N] at `sample_rate`; N is 0 when nothing came."""
        self._close()
        samples = np.concatenate(self._blocks) if self._blocks else np.zeros(0, dtype=np.float32)
        return AudioClip(samples[np.newaxis, :], self.sample_rate or 48000)

    def recent(self, seconds: float) -> FloatArray:
        """The last samples recorded, [N], for a waveform on the screen."""
        wanted, found, blocks = int(seconds * self.sample_rate), 0, []
        for block in reversed(self._blocks):
            if found >= wanted:
                break
            blocks.append(block)
            found += len(block)
        return np.concatenate(blocks[::-1])[-wanted:] if blocks else np.zeros(0, dtype=np.float32)

    def _close(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _drain(self, stream: DeviceStream, monitor_only: bool) -> None:
        assert stream.capture is not None
        ring, overflows, recorded, still_s, callbacks = stream.capture.ring, 0, 0, 0.0, -1
        peaks = np.zeros(round(2.0 / _POLL_S), dtype=np.float32)
        turn = 0
        while True:
            last_round = self._stopping.wait(_POLL_S)
            block = np.empty(ring.available, dtype=np.float32)
            ring.read_into(block)
            if len(block):
                recorded += len(block)
                if not monitor_only:
                    self._blocks.append(block)
                peak = float(np.abs(block).max())
                peaks[turn % len(peaks)] = peak
                self._levels = RecorderLevels(
                    seconds=recorded / self.sample_rate,
                    peak_dbfs=to_dbfs(peak),
                    rms_dbfs=to_dbfs(float(np.sqrt(np.mean(np.square(block))))),
                    held_peak_dbfs=to_dbfs(float(peaks.max())),
                    clipped=self._levels.clipped or peak >= CLIP_LEVEL,
                )
            else:
                peaks[turn % len(peaks)] = 0.0
            turn += 1
            still_s = 0.0 if stream.callbacks != callbacks else still_s + _POLL_S
            callbacks = stream.callbacks
            if last_round or recorded >= self._max_seconds * self.sample_rate:
                return
            if still_s > _LOST_AFTER_S or not stream.is_active:
                self._fail("The microphone is gone.", "Plug it in again or choose another.")
                return
            if stream.capture.overflows > overflows:
                self._fail("The recording has gaps: this machine was too busy.", "Close other programs and try again.")
                return

    def _fail(self, message: str, hint: str) -> None:
        now = self._levels
        error = AudioDeviceError(message, hint=hint)
        self._levels = RecorderLevels(now.seconds, clipped=now.clipped, error=error)


def to_dbfs(amplitude: float) -> float:
    """20 log10 of an amplitude, at least -120 dBFS."""
    return max(_SILENCE_DBFS, 20.0 * float(np.log10(max(amplitude, 1e-12))))
