"""What the Live page remembers: settings, devices, and presets by name, as text in the program's settings."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from engine.live import BLOCK_CHOICES_MS, LiveOptions, LiveSettings

BUILTIN_PRESETS: Mapping[str, LiveSettings] = {
    "Quiet room": LiveSettings(),
    "Noisy room": LiveSettings(noise_suppression=True, gate_threshold_dbfs=-42.0, high_pass_hz=100.0),
    "Singing": LiveSettings(transpose=0.0, gate_threshold_dbfs=-60.0),
}
# Kept in a preset; muting and bypassing belong to the moment.
_MOMENTARY = ("muted", "bypassed")
_LIMITS = {
    "input_gain_db": (-24.0, 24.0),
    "output_gain_db": (-24.0, 24.0),
    "monitor_gain_db": (-40.0, 12.0),
    "high_pass_hz": (0.0, 300.0),
    "gate_threshold_dbfs": (-80.0, -10.0),
    "formant_semitones": (-6.0, 6.0),
    "wet": (0.0, 1.0),
}


@dataclass(frozen=True)
class LiveChoices:
    """Everything chosen on the page.

    Attributes:
        settings: What may change while live.
        options: Devices and block.
        host_api: Only its devices are listed; "" lists all.
        push_to_talk: Muted unless the key is held.
        global_hotkeys: Keys work while another program is in front.
        favourites: Ids of voices, in order.
        presets: The user's own, by name.
    """

    settings: LiveSettings = field(default_factory=LiveSettings)
    options: LiveOptions = field(default_factory=LiveOptions)
    host_api: str = ""
    push_to_talk: bool = False
    global_hotkeys: bool = False
    favourites: tuple[str, ...] = ()
    presets: Mapping[str, LiveSettings] = field(default_factory=dict)

    def to_text(self) -> str:
        """As the settings keep it."""
        options = {k: v for k, v in dataclasses.asdict(self.options).items() if k != "record"}
        return json.dumps(
            {
                "settings": _kept(self.settings),
                "options": options,
                "host_api": self.host_api,
                "push_to_talk": self.push_to_talk,
                "global_hotkeys": self.global_hotkeys,
                "favourites": list(self.favourites),
                "presets": {name: _kept(settings) for name, settings in self.presets.items()},
            }
        )

    @classmethod
    def from_text(cls, text: str) -> "LiveChoices":
        """What `to_text` gave; whatever does not parse becomes its default."""
        try:
            data = json.loads(text) if text else {}
        except ValueError:
            data = {}
        if not isinstance(data, dict):
            data = {}
        presets, favourites = data.get("presets"), data.get("favourites")
        host_api = data.get("host_api")
        return cls(
            settings=parse_settings(data.get("settings")),
            options=_parse_options(data.get("options")),
            host_api=host_api if isinstance(host_api, str) else "",
            push_to_talk=data.get("push_to_talk") is True,
            global_hotkeys=data.get("global_hotkeys") is True,
            favourites=tuple(v for v in favourites if isinstance(v, str)) if isinstance(favourites, list) else (),
            presets={str(name): parse_settings(value) for name, value in presets.items()}
            if isinstance(presets, dict)
            else {},
        )


def parse_settings(data: Any) -> LiveSettings:
    """Settings of a dict; fields that are missing, of another kind or out of range take their default."""
    if not isinstance(data, dict):
        return LiveSettings()
    values: dict[str, Any] = {}
    for name, (low, high) in _LIMITS.items():
        value = data.get(name)
        if _is_number(value) and low <= value <= high:
            values[name] = float(value)
    for name in ("noise_suppression", "gate_enabled"):
        if isinstance(data.get(name), bool):
            values[name] = data[name]
    transpose = data.get("transpose")
    if _is_number(transpose) and -12 <= transpose <= 12:
        values["transpose"] = float(transpose)
    return LiveSettings(**values)


def _parse_options(data: Any) -> LiveOptions:
    if not isinstance(data, dict):
        return LiveOptions()
    values: dict[str, Any] = {}
    for name in ("input_device", "output_device", "monitor_device"):
        if isinstance(data.get(name), str):
            values[name] = data[name]
    for name in ("input_rate", "output_rate"):
        if isinstance(data.get(name), int) and 8000 <= data[name] <= 192000:
            values[name] = data[name]
    channel = data.get("input_channel", 0)
    values["input_channel"] = channel if channel is None or (isinstance(channel, int) and 0 <= channel < 64) else 0
    if data.get("block_ms") in BLOCK_CHOICES_MS:
        values["block_ms"] = float(data["block_ms"])
    return LiveOptions(**values)


def _kept(settings: LiveSettings) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(settings).items() if name not in _MOMENTARY}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
