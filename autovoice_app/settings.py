"""What the program remembers between starts: one frozen dataclass kept as an INI file in the data folder."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QSettings, Signal

_log = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True)
class Settings:
    """Every remembered choice, with its default. A page adds its own fields here, named `page_choice`.

    Kept kinds of value: str, bool, int, float and tuple of str.
    """

    version: int = VERSION
    appearance: str = "system"
    page: str = "convert"
    window_geometry: str = ""
    volume: float = 0.8
    output_device: str = ""
    last_folder: str = ""
    export_folder: str = ""
    export_format: str = "wav"
    recent_files: tuple[str, ...] = ()
    convert_voice: str = ""
    convert_preset: str = "balanced"
    convert_transpose: str = "auto"
    convert_separation: str = "auto"
    convert_costs: str = ""  # JSON, see costs
    live_voice: str = ""
    live_choices: str = ""  # JSON, see views.live_choices
    voices_order: str = "name"
    voices_language: str = "en"
    voices_input: str = ""


class SettingsFile(QObject):
    """The settings of the moment and the file behind them.

    What is missing or does not parse becomes its default, and a log line.
    """

    changed = Signal(object)  # the new Settings

    def __init__(self, path: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = QSettings(str(path), QSettings.Format.IniFormat, self)
        self._current = self._read()

    @property
    def current(self) -> Settings:
        """The settings now; replaced whole by `update`."""
        return self._current

    def update(self, **changes: Any) -> None:
        """Change some fields; the file follows when the event loop is idle.

        Raises:
            TypeError: There is no such field.
        """
        new = dataclasses.replace(self._current, **changes)
        if new == self._current:
            return
        self._current = new
        for name in changes:
            self._file.setValue(name, _encode(getattr(new, name)))
        self._file.setValue("version", _encode(VERSION))
        self.changed.emit(new)

    def save(self) -> None:
        """Write the file now; called once, when the program ends."""
        self._file.sync()

    def _read(self) -> Settings:
        defaults = Settings()
        version = _decode(self._file.value("version"), VERSION)
        if version is None or version > VERSION:
            _log.warning("settings are of version %s, this program knows %s; defaults used", version, VERSION)
            return defaults
        values: dict[str, Any] = {}
        for item in dataclasses.fields(Settings):
            if item.name == "version" or not self._file.contains(item.name):
                continue
            value = _decode(self._file.value(item.name), getattr(defaults, item.name))
            if value is None:
                _log.info("setting %s does not parse; default used", item.name)
            else:
                values[item.name] = value
        return Settings(**values)


def _encode(value: Any) -> str:
    return json.dumps(value)


def _decode(text: Any, default: Any) -> Any:
    """The value of a setting, or None when it is not of its default's kind."""
    if text is None:
        return default
    try:
        value = json.loads(str(text))
    except ValueError:
        return None
    if isinstance(default, bool) or isinstance(value, bool):
        return value if isinstance(value, bool) and isinstance(default, bool) else None
    if isinstance(default, float):
        return float(value) if isinstance(value, int | float) else None
    if isinstance(default, tuple):
        return tuple(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else None
    return value if isinstance(value, type(default)) else None
