"""Microphones and loudspeakers: the list of them, streams, and recording; the only module that knows PortAudio."""

from engine.devices.backend import PULSE_HOST_API, AudioBackend, AudioDevice, RawStream, StreamRequest
from engine.devices.choice import choose_device
from engine.devices.portaudio import PortAudioBackend
from engine.devices.pulse import DeviceWatch
from engine.devices.recorder import InputRecorder, RecorderLevels, to_dbfs
from engine.devices.ring import SampleRing
from engine.devices.streams import CaptureEnd, DeviceStream, PlaybackEnd, open_stream

__all__ = [
    "PULSE_HOST_API",
    "AudioBackend",
    "AudioDevice",
    "CaptureEnd",
    "DeviceStream",
    "DeviceWatch",
    "InputRecorder",
    "PlaybackEnd",
    "PortAudioBackend",
    "RawStream",
    "RecorderLevels",
    "SampleRing",
    "StreamRequest",
    "choose_device",
    "open_stream",
    "system_devices",
    "to_dbfs",
]

_system: PortAudioBackend | None = None


def system_devices() -> PortAudioBackend:
    """This machine's devices; one backend for the whole program, since PortAudio is one."""
    global _system
    if _system is None:
        _system = PortAudioBackend()
    return _system
