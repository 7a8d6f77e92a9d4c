"""Models: what is installed, what can be downloaded, what a file adds."""

import functools
from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QFileDialog, QGridLayout, QHBoxLayout, QProgressBar, QScrollArea, QVBoxLayout, QWidget

from autovoice_app.assets import Space
from autovoice_app.context import AppContext, Page
from autovoice_app.tasks import FILES, NETWORK, EngineTask
from autovoice_app.widgets.basics import make_button, make_card, make_heading, make_label
from engine.errors import ModelError
from engine.models import (
    PUBLISHED,
    ModelInfo,
    PublishedModel,
    add_model,
    download_model,
    installed_models,
    remove_model,
)

_KINDS = {
    "content": "Hears what is sung",
    "decoder": "Sings it in another voice",
    "separator": "Takes the vocals out of songs",
    "speaker": "Knows voices apart",
}
_SOURCES = {"embedded": "part of AutoVoice", "downloaded": "downloaded", "added": "added from a file"}


class ModelsPage(Page):
    """Lists the models, downloads separators and adds them from files."""

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        column, head = self.page_layout("Models", "What AutoVoice computes with")
        self.add_button = make_button(
            "Add from a file…",
            "Install a separator from a Demucs .th file or a .safetensors file of AutoVoice",
            self._ask_for_file,
            icon_name="folder-open",
        )
        head.addWidget(self.add_button)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setAccessibleName("Models")
        inner = QWidget()
        cards = QVBoxLayout(inner)
        cards.setContentsMargins(0, 0, 0, 0)
        cards.setSpacing(Space.M)
        self.offers = {name: _Offer(self, model) for name, model in PUBLISHED.items()}
        cards.addWidget(self._make_offers())
        self._installed, installed_column = make_card()
        installed_column.addWidget(make_heading("Installed"))
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(Space.L)
        self._grid.setVerticalSpacing(Space.S)
        self._grid.setColumnStretch(1, 1)
        installed_column.addLayout(self._grid)
        cards.addWidget(self._installed)
        cards.addStretch(1)
        scroll.setWidget(inner)
        column.addWidget(scroll, 1)
        self.refresh()

    def on_shown(self) -> None:
        """Look again: the command line may have changed the models."""
        self.refresh()

    def shut_down(self) -> None:
        """Stop downloads; they go on where they stopped when started again."""
        for offer in self.offers.values():
            offer.cancel()

    def refresh(self) -> None:
        """Show what is installed now."""
        try:
            models = installed_models()
        except ModelError as error:
            self.context.notices.error(error)
            models = []
        names = {info.name for info in models}
        for name, offer in self.offers.items():
            offer.set_installed(name in names)
        while (item := self._grid.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        for row, info in enumerate(models):
            self._add_row(row, info)

    def add_file(self, path: Path) -> None:
        """Install a separator from a file."""
        task = self.context.tasks.create(f"Adding {path.name}", lambda ctx: add_model(path), lane=FILES)
        task.finished.connect(self._added)
        task.start()

    def remove(self, name: str) -> None:
        """Remove a downloaded or added model."""
        task = self.context.tasks.create(f"Removing {name}", lambda ctx: remove_model(name), lane=FILES)
        task.finished.connect(functools.partial(self._removed, name))
        task.start()

    def _make_offers(self) -> QWidget:
        card, column = make_card()
        column.addWidget(make_heading("Better separators"))
        column.addWidget(
            make_label(
                "The built-in separator is small and quick. These are larger, slower and cleaner; once installed, "
                "choose one under Separation on the Convert page. On a computer without a network, fetch the file "
                "elsewhere and add it here.",
                muted=True,
                wrap=True,
            )
        )
        for offer in self.offers.values():
            column.addWidget(offer)
        return card

    def _add_row(self, row: int, info: ModelInfo) -> None:
        state = _SOURCES.get(info.source, info.source) if info.size else "its file is missing: install AutoVoice again"
        texts = (
            info.name,
            _KINDS.get(info.kind, info.kind),
            f"{info.size / 1e6:.1f} MB",
            info.licence,
            state,
        )
        for column, text in enumerate(texts):
            label = make_label(text, muted=column > 0)
            label.setToolTip(f"SHA-256 {info.sha256}")
            self._grid.addWidget(label, row, column)
        if info.source != "embedded":
            button = make_button("Remove", f"Delete {info.name} from this computer", lambda: self.remove(info.name))
            button.setAccessibleName(f"Remove {info.name}")
            self._grid.addWidget(button, row, len(texts))

    def _ask_for_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Add a separator", "", "Models (*.th *.safetensors)")
        if name:
            self.add_file(Path(name))

    def _added(self, info: ModelInfo) -> None:
        self.context.notices.show(
            f"Added the separator '{info.name}'.", "Choose it on the Convert page.", kind="success"
        )
        self.refresh()

    def _removed(self, name: str, _: object) -> None:
        self.context.notices.show(f"Removed '{name}'.")
        self.refresh()


class _Offer(QWidget):
    """One model that can be downloaded: its size, licence, and the download's progress."""

    REFRESH_MS = 100

    def __init__(self, page: ModelsPage, model: PublishedModel) -> None:
        super().__init__()
        self._page, self._model = page, model
        self._task: EngineTask | None = None
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(Space.M)
        row.addWidget(make_label(model.title, wrap=True), 1)
        facts = make_label(f"{model.size / 1e6:.0f} MB, {model.licence} licence", muted=True)
        facts.setToolTip(f"{model.name}: {model.url}\n{model.page}")
        row.addWidget(facts)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setFixedWidth(140)
        self.bar.setAccessibleName(f"Download of {model.name}")
        self.bar.setToolTip("How much is there already")
        row.addWidget(self.bar)
        self.button = make_button(
            "Download", f"Fetch {model.name} and check its hash", self._press, icon_name="download-simple"
        )
        self.button.setAccessibleName(f"Download {model.name}")
        row.addWidget(self.button)
        self._timer = QTimer(self)
        self._timer.setInterval(self.REFRESH_MS)
        self._timer.timeout.connect(self._show_progress)
        self.set_installed(False)

    def set_installed(self, is_installed: bool) -> None:
        """Show whether it can still be downloaded."""
        running = self._task is not None
        self.bar.setVisible(running)
        self.button.setText("Cancel" if running else "Installed" if is_installed else "Download")
        self.button.setEnabled(running or not is_installed)

    def cancel(self) -> None:
        """Stop a running download."""
        if self._task is not None:
            self._task.cancel()

    def _press(self) -> None:
        if self._task is not None:
            self.cancel()
            return
        name = self._model.name
        self._task = self._page.context.tasks.create(
            f"Downloading {name}", functools.partial(download_model, name), lane=NETWORK
        )
        self._task.finished.connect(self._finished)
        self._task.ended.connect(self._ended)
        self._task.start()
        self.bar.setValue(0)
        self._timer.start()
        self.set_installed(False)

    def _show_progress(self) -> None:
        if self._task is not None:
            self.bar.setValue(round(1000 * self._task.ctx.progress.fraction))

    def _finished(self, info: ModelInfo) -> None:
        self._page.context.notices.show(
            f"Installed '{info.name}'.", "Choose it under Separation on the Convert page.", kind="success"
        )

    def _ended(self) -> None:
        self._task = None
        self._timer.stop()
        self._page.refresh()
