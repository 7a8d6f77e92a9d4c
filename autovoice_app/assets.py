"""How the program looks: one accent colour, one spacing scale, one icon set, Fusion style in light and dark.

Icons are Phosphor (MIT), drawn from qtawesome's font in the palette's own colours, so they follow the colour scheme.
Widgets that paint themselves ask `colours(self.palette())` at paint time and follow it too.
"""

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from PySide6.QtCore import QPoint, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QIcon, QIconEngine, QPainter, QPalette, QPixmap
from PySide6.QtWidgets import QApplication


class Space:
    """The spacing scale, device-independent pixels."""

    XS, S, M, L, XL = 4, 8, 12, 16, 24


@dataclass(frozen=True)
class Colours:
    """One colour scheme, as "#rrggbb" strings usable in style sheets and QColor alike.

    Attributes:
        window: Ground of the window.
        side: Ground of the side bar.
        card: Ground of cards, inputs and plots.
        raised: Buttons and hovered rows.
        border: Lines between them.
        text: Main text.
        muted: Secondary text, axes and the original's curves; readable on card.
        accent: The one accent: primary buttons, the playhead, the converted voice.
        on_accent: Text on the accent.
        soft: The accent thinned into the ground, for selections.
        good: Success and safe levels.
        warning: Levels near the limit, doubtful quality.
        danger: Errors, clipped levels.
    """

    window: str
    side: str
    card: str
    raised: str
    border: str
    text: str
    muted: str
    accent: str
    on_accent: str
    soft: str
    good: str
    warning: str
    danger: str


LIGHT = Colours(
    window="#f5f5f8",
    side="#ebebf1",
    card="#ffffff",
    raised="#eeeef4",
    border="#d3d4de",
    text="#1d1e24",
    muted="#5d606c",
    accent="#5546d8",
    on_accent="#ffffff",
    soft="#e2dffb",
    good="#1d7f4b",
    warning="#96600b",
    danger="#b92d38",
)
DARK = Colours(
    window="#17181d",
    side="#121317",
    card="#1f2128",
    raised="#2a2d36",
    border="#3a3d48",
    text="#eceDf2".lower(),
    muted="#a2a6b3",
    accent="#9a8cff",
    on_accent="#15121f",
    soft="#353057",
    good="#5ecb92",
    warning="#e6b450",
    danger="#ff7b81",
)

APPEARANCES = {"system": "Follow the system", "light": "Light", "dark": "Dark"}


def colours(palette: QPalette | None = None) -> Colours:
    """The colour scheme that a palette belongs to; None asks the application's."""
    ground = (palette or QGuiApplication.palette()).color(QPalette.ColorRole.Window)
    return DARK if ground.lightness() < 128 else LIGHT


def apply_theme(app: QApplication, appearance: str = "system") -> None:
    """Dress the whole application.

    Args:
        app: The application.
        appearance: A key of APPEARANCES; "system" takes the desktop's colour scheme and falls back to light.
    """
    dark = appearance == "dark"
    if appearance == "system":
        dark = app.styleHints().colorScheme() == Qt.ColorScheme.Dark
    scheme = DARK if dark else LIGHT
    if app.style().objectName() != "fusion":
        app.setStyle("Fusion")
    app.setPalette(_palette(scheme))
    app.setStyleSheet(_style_sheet(scheme))


def icon(name: str, role: str = "text") -> QIcon:
    """One icon of the kept set.

    Args:
        name: Phosphor name, such as "microphone"; "play-fill" and the like give other weights.
        role: The field of `Colours` it is drawn in.

    Returns:
        An icon that follows the colour scheme and greys out when disabled. Asked for wider than high, it keeps to the
        left, which leaves room before a button's text.

    Raises:
        KeyError: There is no such icon.
    """
    return QIcon(_GlyphEngine(_glyph(name), role))


def _glyph(name: str) -> str:
    return chr(int(_phosphor()[1][name], 16))


@cache
def _phosphor() -> tuple[str, dict[str, str]]:
    """The icon font's family and its characters' codes by name, from qtawesome's files.

    The package itself is not imported: it would load eleven fonts and a second layer over Qt, 0.3 s at every start.
    """
    spec = importlib.util.find_spec("qtawesome")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "fonts"
    number = QFontDatabase.addApplicationFont(str(next(folder.glob("phosphor-[0-9]*.ttf"))))
    codes = json.loads(next(folder.glob("phosphor-charmap-*.json")).read_text("utf-8"))
    return QFontDatabase.applicationFontFamilies(number)[0], codes


