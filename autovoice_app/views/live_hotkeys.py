"""Keys that work while another program is in front; off unless asked for, through the optional package pynput."""

import importlib
import logging
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Signal

from engine.errors import AutoVoiceError

_log = logging.getLogger(__name__)

# As pynput writes keys -> (name of the action, as people write it)
HOTKEYS = {
    "<ctrl>+<alt>+l": ("live", "Ctrl+Alt+L"),
    "<ctrl>+<alt>+m": ("mute", "Ctrl+Alt+M"),
    "<ctrl>+<alt>+b": ("bypass", "Ctrl+Alt+B"),
}


class GlobalHotkeys(QObject):
    """Listens in pynput's thread and tells in the GUI's."""

    pressed = Signal(str)  # "live", "mute" or "bypass"

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._listener: Any = None

    def start(self) -> None:
        """Begin to listen.

        Raises:
            AutoVoiceError: pynput is not installed, or this desktop lets no program listen (Wayland).
        """
        if self._listener is not None:
            return
        try:
            keyboard = importlib.import_module("pynput.keyboard")
        except ImportError as error:
            _log.info("no global hotkeys: %s", error)
            raise AutoVoiceError(
                "Global hotkeys are not available here.",
                hint="They need the package pynput (pip install 'autovoice[hotkeys]') and Windows, macOS or X11.",
            ) from error
        self._listener = keyboard.GlobalHotKeys({keys: self._teller(name) for keys, (name, _) in HOTKEYS.items()})
        self._listener.start()

    def stop(self) -> None:
        """Listen no longer."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
            listener.join(2.0)

    def _teller(self, name: str) -> Callable[[], None]:
        return lambda: self.pressed.emit(name)
