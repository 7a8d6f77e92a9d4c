"""What one chooses for a conversion: voice, preset, key, separation; and what it will cost on this machine."""

from dataclasses import dataclass

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QGridLayout, QSizePolicy, QWidget

from autovoice_app.assets import Space
from autovoice_app.context import AppContext
from autovoice_app.costs import Cost, learnt_costs
from autovoice_app.views.convert.timing import PresetTiming
from autovoice_app.widgets.basics import about, fill_combo, make_combo, make_label, show_notes
from engine.models import installed_models
from engine.rendering import PRESETS
from engine.store.records import VoiceRecord

_SEPARATIONS = (("Automatic", "auto"), ("None: bare voice", "none"))
EMBEDDED_MODEL = "separator"  # what "auto" means


@dataclass(frozen=True)
class Choices:
    """What was chosen.

    Attributes:
        voice: Id of the voice, or "" when there is none.
        preset: "fast", "balanced" or "quality".
        transpose: "auto", or semitones as text.
        separation: "auto", "none" (the file is a bare voice) or a model's name.
    """

    voice: str
    preset: str
    transpose: str
    separation: str

    @property
    def transpose_semitones(self) -> float | None:
        """The chosen key, or None for automatic."""
        return None if self.transpose == "auto" else float(self.transpose)


class ChoicesPanel(QWidget):
    """The row of choices; remembers them in the settings."""

    changed = Signal()

    def __init__(self, context: AppContext, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._voices: dict[str, VoiceRecord] = {}
        self._learnt: dict[str, Cost] = {}
        self.timing = PresetTiming(context, self)
        settings = context.settings.current
        self.voice = make_combo("Voice", "The voice that will sing; make your own on the Voices page", [])
        self.preset = make_combo(
            "Preset",
            "How much time the conversion may take",
            [(name.capitalize(), name) for name in PRESETS],
            settings.convert_preset,
        )
        self.key = make_combo(
            "Key",
            "Automatic moves the song to where the voice is at home; or choose semitones yourself",
            [("Automatic", "auto"), *((_key_name(n), str(n)) for n in range(12, -13, -1))],
            settings.convert_transpose,
        )
        self.separation = make_combo("Separation", "How the vocals are taken out of the song", list(_SEPARATIONS))
        self.cost = make_label(muted=True)
        self.cost.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(Space.M)
        grid.setVerticalSpacing(Space.XS)
        for column, (name, combo) in enumerate(self._named().items()):
            grid.addWidget(make_label(name, muted=True, buddy=combo), 0, column)
            grid.addWidget(combo, 1, column)
            grid.setColumnStretch(column, 3 if combo is self.voice else 2)
            combo.setMinimumContentsLength(5)
            combo.activated.connect(self._keep)
        grid.addWidget(self.cost, 2, 0, 1, 4)
        self.timing.found.connect(self.changed)

    @property
    def choices(self) -> Choices:
        """What is chosen now."""
        voice, preset, key, separation = (str(combo.currentData() or "") for combo in self._named().values())
        return Choices(voice, preset, key, separation)

    @property
    def voice_record(self) -> VoiceRecord | None:
        """The chosen voice, as the store knew it at the last `refresh`."""
        return self._voices.get(self.choices.voice)

    def refresh(self) -> None:
        """Look for voices and separation models that came or went, and for what conversions cost."""
        settings = self._context.settings.current
        added = [(m.name, m.name) for m in installed_models() if m.kind == "separator" and m.name != EMBEDDED_MODEL]
        fill_combo(self.separation, [*_SEPARATIONS, *added], settings.convert_separation)
        self._voices = {record.id: record for record in self._context.store.voices()}
        self._learnt = learnt_costs(self._context.store)
        voices = [(record.name, key) for key, record in self._voices.items()]
        wanted = self.choices.voice or settings.convert_voice
        fill_combo(self.voice, voices or [("No voice yet", "")], wanted)
        self.voice.setEnabled(bool(voices))
        self.changed.emit()

    def show_cost(self, duration_s: float, *, keeps_stems: bool = False) -> None:
        """Say what each preset costs for a song, as earlier conversions or the timing of the demo song tell.

        Args:
            duration_s: Of the song; 0 stands for a minute of any.
            keeps_stems: The song was separated already.
        """
        separates = self.choices.separation != "none" and not keeps_stems
        costs = {name: self._cost(name, duration_s or 60.0, separates=separates) for name in PRESETS}
        for index, name in enumerate(PRESETS):
            self.preset.setItemData(index, PRESETS[name].summary, Qt.ItemDataRole.ToolTipRole)
        show_notes(self.preset, ["" if cost is None else f"about {about(cost)}" for cost in costs.values()])
        chosen = self.choices.preset
        self.preset.setToolTip(f"How much time the conversion may take. {PRESETS[chosen].summary}")
        cost = costs[chosen]
        if cost is not None:
            song = "this song" if duration_s else "a minute of song"
            self.cost.setText(f"About {about(cost)} for {song}, as measured here.")
        elif self.timing.is_running:
            self.cost.setText("Finding out what the presets cost on this machine…")
        else:
            self.cost.setText("Not timed on this machine yet.")
        self.cost.setToolTip(
            "Presets are timed on the demo song while AutoVoice has nothing else to do, and by every conversion"
        )

    def find_costs(self) -> None:
        """Let the presets that no conversion has told of be timed while the program is idle."""
        self.timing.resume({name for name, cost in self._learnt.items() if cost.separating is not None})

    def _cost(self, preset: str, duration_s: float, *, separates: bool) -> float | None:
        for costs in (self._learnt, self.timing.costs):
            if preset in costs:
                seconds = costs[preset].seconds(preset, duration_s, separates=separates)
                if seconds is not None:
                    return seconds
        return None

    def _named(self) -> dict[str, QComboBox]:
        return {"Voice": self.voice, "Preset": self.preset, "Key": self.key, "Separation": self.separation}

    def _keep(self) -> None:
        chosen = self.choices
        self._context.settings.update(
            convert_voice=chosen.voice,
            convert_preset=chosen.preset,
            convert_transpose=chosen.transpose,
            convert_separation=chosen.separation,
        )
        self.changed.emit()


def _key_name(semitones: int) -> str:
    if not semitones:
        return "As sung"
    sign = "+" if semitones > 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(semitones)} semitone{'s' if abs(semitones) > 1 else ''}"