class _GlyphEngine(QIconEngine):
    """Draws one character of the icon font, in the colour scheme of the moment."""

    def __init__(self, glyph: str, role: str) -> None:
        super().__init__()
        self._glyph, self._role = glyph, role

    def clone(self) -> QIconEngine:
        return _GlyphEngine(self._glyph, self._role)

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        scheme = colours()
        role = self._role
        if state == QIcon.State.On and role == "text":
            role = "accent"
        colour = QColor(getattr(scheme, "muted" if mode == QIcon.Mode.Disabled else role))
        if mode == QIcon.Mode.Disabled:
            colour.setAlphaF(0.5)
        painter.save()
        painter.setPen(colour)
        font = QFont(_phosphor()[0])
        font.setPixelSize(round(rect.height() * 0.94))
        painter.setFont(font)
        sideways = Qt.AlignmentFlag.AlignHCenter if rect.width() <= rect.height() else Qt.AlignmentFlag.AlignLeft
        painter.drawText(QRectF(rect), sideways | Qt.AlignmentFlag.AlignVCenter, self._glyph)
        painter.restore()

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        pixmap = QPixmap(size)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        self.paint(painter, QRect(QPoint(0, 0), size), mode, state)
        painter.end()
        return pixmap


def title_font(base: QFont, factor: float = 1.5) -> QFont:
    """A heading's font, derived from the widget's own so that system font sizes are kept."""
    font = QFont(base)
    font.setPointSizeF(max(base.pointSizeF(), 8.0) * factor)
    font.setWeight(QFont.Weight.DemiBold)
    return font


def _caret() -> str:
    """Path of the arrow of choices; style sheets take pictures from files only."""
    return Path(str(files("resources") / "icons" / "caret.png")).as_posix()


def _palette(scheme: Colours) -> QPalette:
    role, group = QPalette.ColorRole, QPalette.ColorGroup
    palette = QPalette(QColor(scheme.raised), QColor(scheme.window))
    for key, value in (
        (role.Window, scheme.window),
        (role.WindowText, scheme.text),
        (role.Base, scheme.card),
        (role.AlternateBase, scheme.raised),
        (role.Text, scheme.text),
        (role.Button, scheme.raised),
        (role.ButtonText, scheme.text),
        (role.BrightText, scheme.danger),
        (role.Highlight, scheme.accent),
        (role.HighlightedText, scheme.on_accent),
        (role.Accent, scheme.accent),
        (role.Link, scheme.accent),
        (role.LinkVisited, scheme.accent),
        (role.PlaceholderText, scheme.muted),
        (role.ToolTipBase, scheme.raised),
        (role.ToolTipText, scheme.text),
        (role.Mid, scheme.border),
    ):
        palette.setColor(key, QColor(value))
    faint = QColor(scheme.muted)
    faint.setAlphaF(0.6)
    for key in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(group.Disabled, key, faint)
    return palette


