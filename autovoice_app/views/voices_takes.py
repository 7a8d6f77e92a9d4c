"""Takes of the wizard: judged when they come from files, shown as rows."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QWidget

from autovoice_app.assets import Space, icon
from autovoice_app.widgets.basics import make_card, make_icon_button, make_label
from engine.errors import AutoVoiceError
from engine.jobs import JobContext

if TYPE_CHECKING:
    from engine.enrollment import Take

_SIGNS = {"good": ("check-circle", "good"), "poor": ("warning", "warning"), "refused": ("x-circle", "danger")}


def make_take_row(
    take: "Take", *, play: Callable[[], None], redo: Callable[[], None] | None, remove: Callable[[], None]
) -> QWidget:
    """One take with its verdict and its buttons.

    Args:
        take: The take.
        play: Lets it be heard.
        redo: Records it again; None for a file.
        remove: Leaves it out.
    """
    card, row = make_card(QHBoxLayout)
    row.setContentsMargins(Space.S, Space.XS, Space.S, Space.XS)
    row.addWidget(make_icon_button("play-fill", f"Play {take.name}", "Listen to this take", play))
    found = take.assessment
    row.addWidget(make_label(f"{take.name}, {found.voiced_s:.0f} s of voice"))
    mark = QPushButton(icon(*_SIGNS[found.verdict]), "")
    mark.setFlat(True)
    mark.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    mark.setAccessibleName(f"{take.name} is {found.verdict}")
    mark.setToolTip("\n".join(found.messages) or "Good")
    mark.setStyleSheet("border: none; background: transparent; padding: 0;")
    row.addWidget(mark)
    row.addWidget(make_label(found.messages[0] if found.messages else "Good", muted=True, wrap=True), 1)
    if redo is not None:
        row.addWidget(make_icon_button("arrow-counter-clockwise", f"Redo {take.name}", "Record this take again", redo))
    row.addWidget(make_icon_button("trash", f"Remove {take.name}", "Leave this take out", remove))
    return card


def judge_files(paths: list[Path], ctx: JobContext) -> "tuple[list[Take], list[AutoVoiceError]]":
    """Read and judge files and folders of them; those that cannot be read do not stop the others."""
    from engine.enrollment import find_recordings, take_file

    takes, failures = [], []
    found = find_recordings(paths)
    for number, path in enumerate(found):
        try:
            takes.append(take_file(path, ctx=ctx.part(number / len(found), (number + 1) / len(found))))
        except AutoVoiceError as error:
            failures.append(error)
    return takes, failures
