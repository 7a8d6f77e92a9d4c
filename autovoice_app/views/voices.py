"""The Voices page: profiles as cards, and everything one can do with them."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QAction, QDragEnterEvent, QDropEvent, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QLineEdit,
    QListView,
    QMenu,
    QSplitter,
    QWidget,
)

from autovoice_app.assets import Space
from autovoice_app.context import AppContext, Page
from autovoice_app.tasks import ENGINE, FILES, EngineTask
from autovoice_app.views.voices_cards import CARD, ORDERS, VoiceCard, VoicesModel
from autovoice_app.views.voices_detail import VoiceDetail
from autovoice_app.widgets.basics import make_button, make_combo, make_label
from engine.jobs import JobContext
from engine.store import VoiceRecord, export_voice, file_name, import_voice

_ARCHIVE = ".autovoice"


class VoicesPage(Page):
    """Cards on the left, the chosen voice on the right."""

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        self._wanted_id = ""
        self._is_closing = self._is_fresh = False
        self._improving: dict[str, EngineTask] = {}
        self._sample_wanted = ""
        self.wizard: QWidget | None = None
        column, head = self.page_layout("Voices", "Half a minute of speech or song makes one")
        self.new_button = make_button(
            "New voice…",
            "Record a voice, or make one of recordings",
            self.open_wizard,
            icon_name="microphone",
            primary=True,
        )
        self.import_button = make_button(
            "Import…", "Take a voice from an .autovoice file", self.choose_archive, icon_name="download-simple"
        )
        self.blend_button = make_button(
            "Blend…", "Mix two or more voices into a new one", self.open_blend, icon_name="drop-half"
        )
        self.more_button = make_button("More", "Backups and deleted voices", self._show_more, icon_name="dots-three")
        for button in (self.more_button, self.blend_button, self.import_button, self.new_button):
            head.addWidget(button)
        column.addLayout(self._make_tools())
        self.model = VoicesModel(self)
        self.cards = self._make_cards()
        self.detail = VoiceDetail(self)
        splitter = QSplitter(Qt.Orientation.Horizontal)
        splitter.addWidget(self.cards)
        splitter.addWidget(self.detail)
        splitter.setStretchFactor(0, 1)
        splitter.setCollapsible(1, False)
        splitter.setChildrenCollapsible(False)
        column.addWidget(splitter, 1)
        self.setAcceptDrops(True)
        context.player.changed.connect(self._follow_player)
        self._connect_detail()
        rename = QAction("Rename", self, shortcut=QKeySequence("F2"))
        rename.triggered.connect(self.rename)
        self.addAction(rename)

    # What the window calls.

    def on_shown(self) -> None:
        """Read the voices anew: another page, or the terminal, may have changed them."""
        self.reload()
        if not self._is_fresh:
            self._is_fresh = True
            self.run("Looking for voices of older models", lambda ctx: self.context.store.stale_voices(), self._refresh)

    def toggle_play(self) -> None:
        """Space: hear the chosen voice."""
        record = self.chosen
        if record is not None:
            self.play_sample(record)

    def shut_down(self) -> None:
        """Stop recording."""
        self.detail.save_notes()
        self._is_closing = True
        if self.wizard is not None:
            self.wizard.close()

    # Choosing.

    @property
    def chosen(self) -> VoiceRecord | None:
        """The chosen voice."""
        return self.model.record(self.cards.currentIndex())

    def reload(self, choose: str = "") -> None:
        """Read the voices from the store, and choose one by its id."""
        if choose:
            self._wanted_id = choose
        self.run("Reading the voices", lambda ctx: self.context.store.voices(), self._show_records)

    def run(
        self,
        title: str,
        work: Callable[[JobContext], Any],
        then: Callable[[Any], object] | None = None,
        *,
        lane: str = FILES,
    ) -> None:
        """Do something away from the GUI thread, then something in it; nothing any more while the window closes."""
        if self._is_closing:
            return
        task = self.context.tasks.create(title, work, lane=lane)
        if then is not None:
            task.finished.connect(then)
        task.start()

    # What one can do with a voice.

    def play_sample(self, record: VoiceRecord) -> None:
        """Play the voice's first recording; a voice without any says a sentence, made once and kept."""
        player = self.context.player
        if self._sample_wanted == record.id and player.path is not None:
            player.toggle()
            return
        from autovoice_app.views.voices_samples import find_sample, make_sample

        self._sample_wanted = record.id
        store, folder = self.context.store, self.context.data_folder / "samples"

        def find(ctx: JobContext) -> Path | None:
            return find_sample(store, record, folder)

        def play(path: Path | None) -> None:
            if path is not None:
                self._play(record.id, path)
            else:
                title = f"Making a sample of {record.name}"
                self.run(
                    title,
                    lambda ctx: make_sample(store, record, folder, ctx),
                    functools.partial(self._play, record.id),
                    lane=ENGINE,
                )

        self.run("Looking for a sample", find, play)

    def rename(self) -> None:
        """Ask for another name."""
        record = self.chosen
        if record is None or record.builtin:
            return
        name, agreed = QInputDialog.getText(self, "Rename", "New name:", QLineEdit.EchoMode.Normal, record.name)
        if agreed and name.strip() and name != record.name:
            self.rename_to(record, name)

    def rename_to(self, record: VoiceRecord, name: str) -> None:
        """Give a voice another name."""
        self.run("Renaming", lambda ctx: self.context.store.rename(record, name), self._changed)

    def set_notes(self, record: VoiceRecord, notes: str) -> None:
        """Keep the user's notes."""
        self.run("Saving the notes", lambda ctx: self.context.store.set_notes(record, notes), self._changed)

    def choose_picture(self) -> None:
        """Ask for a picture of the voice."""
        record = self.chosen
        if record is None:
            return
        path, _ = QFileDialog.getOpenFileName(self, "Picture", "", "Pictures (*.png *.jpg *.jpeg *.webp *.bmp)")
        if path:
            self.set_picture(record, Path(path))

    def set_picture(self, record: VoiceRecord, path: Path | None) -> None:
        """Keep a picture, made small first; None goes back to the coloured initial."""
        from autovoice_app.views.voices_samples import small_picture

        def work(ctx: JobContext) -> VoiceRecord:
            return self.context.store.set_picture(record, small_picture(path) if path is not None else None)

        self.run("Saving the picture", work, self._changed)

    def duplicate(self) -> None:
        """Copy the chosen voice."""
        record = self.chosen
        if record is not None:
            self.run(f"Copying {record.name}", lambda ctx: self.context.store.duplicate(record), self._changed)

    def delete(self) -> None:
        """Delete the chosen voice and offer to undo it."""
        record = self.chosen
        if record is None or record.builtin:
            return
        row = self.cards.currentIndex().row()

        def told(_: object) -> None:
            after = self.model.record(self.model.index(min(row + 1, self.model.rowCount() - 1)))
            self._wanted_id = after.id if after is not None and after.id != record.id else ""
            self.reload()
            undo = functools.partial(self.undelete, record)
            self.context.notices.show(f"“{record.name}” was deleted.", kind="info", action=("Undo", undo))

        self.run(f"Deleting {record.name}", lambda ctx: self.context.store.delete(record), told)

    def undelete(self, record: VoiceRecord) -> None:
        """Bring a deleted voice back."""
        self.run(f"Bringing {record.name} back", lambda ctx: self.context.store.undelete(record), self._changed)

    def export(self) -> None:
        """Ask where to write the chosen voice."""
        record = self.chosen
        if record is None:
            return
        folder = Path(self.context.settings.current.export_folder or Path.home())
        path, _ = QFileDialog.getSaveFileName(
            self, "Export voice", str(folder / (file_name(record.name) + _ARCHIVE)), f"Voice (*{_ARCHIVE})"
        )
        if path:
            self.export_to(record, Path(path).with_suffix(_ARCHIVE))

    def export_to(self, record: VoiceRecord, path: Path) -> None:
        """Write a voice as one file."""

        def done(_: object) -> None:
            self.context.notices.show(f"“{record.name}” was written to {path.name}.", kind="success")

        self.run(f"Exporting {record.name}", lambda ctx: export_voice(self.context.store, record, path, ctx), done)

    def choose_archive(self) -> None:
        """Ask for an archive to import."""
        path, _ = QFileDialog.getOpenFileName(self, "Import voice", "", f"Voice (*{_ARCHIVE});;All files (*)")
        if path:
            self.import_from(Path(path))

    def import_from(self, path: Path) -> None:
        """Take a voice from an archive."""

        def work(ctx: JobContext) -> VoiceRecord:
            return import_voice(self.context.store, path, ctx=ctx)

        self.run(f"Importing {path.name}", work, self._imported)

    def improve(self) -> None:
        """Fine-tune the chosen voice in the background."""
        record = self.chosen
        if record is None or record.id in self._improving:
            return
        from engine.enrollment import improve

        task = self.context.tasks.create(
            f"Improving {record.name}", lambda ctx: improve(self.context.store, record, ctx=ctx), lane=ENGINE
        )
        self._improving[record.id] = task
        task.finished.connect(functools.partial(self._improved, record))
        task.ended.connect(functools.partial(self._improvement_ended, record))
        task.start()
        self._follow_improvement()

    def cancel_improvement(self) -> None:
        """Stop improving the chosen voice."""
        record = self.chosen
        if record is not None and record.id in self._improving:
            self._improving[record.id].cancel()

    def undo_improvement(self, record: VoiceRecord | None = None) -> None:
        """Go back to the voice before it was improved."""
        record = record or self.chosen
        if record is not None:
            store = self.context.store
            self.run("Undoing the improvement", lambda ctx: store.undo_improvement(record), self._changed)

    # Other windows of the page.

    def open_wizard(self, paths: list[Path] | None = None) -> None:
        """Record a new voice, or make one of files."""
        if self.wizard is not None:
            self.wizard.raise_()
        else:
            from autovoice_app.views.voices_wizard import VoiceWizard

            wizard = VoiceWizard(self.context, self)
            wizard.made.connect(self._made)
            wizard.finished.connect(self._wizard_closed)
            self.wizard = wizard
            self.context.player.pause()
            wizard.open()
        if paths:
            self.wizard.add_files(paths)  # type: ignore[attr-defined]

    def open_blend(self) -> None:
        """Mix voices."""
        from autovoice_app.views.voices_blend import BlendDialog

        chosen = self.chosen
        dialog = BlendDialog(self.context, self.model.records(), [chosen] if chosen else [], self)
        dialog.made.connect(self._made)
        dialog.open()

    def open_backups(self) -> None:
        """List the backups and go back to one."""
        from autovoice_app.views.voices_backups import BackupsDialog

        dialog = BackupsDialog(self.context, self)
        dialog.restored.connect(self.reload)
        dialog.open()

    # Qt's events.

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Files and folders are welcome."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Archives are imported, recordings go to the wizard."""
        self.take_paths([Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()])
        event.acceptProposedAction()

    def take_paths(self, paths: list[Path]) -> None:
        """Use dropped files."""
        archives = [path for path in paths if path.suffix.lower() == _ARCHIVE]
        for path in archives:
            self.import_from(path)
        others = [path for path in paths if path not in archives]
        if others:
            self.open_wizard(others)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Delete deletes, Ctrl+F searches."""
        if event.key() == Qt.Key.Key_Delete and self.cards.hasFocus():
            self.delete()
        elif event.matches(QKeySequence.StandardKey.Find):
            self.search_line.setFocus()
        else:
            super().keyPressEvent(event)

    # Inside.

    def _make_tools(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(Space.S)
        self.search_line = QLineEdit()
        self.search_line.setPlaceholderText("Search names and notes")
        self.search_line.setClearButtonEnabled(True)
        self.search_line.setAccessibleName("Search voices")
        self.search_line.setToolTip("Keeps the voices whose name, notes or consent hold every word (Ctrl+F)")
        self.search_line.setFixedWidth(260)
        self._search_timer = QTimer(self, interval=120, singleShot=True)
        self._search_timer.timeout.connect(self._search)
        self.search_line.textChanged.connect(lambda text: self._search_timer.start())
        row.addWidget(self.search_line)
        orders = [(label, key) for key, (label, _) in ORDERS.items()]
        self.order = make_combo("Order of the voices", "How the voices are sorted", orders, self._order)
        self.order.activated.connect(lambda number: self._reorder())
        row.addWidget(self.order)
        self.count_label = make_label("", muted=True)
        row.addWidget(self.count_label)
        row.addStretch(1)
        return row

    @property
    def _order(self) -> str:
        return self.context.settings.current.voices_order

    def _make_cards(self) -> QListView:
        cards = QListView()
        cards.setModel(self.model)
        self.model.order_by(self._order)
        self._card = VoiceCard(self.model, self)
        self._card.play_clicked.connect(self.play_sample)
        cards.setItemDelegate(self._card)
        cards.setFlow(QListView.Flow.LeftToRight)
        cards.setWrapping(True)
        cards.setResizeMode(QListView.ResizeMode.Adjust)
        cards.setUniformItemSizes(True)
        cards.setGridSize(CARD)
        cards.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        cards.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        cards.setMouseTracking(True)
        cards.setMinimumSize(QSize(CARD.width() + 30, 200))
        cards.setAccessibleName("Voices")
        cards.setToolTip("Choose a voice; Enter plays it, F2 renames it, Delete deletes it")
        cards.setFrameShape(QListView.Shape.NoFrame)
        cards.setStyleSheet("QListView { background: transparent; border: none; }")
        cards.selectionModel().currentChanged.connect(lambda now, before: self._show_chosen())
        cards.activated.connect(lambda index: self.toggle_play())
        return cards

    def _connect_detail(self) -> None:
        detail = self.detail
        detail.notes_changed.connect(self.set_notes)
        for signal, act in (
            (detail.play_asked, self.toggle_play),
            (detail.rename_asked, self.rename),
            (detail.picture_asked, self.choose_picture),
            (detail.duplicate_asked, self.duplicate),
            (detail.export_asked, self.export),
            (detail.delete_asked, self.delete),
            (detail.improve_asked, self.improve),
            (detail.cancel_asked, self.cancel_improvement),
            (detail.undo_asked, self.undo_improvement),
        ):
            signal.connect(lambda act=act: act())

    def _show_more(self) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction("Backups…", self.open_backups)
        deleted = menu.addMenu("Bring back a deleted voice")
        records = self.context.store.deleted_voices()[:20]
        deleted.setEnabled(bool(records))
        for record in records:
            deleted.addAction(record.name, functools.partial(self.undelete, record))
        menu.popup(self.more_button.mapToGlobal(self.more_button.rect().bottomLeft()))

    def _search(self) -> None:
        self._keep_choice(lambda: self.model.search(self.search_line.text()))

    def _reorder(self) -> None:
        self.context.settings.update(voices_order=self.order.currentData())
        self._keep_choice(lambda: self.model.order_by(self._order))

    def _show_records(self, records: list[VoiceRecord]) -> None:
        self._keep_choice(lambda: self.model.set_records(records))

    def _keep_choice(self, change: Callable[[], None]) -> None:
        chosen = self.chosen
        wanted = self._wanted_id or (chosen.id if chosen else "")
        change()
        index = self.model.find(wanted)
        if not index.isValid() and self.model.rowCount():
            index = self.model.index(0)
        if index.isValid():
            self.cards.setCurrentIndex(index)
            if self._wanted_id:
                self.cards.scrollTo(index)
                self._wanted_id = ""
        total, shown = self.model.total, self.model.rowCount()
        self.count_label.setText(
            f"{shown} of {total}" if shown != total else f"{total} voices" if total != 1 else "1 voice"
        )
        self.blend_button.setEnabled(total >= 2)
        self._show_chosen()

    def _show_chosen(self) -> None:
        self.detail.show_record(self.chosen)
        self._follow_improvement()

    def _changed(self, record: VoiceRecord) -> None:
        self.reload(record.id)

    def _made(self, record: VoiceRecord) -> None:
        self.reload(record.id)
        if record.messages:
            self.context.notices.show(
                f"“{record.name}” was made, with a remark.", " ".join(record.messages), kind="warning"
            )
        else:
            self.context.notices.show(f"“{record.name}” is ready.", kind="success")

    def _refresh(self, stale: list[VoiceRecord]) -> None:
        """Make voices of older models again, in the background."""
        store = self.context.store
        for record in stale:
            work = functools.partial(store.load_voice, record)
            self.run(f"Bringing {record.name} up to date", work, lambda _: self.reload(), lane=ENGINE)

    def _imported(self, record: VoiceRecord) -> None:
        self.reload(record.id)
        self.context.notices.show(f"“{record.name}” was imported.", record.consent, kind="success")

    def _wizard_closed(self) -> None:
        if self.wizard is not None:
            self.wizard.deleteLater()
            self.wizard = None

    def _play(self, voice_id: str, path: Path) -> None:
        if self._sample_wanted == voice_id:
            self.context.player.open(path)
            self.context.player.play()

    def _follow_player(self) -> None:
        playing = self._sample_wanted if self.context.player.is_playing else ""
        if playing != self._card.playing_id:
            self._card.playing_id = playing
            self.cards.viewport().update()
        chosen = self.chosen
        self.detail.show_playing(bool(playing) and chosen is not None and chosen.id == playing)

    def _follow_improvement(self) -> None:
        record = self.chosen
        task = self._improving.get(record.id) if record is not None else None
        self.detail.show_task(task)

    def _improved(self, record: VoiceRecord, outcome: Any) -> None:
        before, after = outcome.similarity_before, outcome.similarity_after
        if outcome.kept:
            undo = functools.partial(self.undo_improvement, record)
            self.context.notices.show(
                f"“{record.name}” sounds closer now: similarity {before:.3f} became {after:.3f}.",
                kind="success",
                action=("Undo", undo),
            )
        else:
            self.context.notices.show(
                f"“{record.name}” stays as it was: improving did not bring it closer.",
                f"Similarity {before:.3f} before, {after:.3f} after. More or cleaner recordings help more.",
            )
        self.reload()

    def _improvement_ended(self, record: VoiceRecord) -> None:
        self._improving.pop(record.id, None)
        self._follow_improvement()
