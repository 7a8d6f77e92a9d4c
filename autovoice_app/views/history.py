"""History: what was converted, when, in whose voice, with the measured figures."""

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QDateTime, QLocale, Qt, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QAbstractItemView, QHBoxLayout, QHeaderView, QStackedWidget, QTreeWidget, QTreeWidgetItem

from autovoice_app.assets import Space
from autovoice_app.context import AppContext, Page
from autovoice_app.songs import title_of
from autovoice_app.widgets.basics import about, clock, make_button, make_empty
from engine.store.records import RenderRecord

_RECORD = Qt.ItemDataRole.UserRole


def _number(key: str, form: str) -> Callable[[dict[str, Any]], str]:
    def text(report: dict[str, Any]) -> str:
        value = report.get(key)
        return form.format(value) if isinstance(value, int | float) else "–"

    return text


# Heading, what it means, text from the report.
FIGURES: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("Length", "Length of the song", lambda report: clock(report.get("seconds") or 0.0)),
    ("Took", "Time that the conversion took", lambda report: about(report.get("total_seconds") or 0.0)),
    ("Key", "Semitones up or down", _number("transpose_semitones", "{:+.0f}")),
    ("Pitch error", "Deviation of the sung from the wanted pitch, cents (RMS)", _number("f0_rmse_cents", "{:.0f} ct")),
    ("Likeness", "Likeness to the voice, 1 is the same", _number("similarity", "{:.2f}")),
    ("Loudness", "Integrated loudness of the mix", _number("mix_loudness_lufs", "{:.1f} LUFS")),
)


class HistoryPage(Page):
    """The last conversions as a table."""

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        column, head = self.page_layout("History", "What was converted, newest first")
        self._stack = QStackedWidget()
        self._stack.addWidget(
            make_empty(
                "clock-counter-clockwise",
                "Nothing converted yet",
                "Convert a song, and it is listed here with its measured quality.",
                make_button(
                    "Convert a song", "Go to the Convert page", lambda: self.songs_offered.emit([]), primary=True
                ),
            )
        )
        self.table = QTreeWidget()
        self.table.setAccessibleName("Conversions")
        self.table.setToolTip("Conversions; Enter takes the song to the Convert page")
        self.table.setRootIsDecorated(False)
        self.table.setUniformRowHeights(True)
        self.table.setAllColumnsShowFocus(True)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setHeaderLabels(["When", "Song", "Voice", "Preset", *(heading for heading, _, _ in FIGURES)])
        for number, (_, meaning, _) in enumerate(FIGURES, start=4):
            self.table.headerItem().setToolTip(number, meaning)
        header = self.table.header()
        header.setAccessibleName("Columns")
        header.setToolTip("Drag a border to change a column's width")
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(48)
        header.setStretchLastSection(False)
        self.table.itemActivated.connect(self.open_song)
        self.table.currentItemChanged.connect(self._show_buttons)
        self._stack.addWidget(self.table)
        column.addWidget(self._stack, 1)
        row = QHBoxLayout()
        row.setSpacing(Space.S)
        row.addStretch(1)
        self.forget_button = make_button("Forget", "Take this line off the list; files are not touched", self.forget)
        self.show_button = make_button("Show files", "Show mix and stems in the file manager", self.show_files)
        self.open_button = make_button("Open in Convert", "Take the song to the Convert page", self.open_song)
        for button in (self.forget_button, self.show_button, self.open_button):
            row.addWidget(button)
        column.addLayout(row)
        self._show_buttons()

    def on_shown(self) -> None:
        """Conversions may have been added."""
        self.table.clear()
        for record in self.context.store.renders():
            self.table.addTopLevelItem(_item(record))
        self._stack.setCurrentIndex(1 if self.table.topLevelItemCount() else 0)
        first = self.table.topLevelItem(0)
        if first is not None:
            self.table.setCurrentItem(first)
        self._show_buttons()

    @property
    def current(self) -> RenderRecord | None:
        """The chosen line."""
        item = self.table.currentItem()
        return item.data(0, _RECORD) if item is not None else None

    def open_song(self) -> None:
        """Take the song to the Convert page, where its last conversion comes back."""
        if self.current is not None and self.current.source.is_file():
            self.songs_offered.emit([self.current.source])
        elif self.current is not None:
            self.context.notices.show(
                f"The song “{self.current.source.name}” is no longer in its folder.",
                f"It was {self.current.source}; move it back or open it from its new place.",
                kind="warning",
            )

    def show_files(self) -> None:
        """Open the folder of the mix."""
        if self.current is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.current.destination.parent)))

    def forget(self) -> None:
        """Take the line off the list."""
        if self.current is not None:
            self.context.store.forget_render(self.current)
            self.on_shown()

    def _show_buttons(self) -> None:
        record = self.current
        for button in (self.forget_button, self.show_button, self.open_button):
            button.setVisible(self._stack.currentIndex() == 1)
        self.forget_button.setEnabled(record is not None)
        self.open_button.setEnabled(record is not None)
        self.show_button.setEnabled(record is not None and record.destination.exists())


def _item(record: RenderRecord) -> QTreeWidgetItem:
    when = QDateTime.fromSecsSinceEpoch(round(record.created))
    report = dict(record.report)
    item = QTreeWidgetItem(
        [
            QLocale().toString(when, QLocale.FormatType.ShortFormat),
            title_of(record.source),
            record.voice_name,
            record.preset,
            *(text(report) for _, _, text in FIGURES),
        ]
    )
    item.setData(0, _RECORD, record)
    item.setToolTip(1, str(record.source))
    for number in range(4, 4 + len(FIGURES)):
        item.setTextAlignment(number, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item