def _style_sheet(c: Colours) -> str:
    return f"""
    QToolTip {{ background: {c.raised}; color: {c.text}; border: 1px solid {c.border}; padding: 4px 6px; }}
    #sideBar {{ background: {c.side}; border-right: 1px solid {c.border}; }}
    #sideBar QToolButton {{ border: none; border-radius: 6px; padding: 7px 10px; text-align: left; color: {c.text}; }}
    #sideBar QToolButton:hover {{ background: {c.raised}; }}
    #sideBar QToolButton:checked {{ background: {c.soft}; color: {c.text}; font-weight: 600; }}
    #sideBar QToolButton:focus {{ outline: none; border: 1px solid {c.accent}; padding: 6px 9px; }}
    QFrame[card="true"] {{ background: {c.card}; border: 1px solid {c.border}; border-radius: 8px; }}
    QFrame[card="true"] QLabel {{ background: transparent; }}
    QLabel[muted="true"] {{ color: {c.muted}; }}
    QPushButton, QToolButton[flat="false"] {{
        background: {c.raised}; border: 1px solid {c.border}; border-radius: 6px; padding: 5px 12px; color: {c.text}; }}
    QPushButton:hover {{ border-color: {c.muted}; }}
    QPushButton:pressed {{ background: {c.border}; }}
    QPushButton:focus {{ border: 1px solid {c.accent}; }}
    QPushButton:checked {{ background: {c.soft}; border-color: {c.accent}; }}
    QPushButton:disabled {{ color: {c.muted}; background: transparent; }}
    QPushButton[primary="true"] {{ background: {c.accent}; border-color: {c.accent}; color: {c.on_accent};
        font-weight: 600; }}
    QPushButton[primary="true"]:focus {{ border: 2px solid {c.text}; padding: 4px 11px; }}
    QPushButton[primary="true"]:disabled {{ background: {c.raised}; border-color: {c.border}; color: {c.muted}; }}
    QPushButton[compact="true"] {{ padding: 5px 8px; }}
    QPushButton[danger="true"]:enabled {{ color: {c.danger}; }}
    QComboBox, QLineEdit, QAbstractSpinBox {{ background: {c.raised}; border: 1px solid {c.border}; border-radius: 6px;
        padding: 4px 8px; min-height: 20px; selection-background-color: {c.accent};
        selection-color: {c.on_accent}; }}
    QLineEdit, QAbstractSpinBox {{ background: {c.card}; }}
    QComboBox:hover, QLineEdit:hover, QAbstractSpinBox:hover {{ border-color: {c.muted}; }}
    QComboBox:focus, QLineEdit:focus, QAbstractSpinBox:focus {{ border-color: {c.accent}; }}
    QComboBox:disabled, QLineEdit:disabled, QAbstractSpinBox:disabled {{ color: {c.muted}; background: transparent; }}
    QComboBox::drop-down {{ border: none; width: 22px; }}
    QComboBox::down-arrow {{ image: url("{_caret()}"); width: 12px; height: 12px; }}
    QComboBox QAbstractItemView {{ background: {c.card}; border: 1px solid {c.border}; outline: none;
        selection-background-color: {c.soft}; selection-color: {c.text}; }}
    QComboBox QAbstractItemView::item {{ min-height: 24px; padding: 0 8px; color: {c.text}; }}
    QComboBox QAbstractItemView::item:hover, QComboBox QAbstractItemView::item:selected {{ background: {c.soft}; }}
    QComboBoxPrivateContainer {{ background: {c.card}; border: none; }}
    QScrollBar {{ background: transparent; border: none; }}
    QScrollBar:horizontal {{ height: 10px; }}
    QScrollBar:vertical {{ width: 10px; }}
    QScrollBar::handle {{ background: {c.border}; border-radius: 3px; margin: 2px; min-width: 24px; min-height: 24px; }}
    QScrollBar::handle:hover {{ background: {c.muted}; }}
    QScrollBar::handle:disabled {{ background: transparent; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
    QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
    QSplitter::handle {{ background: transparent; }}
    QProgressBar {{ background: {c.raised}; border: none; border-radius: 4px; max-height: 8px; min-height: 8px; }}
    QProgressBar::chunk {{ background: {c.accent}; border-radius: 4px; }}
    QScrollArea {{ background: transparent; border: none; }}
    QListWidget, QTreeView, QTableView, QPlainTextEdit {{ background: {c.card}; border: 1px solid {c.border};
        border-radius: 8px; }}
    QListWidget:focus, QTreeView:focus, QTableView:focus {{ border-color: {c.accent}; }}
    QTreeView::item {{ min-height: 26px; padding: 0 5px; }}
    QTreeView::item:selected {{ background: {c.soft}; color: {c.text}; }}
    QListWidget::item:selected {{ background: {c.soft}; color: {c.text}; }}
    QHeaderView::section {{ background: {c.card}; color: {c.muted}; border: none; padding: 4px 8px; }}
    #notice {{ background: {c.card}; border: 1px solid {c.border}; border-left: 4px solid {c.accent};
        border-radius: 6px; }}
    #notice[kind="error"] {{ border-left-color: {c.danger}; }}
    #notice[kind="warning"] {{ border-left-color: {c.warning}; }}
    #notice[kind="success"] {{ border-left-color: {c.good}; }}
    #notice QLabel {{ background: transparent; }}
    #notice QToolButton {{ border: none; padding: 2px; }}
    """
