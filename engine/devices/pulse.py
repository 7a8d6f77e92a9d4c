"""PulseAudio's and PipeWire's own devices, and a virtual microphone for other programs, through `pactl`."""

import json
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.devices.backend import PULSE_HOST_API, AudioDevice
from engine.errors import AudioDeviceError

log = logging.getLogger(__name__)

VIRTUAL_SINK = "autovoice"
VIRTUAL_SOURCE = "autovoice_microphone"
_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class VirtualMicrophone:
    """A sink that AutoVoice plays to and a source that other programs record from.

    Attributes:
        output_device_id: What live mode is to play to.
        source_name: The microphone as other programs list it.
        module_ids: PulseAudio's modules, for removal.
    """

    output_device_id: str
    source_name: str
    module_ids: tuple[int, ...]


def is_available() -> bool:
    """Whether a PulseAudio or PipeWire server answers."""
    try:
        _pactl("info")
    except AudioDeviceError:
        return False
    return True


def list_devices() -> list[AudioDevice]:
    """The server's sinks and sources; empty where no server answers."""
    if shutil.which("pactl") is None:
        return []
    try:
        info = _pactl_json("info")
        sinks, sources = _pactl_json("list", "sinks"), _pactl_json("list", "sources")
    except AudioDeviceError as error:
        log.debug("no PulseAudio devices: %s", error.message)
        return []
    devices = [
        _device(sink, is_input=False, is_default=sink["name"] == info.get("default_sink_name")) for sink in sinks
    ]
    devices += [
        _device(source, is_input=True, is_default=source["name"] == info.get("default_source_name"))
        for source in sources
    ]
    return devices


def pulse_name(device: AudioDevice) -> str:
    """The server's own name of a device of `list_devices`."""
    return device.id.split(": ", 2)[2]


class DeviceWatch:
    """Notices when one of the server's devices is taken away.

    The server moves a stream whose device went to another one and says nothing, so that a voice could suddenly come out
    of the wrong loudspeaker; its own news are listened to instead.

    Args:
        devices: The devices to watch; those of other host APIs are left out.
    """

    def __init__(self, devices: Sequence[AudioDevice]) -> None:
        self._wanted = {device.id: device for device in devices if device.host_api == PULSE_HOST_API}
        self.missing: AudioDevice | None = None
        self._process: subprocess.Popen[str] | None = None
        if not self._wanted:
            return
        try:
            self._process = subprocess.Popen(
                ["pactl", "subscribe"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        except OSError as error:
            log.debug("devices are not watched: %s", error)
            return
        self._thread = threading.Thread(target=self._listen, args=(self._process,), name="device watch")
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._thread.join()
            self._process = None

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as news:
            for line in news:
                if "'remove' on s" in line and ("sink #" in line or "source #" in line):
                    present = {device.id for device in list_devices()}
                    self.missing = next((device for key, device in self._wanted.items() if key not in present), None)


def find_virtual_microphone() -> VirtualMicrophone | None:
    """The virtual microphone if it was made already, by this run or an earlier one."""
    modules = []
    for line in _pactl("list", "short", "modules").splitlines():
        number, _, rest = line.partition("\t")
        if f"sink_name={VIRTUAL_SINK} " in rest + " " or f"source_name={VIRTUAL_SOURCE} " in rest + " ":
            modules.append(int(number))
    if len(modules) < 2:
        return None
    return VirtualMicrophone(_device_id(VIRTUAL_SINK, is_input=False), "AutoVoice microphone", tuple(modules))


def create_virtual_microphone() -> VirtualMicrophone:
    """Make a microphone that other programs can choose and that carries what live mode plays.

    It stays until `remove_virtual_microphone` or until the sound server ends.

    Raises:
        AudioDeviceError: No server answers, or it refuses.
    """
    existing = find_virtual_microphone()
    if existing:
        return existing
    sink = _pactl(
        "load-module", "module-null-sink", f"sink_name={VIRTUAL_SINK}", "rate=48000",
        "sink_properties=device.description=AutoVoice",
    )  # fmt: skip
    try:
        source = _pactl(
            "load-module", "module-remap-source", f"source_name={VIRTUAL_SOURCE}", f"master={VIRTUAL_SINK}.monitor",
            "source_properties=device.description=AutoVoice-microphone",
        )  # fmt: skip
    except AudioDeviceError:
        _pactl("unload-module", sink.strip())
        raise
    modules = (int(sink), int(source))
    return VirtualMicrophone(_device_id(VIRTUAL_SINK, is_input=False), "AutoVoice microphone", modules)


def remove_virtual_microphone(microphone: VirtualMicrophone) -> None:
    """Take the virtual microphone away again.

    Raises:
        AudioDeviceError: No server answers, or it refuses.
    """
    for module in reversed(microphone.module_ids):
        _pactl("unload-module", str(module))


def _device_id(name: str, *, is_input: bool) -> str:
    return f"{PULSE_HOST_API}: {'source' if is_input else 'sink'}: {name}"


def _device(entry: dict[str, Any], *, is_input: bool, is_default: bool) -> AudioDevice:
    words = str(entry.get("sample_specification", "")).split()  # "s16le 2ch 48000Hz"
    rate = next((int(word[:-2]) for word in words if word.endswith("Hz")), 48000)
    channels = next((int(word[:-2]) for word in words if word.endswith("ch")), 2)
    name = str(entry["name"])
    return AudioDevice(
        id=_device_id(name, is_input=is_input),
        name=str(entry.get("description") or name),
        host_api=PULSE_HOST_API,
        max_input_channels=channels if is_input else 0,
        max_output_channels=0 if is_input else channels,
        default_sample_rate=rate,
        is_default_input=is_input and is_default,
        is_default_output=not is_input and is_default,
        is_monitor=is_input and name.endswith(".monitor"),
    )


def _pactl_json(*words: str) -> Any:
    answer = _pactl("--format=json", *words)
    try:
        return json.loads(answer)
    except ValueError as error:
        raise AudioDeviceError(
            "This pactl is too old to list devices.", hint="Version 16 or newer is needed."
        ) from error


def _pactl(*words: str) -> str:
    try:
        done = subprocess.run(
            ["pactl", *words],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AudioDeviceError(
            "No PulseAudio or PipeWire server answers.", hint="Install pulseaudio-utils, or choose another host API."
        ) from error
    if done.returncode:
        raise AudioDeviceError(
            "The sound server refused.", hint=done.stderr.strip() or "Is PulseAudio or PipeWire running?"
        )
    return done.stdout
