"""Devices through PortAudio."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.devices import pulse
from engine.devices.backend import PULSE_HOST_API, AudioDevice, DeviceCallback, RawStream, StreamRequest
from engine.errors import AudioDeviceError

log = logging.getLogger(__name__)

# PortAudio's calls to open, close and list are not made for several threads.
_lock = threading.RLock()


class PortAudioBackend:
    """The machine's devices.

    On Linux, PulseAudio's and PipeWire's sinks and sources are listed one by one under "PulseAudio", although PortAudio
    knows only ALSA's single "pulse" device there: that device is opened with the wanted sink or source named in the
    environment, which the client library reads at that moment.
    """

    def __init__(self) -> None:
        self._open_streams = 0
        self._indices: dict[str, int] = {}
        self._portaudio: ModuleType | None = None

    def devices(self, *, refresh: bool = False) -> list[AudioDevice]:
        """See `AudioBackend.devices`."""
        with _lock:
            portaudio = self._module()
            if refresh and not self._open_streams:
                portaudio._terminate()
                portaudio._initialize()
            host_apis = portaudio.query_hostapis()
            devices, self._indices = [], {}
            for index, entry in enumerate(portaudio.query_devices()):
                host_api = host_apis[entry["hostapi"]]
                device_id = f"{host_api['name']}: {entry['name']}"
                if device_id in self._indices:  # two equal sound cards
                    device_id = f"{device_id} #{index}"
                self._indices[device_id] = index
                devices.append(
                    AudioDevice(
                        id=device_id,
                        name=entry["name"],
                        host_api=host_api["name"],
                        max_input_channels=entry["max_input_channels"],
                        max_output_channels=entry["max_output_channels"],
                        default_sample_rate=int(entry["default_samplerate"]),
                        is_default_input=index == portaudio.default.device[0],
                        is_default_output=index == portaudio.default.device[1],
                    )
                )
            if "ALSA: pulse" in self._indices:
                devices += pulse.list_devices()
            return devices

    def supports(self, device: AudioDevice, sample_rate: int, *, is_input: bool, channels: int = 1) -> bool:
        """See `AudioBackend.supports`."""
        with _lock:
            portaudio = self._module()
            if device.host_api == PULSE_HOST_API:
                return True  # the server converts
            check = portaudio.check_input_settings if is_input else portaudio.check_output_settings
            try:
                check(device=self._index(device), channels=channels, samplerate=sample_rate, dtype="float32")
            except (portaudio.PortAudioError, ValueError):
                return False
            return True

    def open(self, request: StreamRequest, callback: DeviceCallback) -> RawStream:
        """See `AudioBackend.open`."""
        with _lock, _pulse_environment(request):
            stream = _PortAudioStream(self, request, callback)
            self._open_streams += 1
            return stream

    def _module(self) -> ModuleType:
        if self._portaudio is None:
            try:
                import sounddevice
            except OSError as error:
                raise AudioDeviceError(
                    "The PortAudio library is missing.", hint="On Debian and Ubuntu: apt install libportaudio2."
                ) from error
            self._portaudio = sounddevice
        return self._portaudio

    def _index(self, device: AudioDevice) -> int:
        wanted = "ALSA: pulse" if device.host_api == PULSE_HOST_API else device.id
        if wanted not in self._indices:
            self.devices()
        if wanted not in self._indices:
            raise AudioDeviceError(f"The device '{device.name}' is gone.", hint="Plug it in again or choose another.")
        return self._indices[wanted]

    def _forget(self) -> None:
        self._open_streams -= 1


class _PortAudioStream:
    def __init__(self, backend: PortAudioBackend, request: StreamRequest, callback: DeviceCallback) -> None:
        self._backend = backend
        self._portaudio = portaudio = backend._module()
        self._request = request
        self._callback = callback
        self._closed = False
        latency: Any = "low" if request.latency_s is None else request.latency_s
        common = {"samplerate": request.sample_rate, "blocksize": request.block_samples, "dtype": "float32"}
        source, sink = request.input_device, request.output_device
        try:
            if source and sink:
                self._stream = portaudio.Stream(
                    device=(backend._index(source), backend._index(sink)),
                    channels=(request.input_channels, request.output_channels),
                    latency=(latency, latency),
                    extra_settings=(self._extra(source), self._extra(sink)),
                    callback=self._on_both,
                    **common,
                )
            elif source:
                self._stream = portaudio.InputStream(
                    device=backend._index(source),
                    channels=request.input_channels,
                    latency=latency,
                    extra_settings=self._extra(source),
                    callback=self._on_input,
                    **common,
                )
            else:
                assert sink is not None
                self._stream = portaudio.OutputStream(
                    device=backend._index(sink),
                    channels=request.output_channels,
                    latency=latency,
                    extra_settings=self._extra(sink),
                    callback=self._on_output,
                    **common,
                )
        except (portaudio.PortAudioError, ValueError) as error:
            raise _translate(error, request) from error

    @property
    def is_active(self) -> bool:
        return not self._closed and bool(self._stream.active)

    @property
    def input_latency_s(self) -> float:
        latency = self._stream.latency
        return float(latency[0] if isinstance(latency, tuple) else latency) if self._request.input_device else 0.0

    @property
    def output_latency_s(self) -> float:
        latency = self._stream.latency
        return float(latency[1] if isinstance(latency, tuple) else latency) if self._request.output_device else 0.0

    def start(self) -> None:
        with _lock:
            try:
                self._stream.start()
            except self._portaudio.PortAudioError as error:
                raise _translate(error, self._request) from error

    def close(self) -> None:
        with _lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._stream.abort(ignore_errors=True)
                self._stream.close(ignore_errors=True)
            finally:
                self._backend._forget()

    def _extra(self, device: AudioDevice) -> Any:
        if "WASAPI" in device.host_api:  # shared mode refuses every rate but the mixer's own, unless asked to convert
            return self._portaudio.WasapiSettings(auto_convert=True)
        return None

    def _on_input(self, indata: npt.NDArray[np.float32], num_samples: int, _time: Any, status: Any) -> None:
        self._callback(indata, None, num_samples, bool(status))

    def _on_output(self, outdata: npt.NDArray[np.float32], num_samples: int, _time: Any, status: Any) -> None:
        self._callback(None, outdata, num_samples, bool(status))

    def _on_both(
        self,
        indata: npt.NDArray[np.float32],
        outdata: npt.NDArray[np.float32],
        num_samples: int,
        _time: Any,
        status: Any,
    ) -> None:
        self._callback(indata, outdata, num_samples, bool(status))


@contextmanager
def _pulse_environment(request: StreamRequest) -> Iterator[None]:
    wanted = {}
    if request.input_device and request.input_device.host_api == PULSE_HOST_API:
        wanted["PULSE_SOURCE"] = pulse.pulse_name(request.input_device)
    if request.output_device and request.output_device.host_api == PULSE_HOST_API:
        wanted["PULSE_SINK"] = pulse.pulse_name(request.output_device)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _translate(error: Exception, request: StreamRequest) -> AudioDeviceError:
    device = request.input_device or request.output_device
    names = " and ".join(f"'{d.name}'" for d in (request.input_device, request.output_device) if d)
    text = str(error)
    if "sample rate" in text.lower():
        message = f"The device {names} refuses {request.sample_rate} Hz."
        hint = f"Choose another rate; its own is {device.default_sample_rate} Hz." if device else ""
    elif "unavailable" in text.lower() or "busy" in text.lower():
        message, hint = f"The device {names} is busy or gone.", "Close other programs that use it, or choose another."
    elif "channel" in text.lower():
        message, hint = f"The device {names} has no such channel.", "Choose another channel."
    else:
        message, hint = f"The device {names} does not open.", text
    return AudioDeviceError(message, hint=hint)
