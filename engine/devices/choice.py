"""Finding the device that a person or a setting means."""

from collections.abc import Sequence

from engine.devices.backend import PULSE_HOST_API, AudioDevice
from engine.errors import AudioDeviceError


def choose_device(devices: Sequence[AudioDevice], wanted: str | None, *, is_input: bool) -> AudioDevice:
    """The device of that id, name or part of a name; the system's default for None or "".

    An exact id wins over an exact name, which wins over a part of a name; capital letters don't count. Where PulseAudio
    answers, its default device is preferred to ALSA's, because its name says where the sound goes.

    Raises:
        AudioDeviceError: Nothing fits, or several do.
    """
    usable = [d for d in devices if (d.max_input_channels if is_input else d.max_output_channels) > 0]
    direction = "input" if is_input else "output"
    if not usable:
        raise AudioDeviceError(f"There is no {direction} device.", hint="Plug one in, or start the sound server.")
    if not wanted:
        defaults = [d for d in usable if (d.is_default_input if is_input else d.is_default_output)]
        defaults.sort(key=lambda d: d.host_api != PULSE_HOST_API)
        return defaults[0] if defaults else usable[0]
    word = wanted.casefold()
    for fits in (
        [d for d in usable if d.id.casefold() == word],
        [d for d in usable if d.name.casefold() == word or d.id.casefold().endswith(f": {word}")],
        [d for d in usable if word in d.id.casefold() or word in d.name.casefold()],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            names = ", ".join(f"'{d.id}'" for d in fits[:5])
            raise AudioDeviceError(f"Several {direction} devices fit '{wanted}'.", hint=f"Be more exact: {names}.")
    raise AudioDeviceError(
        f"There is no {direction} device '{wanted}'.", hint="`autovoice devices` lists them; it may be unplugged."
    )
