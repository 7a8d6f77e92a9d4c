import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QProgressBar,
    QScrollBar,
)

from autovoice_app.assets import DARK, LIGHT, apply_theme, colours
from autovoice_app.main_window import PAGES

CONTROLS = (QAbstractButton, QComboBox, QLineEdit, QAbstractSlider, QAbstractItemView, QProgressBar)


def controls_of(widget):
    for kind in CONTROLS:
        for control in widget.findChildren(kind):
            inner = control.parent()
            belongs_to_qt = control.objectName().startswith("qt_") or (
                isinstance(control, QAbstractItemView)
                and inner is not None
                and inner.inherits("QComboBoxPrivateContainer")
            )
            belongs_to_qt = belongs_to_qt or isinstance(inner, QLineEdit)  # its clear button
            in_scroll_area = inner is not None and inner.objectName().startswith("qt_scrollarea")
            if not belongs_to_qt and not in_scroll_area:
                yield control


@pytest.mark.parametrize("key", [entry.key for entry in PAGES])
def test_every_control_has_a_tooltip_and_an_accessible_name(window, key):
    page = window.show_page(key)
    missing = [
        f"{type(control).__name__} {control.accessibleName()!r} {getattr(control, 'text', str)()!r}"
        for control in [*controls_of(page), *controls_of(window)]
        if not control.toolTip() or not control.accessibleName()
    ]
    assert missing == []


@pytest.mark.parametrize("key", [entry.key for entry in PAGES])
def test_every_control_is_reached_with_tab(window, key):
    page = window.show_page(key)
    unreachable = [
        control.accessibleName()
        for control in controls_of(page)
        if not isinstance(control, QProgressBar | QHeaderView | QScrollBar)
        and not control.focusPolicy() & Qt.FocusPolicy.TabFocus
    ]
    assert unreachable == []


@pytest.mark.parametrize("key", [entry.key for entry in PAGES])
def test_every_page_fits_a_small_window(window, key):
    page = window.show_page(key)
    window.resize(1024, 700)
    assert window.size().width() == 1024, "nothing forces the window wider"
    assert page.minimumSizeHint().width() <= 1024 - 168
    assert window.minimumSizeHint().height() <= 700


def test_pages_are_reached_from_the_keyboard(qtbot, window, context):
    for number, entry in enumerate(PAGES, start=1):
        keys = Qt.Key.Key_Comma if entry.key == "settings" else Qt.Key(Qt.Key.Key_0 + number)
        qtbot.keyClick(window, keys, Qt.KeyboardModifier.ControlModifier)
        assert window.current_page is window.page(entry.key)
        assert context.settings.current.page == entry.key


def test_colours_follow_the_scheme(qapp, window):
    apply_theme(qapp, "dark")
    assert colours(window.palette()) == DARK
    apply_theme(qapp, "light")
    assert colours(window.palette()) == LIGHT


def test_notices_show_sentence_and_hint_and_act(qtbot, window, context):
    done = []
    context.notices.show("“Anna” was deleted.", action=("Undo", lambda: done.append("undone")))
    assert window.notice_bar.messages == ["“Anna” was deleted."]
    assert window.notice_bar.isVisible()
    buttons = {button.accessibleName(): button for button in window.notice_bar.findChildren(QAbstractButton)}
    buttons["Undo"].click()
    assert done == ["undone"]
    assert window.notice_bar.messages == []
    for number in range(5):
        context.notices.show(f"Message {number}.", "Try again.", kind="error")
    assert window.notice_bar.messages == ["Message 4.", "Message 3.", "Message 2."]


def test_settings_page_lists_the_outputs(qtbot, window, context):
    page = window.show_page("settings")
    qtbot.waitUntil(lambda: page.output.count() == 3, timeout=5000)
    page.output.setCurrentIndex(2)
    page.output.activated.emit(2)
    assert context.settings.current.output_device == "Fake: headset"


def test_thousands_of_void_qt_calls_leave_none_alive(qapp):
    from PySide6.QtGui import QPainter, QPixmap

    pixmap = QPixmap(8, 8)
    painter = QPainter(pixmap)
    for _ in range(100_000):
        painter.save()
        painter.restore()
    painter.end()
