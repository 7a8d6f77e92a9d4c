"""How other programs get to hear the converted voice: a note, and a virtual microphone in one click."""

import sys
from collections.abc import Callable
from typing import Any

from PySide6.QtWidgets import QVBoxLayout, QWidget

from autovoice_app.tasks import FILES, Tasks
from autovoice_app.widgets.basics import make_button, make_label
from engine.devices import pulse
from engine.jobs import JobContext

_NOTES = {
    "linux": (
        "Make a virtual microphone, then choose “AutoVoice-microphone” as the microphone of Discord, OBS, Zoom or your "
        "browser. It works with PulseAudio and PipeWire and stays until you remove it or log out."
    ),
    "win32": (
        "Install VB-Audio Virtual Cable, choose “CABLE Input” as the output here and “CABLE Output” as the microphone "
        "of the other program. Set both to 48 kHz in Windows' sound settings, and switch off the other program's own "
        "noise suppression: it takes a converted voice for noise."
    ),
    "darwin": (
        "Install BlackHole 2ch, choose it as the output here and as the microphone of the other program. To hear "
        "yourself, choose your headphones as the monitor."
    ),
}


class RoutingBox(QWidget):
    """The note and the button.

    Args:
        tasks: Talking to the sound server happens in its file lane.
        use_output: Called with the virtual microphone's output device once it is there.
    """

    def __init__(self, tasks: Tasks, use_output: Callable[[str], Any], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._tasks, self._use_output = tasks, use_output
        self._microphone: pulse.VirtualMicrophone | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        system = "linux" if sys.platform.startswith("linux") else sys.platform
        column.addWidget(make_label(_NOTES.get(system, _NOTES["linux"]), muted=True, wrap=True))
        self.button = make_button(
            "Make virtual microphone",
            "Add a microphone that carries the converted voice to the sound server, and play to it",
            self.toggle,
            icon_name="microphone",
        )
        self.button.setVisible(system == "linux")
        column.addWidget(self.button)

    def look(self) -> None:
        """Find out whether the virtual microphone is there already."""
        if not self.button.isHidden():
            self._run("Looking for the virtual microphone", _find, self._show)

    def toggle(self) -> None:
        """Make it, or take it away."""
        self.button.setEnabled(False)
        microphone = self._microphone
        if microphone is None:
            self._run("Making a virtual microphone", lambda ctx: pulse.create_virtual_microphone(), self._made)
        else:
            self._run("Removing the virtual microphone", lambda ctx: _remove(microphone), self._show)

    def _run(self, title: str, work: Callable[[JobContext], Any], then: Callable[[Any], None]) -> None:
        task = self._tasks.create(title, work, lane=FILES)
        task.finished.connect(then)
        task.ended.connect(self._enable)
        task.start()

    def _enable(self) -> None:
        self.button.setEnabled(True)

    def _made(self, microphone: Any) -> None:
        self._show(microphone)
        self._use_output(microphone.output_device_id)

    def _show(self, microphone: Any) -> None:
        self._microphone = microphone
        self.button.setText("Make virtual microphone" if microphone is None else "Remove virtual microphone")
        self.button.setAccessibleName(self.button.text())


def _find(ctx: JobContext) -> pulse.VirtualMicrophone | None:
    return pulse.find_virtual_microphone() if pulse.is_available() else None


def _remove(microphone: pulse.VirtualMicrophone) -> None:
    pulse.remove_virtual_microphone(microphone)
