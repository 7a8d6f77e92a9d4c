"""What the engine asks of a system of audio devices, whatever stands behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

# indata [N, C] or None, outdata [N, C] or None, N, whether the device reported an xrun
DeviceCallback = Callable[[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None, int, bool], None]

PULSE_HOST_API = "PulseAudio"


@dataclass(frozen=True)
class AudioDevice:
    """One device as one host API offers it.

    Attributes:
        id: The name it is found by again after a restart or a replug: "host API: name".
        name: For people.
        host_api: "ALSA", "PulseAudio", "Core Audio", "Windows WASAPI", ...
        max_input_channels: 0 for a device that only plays.
        max_output_channels: 0 for a device that only records.
        default_sample_rate: Hz, the rate the device runs at by itself.
        is_default_input: The system's own choice for recording.
        is_default_output: The system's own choice for playing.
        is_monitor: Records what another device plays.
    """

    id: str
    name: str
    host_api: str
    max_input_channels: int
    max_output_channels: int
    default_sample_rate: int
    is_default_input: bool = False
    is_default_output: bool = False
    is_monitor: bool = False


@dataclass(frozen=True)
class StreamRequest:
    """The wish for one stream: to record, to play, or both with one clock.

    Attributes:
        input_device: The device to record from, or None.
        output_device: The device to play to, or None.
        sample_rate: Hz, of both sides.
        block_samples: Samples a callback carries; 0 leaves the choice to the host API.
        input_channels: Channels to open for recording.
        output_channels: Channels to open for playing.
        latency_s: Buffering asked of the device; None asks for its least.
    """

    input_device: AudioDevice | None
    output_device: AudioDevice | None
    sample_rate: int
    block_samples: int
    input_channels: int = 1
    output_channels: int = 2
    latency_s: float | None = None


class RawStream(Protocol):
    """An open stream of a device."""

    @property
    def is_active(self) -> bool:
        """Whether callbacks are being made: False after `stop`, and when the device went away."""

    @property
    def input_latency_s(self) -> float:
        """Delay of recording as the device states it, s."""

    @property
    def output_latency_s(self) -> float:
        """Delay of playing as the device states it, s."""

    def start(self) -> None:
        """Begin to call back."""

    def close(self) -> None:
        """Stop and give the device back; safe to call twice."""


class AudioBackend(Protocol):
    """A system of audio devices: PortAudio, or a fake one in tests."""

    def devices(self, *, refresh: bool = False) -> list[AudioDevice]:
        """The devices there are now.

        Args:
            refresh: Look again for devices that came or went. With PortAudio this is possible only while no stream is
                open; otherwise the list is as it was, apart from PulseAudio's devices, which are always current.
        """

    def supports(self, device: AudioDevice, sample_rate: int, *, is_input: bool, channels: int = 1) -> bool:
        """Whether the device takes this rate."""

    def open(self, request: StreamRequest, callback: DeviceCallback) -> RawStream:
        """Open a stream, stopped.

        Raises:
            AudioDeviceError: The device is missing or busy, or refuses the rate.
        """
