"""Backups of the store: the list to go back from."""

import time

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDialog, QHBoxLayout, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from autovoice_app.assets import Space
from autovoice_app.context import AppContext
from autovoice_app.tasks import FILES
from autovoice_app.widgets.basics import make_button, make_label
from engine.store import BackupRecord

_REASONS = {"daily": "daily", "before-restore": "before going back", "before-migration": "before an update"}


class BackupsDialog(QDialog):
    """Lists the sound backups, newest first."""

    restored = Signal()

    def __init__(self, context: AppContext, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.context = context
        self._backups: list[BackupRecord] = []
        self.setWindowTitle("Backups")
        self.setMinimumSize(460, 360)
        column = QVBoxLayout(self)
        column.setContentsMargins(Space.L, Space.L, Space.L, Space.L)
        column.setSpacing(Space.M)
        column.addWidget(
            make_label(
                "AutoVoice keeps a backup of each of the last seven days it was used. Going back replaces the list of "
                "voices as a whole; the list of now is backed up first.",
                muted=True,
                wrap=True,
            )
        )
        self.list = QListWidget()
        self.list.setAccessibleName("Backups")
        self.list.setToolTip("Choose the day to go back to")
        column.addWidget(self.list, 1)
        row = QHBoxLayout()
        row.addWidget(make_button("Back up now", "Makes the backup of today anew, as things are now", self._back_up))
        row.addStretch(1)
        row.addWidget(make_button("Close", "Leave everything as it is", self.reject))
        self.restore_button = make_button("Go back to this", "Replaces the list of voices", self.restore, primary=True)
        self.restore_button.setEnabled(False)
        self.list.currentRowChanged.connect(lambda number: self.restore_button.setEnabled(number >= 0))
        row.addWidget(self.restore_button)
        column.addLayout(row)
        self._list()

    def restore(self) -> None:
        """Go back to the chosen backup."""
        row = self.list.currentRow()
        if 0 <= row < len(self._backups):
            backup = self._backups[row]
            task = self.context.tasks.create("Going back", lambda ctx: self.context.store.restore(backup), lane=FILES)
            task.finished.connect(self._restored)
            task.start()
            self.restore_button.setEnabled(False)

    def _back_up(self) -> None:
        task = self.context.tasks.create("Backing up", lambda ctx: self.context.store.back_up(), lane=FILES)
        task.finished.connect(lambda _: self._list())
        task.start()

    def _list(self) -> None:
        task = self.context.tasks.create("Looking for backups", lambda ctx: self.context.store.backups(), lane=FILES)
        task.finished.connect(self._show)
        task.start()

    def _show(self, backups: list[BackupRecord]) -> None:
        self._backups = backups
        self.list.clear()
        for backup in backups:
            self.list.addItem(QListWidgetItem(_describe(backup)))

    def _restored(self) -> None:
        self.context.notices.show(
            "Went back to the backup.", "The list of before is among the backups too.", kind="success"
        )
        self.restored.emit()
        self.accept()


def _describe(backup: BackupRecord) -> str:
    when = time.strftime("%A, %d %B %Y, %H:%M", time.localtime(backup.created))
    voices = "1 voice" if backup.num_voices == 1 else f"{backup.num_voices} voices"
    return f"{when}: {voices} ({_REASONS[backup.reason]})"
