import time
from types import SimpleNamespace

import pytest
from PySide6.QtCore import QBuffer, QByteArray, QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QColor, QDropEvent, QImage, QImageWriter
from PySide6.QtWidgets import QDialog, QInputDialog

from autovoice_app.views.voices_backups import BackupsDialog
from autovoice_app.views.voices_blend import BlendDialog
from autovoice_app.views.voices_cards import made_text, used_text
from engine.store import Store, import_voice
from engine.store.schema import MIGRATIONS
from tests.engine.store.helpers import add, freeze_models, some_voice


@pytest.fixture(autouse=True)
def frozen_models(monkeypatch):
    freeze_models(monkeypatch.setattr)


@pytest.fixture
def page(qtbot, window, context):
    add(context.store, "Ada", notes="alto", picture=png())
    add(context.store, "Bob", seed=60)
    context.store.mark_used(context.store.voice("Bob"))
    page = window.show_page("voices")
    qtbot.waitUntil(lambda: own_names(page) == ["Ada", "Bob"], timeout=5000)
    return page


def png():

    image = QImage(160, 160, QImage.Format.Format_RGB32)
    image.fill(QColor("#336699"))
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    QImageWriter(buffer, b"PNG").write(image)
    return bytes(data.data())


def names(page):
    return [page.model.record(page.model.index(row)).name for row in range(page.model.rowCount())]


def own_names(page):
    return [record.name for record in page.model.records() if not record.builtin]


def choose(page, name):
    record = next(record for record in page.model.records() if record.name == name)
    page.cards.setCurrentIndex(page.model.find(record.id))
    return record


def test_cards_are_searched_and_sorted(qtbot, page, context):
    page.search_line.setText("ALTO")
    qtbot.waitUntil(lambda: names(page) == ["Ada"], timeout=2000)
    assert page.count_label.text().startswith("1 of ")
    page.search_line.clear()
    qtbot.waitUntil(lambda: len(names(page)) >= 2, timeout=2000)
    page.order.setCurrentIndex(page.order.findData("used"))
    page.order.activated.emit(page.order.currentIndex())
    assert names(page)[0] == "Bob"
    assert context.settings.current.voices_order == "used"


def test_the_chosen_voice_is_shown_with_its_consent(page):
    choose(page, "Ada")
    assert page.detail.name.text() == "Ada"
    assert page.detail.consent.text() == "Ada agreed."
    assert page.detail.notes.toPlainText() == "alto"
    assert "100 Hz" in page.detail.facts.text()


def test_voices_of_the_program_cannot_be_changed_but_copied(qtbot, page, context):
    choose(page, next(record.name for record in page.model.records() if record.builtin))
    detail = page.detail
    for button in (detail.rename_button, detail.picture_button, detail.delete_button, detail.improve_button):
        assert not button.isEnabled()
    name = page.chosen.name
    detail.duplicate_button.click()
    qtbot.waitUntil(lambda: f"{name} 2" in own_names(page), timeout=5000)


def test_rename_notes_and_picture_are_kept(qtbot, page, context, tmp_path, monkeypatch):
    choose(page, "Ada")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("Anna", True))
    page.detail.rename_button.click()
    qtbot.waitUntil(lambda: own_names(page) == ["Anna", "Bob"], timeout=5000)
    assert page.chosen.name == "Anna"
    page.detail.notes.setPlainText("soprano now")
    page.detail.notes.left.emit()
    qtbot.waitUntil(lambda: context.store.voice("Anna").notes == "soprano now", timeout=5000)
    (tmp_path / "face.png").write_bytes(png())
    page.set_picture(context.store.voice("Bob"), tmp_path / "face.png")
    qtbot.waitUntil(lambda: context.store.voice("Bob").picture is not None, timeout=5000)


def test_delete_can_be_undone(qtbot, page, window):
    choose(page, "Bob")
    page.detail.delete_button.click()
    qtbot.waitUntil(lambda: own_names(page) == ["Ada"], timeout=5000)
    notice = next(row for row in window.notice_bar._rows if "deleted" in row.notice.message)
    notice.notice.action[1]()
    qtbot.waitUntil(lambda: own_names(page) == ["Ada", "Bob"], timeout=5000)
    assert page.chosen.name == "Bob"


def test_duplicate_export_and_import(qtbot, page, context, tmp_path):
    choose(page, "Ada")
    page.detail.duplicate_button.click()
    qtbot.waitUntil(lambda: own_names(page) == ["Ada", "Ada 2", "Bob"], timeout=5000)
    path = tmp_path / "ada.autovoice"
    with qtbot.waitSignal(context.notices.shown, timeout=10000) as shown:
        page.export_to(context.store.voice("Ada"), path)
    assert "written" in shown.args[0].message
    with Store(tmp_path / "other") as other:
        assert import_voice(other, path).consent == "Ada agreed."
    page.take_paths([path])
    qtbot.waitUntil(lambda: "Ada 3" in own_names(page), timeout=10000)


def test_bad_archive_is_a_notice(qtbot, page, context, tmp_path):
    path = tmp_path / "bad.autovoice"
    path.write_bytes(b"nothing")
    with qtbot.waitSignal(context.notices.shown, timeout=5000) as shown:
        page.take_paths([path])
    assert "not a sound archive" in shown.args[0].message
    assert own_names(page) == ["Ada", "Bob"]


def test_sample_plays_the_kept_recording(qtbot, page, context):
    record = choose(page, "Ada")
    page.detail.play_button.click()
    qtbot.waitUntil(lambda: context.player.path is not None, timeout=5000)
    assert context.player.path == context.store.recordings(record)[0].processed
    context.player.unload()


def test_improving_is_told_and_undone(qtbot, page, context, monkeypatch):
    record = choose(page, "Ada")
    better = some_voice("Ada", 7)

    def improve(store, record, ctx):
        ctx.checkpoint("Fine-tuning", 0.5)
        store.replace_voice(record, better, similarity=0.9)
        return SimpleNamespace(kept=True, similarity_before=0.8, similarity_after=0.9)

    monkeypatch.setattr("engine.enrollment.improve", improve)
    with qtbot.waitSignal(context.notices.shown, timeout=5000) as shown:
        page.detail.improve_button.click()
    assert "0.800 became 0.900" in shown.args[0].message
    qtbot.waitUntil(lambda: page.chosen is not None and page.chosen.is_improved, timeout=5000)
    assert page.detail.undo_button.isVisible()
    shown.args[0].action[1]()
    qtbot.waitUntil(lambda: not context.store.voice("Ada").is_improved, timeout=5000)
    assert context.store.voice("Ada").median_f0_hz == record.median_f0_hz


def test_improving_can_be_cancelled(qtbot, page, monkeypatch):
    choose(page, "Ada")

    def improve(store, record, ctx):
        while True:
            ctx.checkpoint("Fine-tuning", 0.3)
            time.sleep(0.01)

    monkeypatch.setattr("engine.enrollment.improve", improve)
    page.detail.improve_button.click()
    qtbot.waitUntil(lambda: "Fine-tuning" in page.detail.progress_label.text(), timeout=5000)
    assert page.detail.progress_row.isVisible()
    page.cancel_improvement()
    qtbot.waitUntil(lambda: not page.detail.progress_row.isVisible(), timeout=5000)
    assert page.detail.improve_button.isVisible()


def test_blend_makes_a_voice_that_names_its_parts(qtbot, page, context):
    choose(page, "Ada")
    page.open_blend()
    dialog = page.findChild(BlendDialog)
    dialog.rows[0].slider.setValue(75)
    dialog.rows[1].combo.setCurrentIndex(dialog.rows[1].combo.findText("Bob"))
    dialog.rows[1].slider.setValue(25)
    assert [row.share.text() for row in dialog.rows] == ["75%", "25%"]
    assert not dialog.make_button.isEnabled()
    dialog.name_line.setText("Adabob")
    dialog.make_button.click()
    qtbot.waitUntil(lambda: "Adabob" in own_names(page), timeout=10000)
    blend = context.store.voice("Adabob")
    assert blend.origin == "blend"
    assert "75% Ada, 25% Bob" in blend.consent
    assert "Bob agreed." in blend.consent


def test_backups_are_listed_and_restored(qtbot, page, context):
    context.store.back_up()
    context.store.delete(context.store.voice("Bob"))
    page.reload()
    qtbot.waitUntil(lambda: own_names(page) == ["Ada"], timeout=5000)
    page.open_backups()
    dialog = page.findChild(BackupsDialog)
    qtbot.waitUntil(lambda: dialog.list.count() >= 1, timeout=5000)
    assert "2 voices (daily)" in dialog.list.item(0).text()
    dialog.list.setCurrentRow(0)
    dialog.restore_button.click()
    qtbot.waitUntil(lambda: own_names(page) == ["Ada", "Bob"], timeout=5000)


def test_dropped_recordings_open_the_wizard(qtbot, page, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(tmp_path / "text.wav"))])
    page.dropEvent(
        QDropEvent(
            QPointF(10, 10),
            Qt.DropAction.CopyAction,
            mime,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
    )
    wizard = page.wizard
    qtbot.waitUntil(lambda: wizard.error_label.text() != "", timeout=10000)
    assert not wizard.takes
    wizard.reject()
    assert page.wizard is None


def test_ten_thousand_voices_open_in_under_a_second(qtbot, window, context):
    fill(context.store, 10_000)
    started = time.process_time()  # not the clock: other tests may run beside this one
    page = window.show_page("voices")
    qtbot.waitUntil(lambda: page.model.rowCount() >= 10_000, timeout=10000)
    page.cards.viewport().repaint()
    opened = time.process_time() - started
    assert page.model.pictures_read < 40, "only the pictures in sight are read"
    bar = page.cards.verticalScrollBar()
    slowest = 0.0
    for step in range(60):
        before = time.process_time()
        bar.setValue(bar.maximum() * step // 60)
        page.cards.viewport().repaint()
        slowest = max(slowest, time.process_time() - before)
    assert page.model.pictures_read < 3000
    assert opened < 1.0
    assert slowest < 0.05, "a step of scrolling, s"


def fill(store, count):
    record = add(store, "Model", picture=png())
    with store._writing("fill") as connection:
        row = dict(connection.execute("SELECT * FROM voices WHERE id = ?", (record.id,)).fetchone())
        rows = [
            {**row, "id": f"{number:032x}", "name": f"Voice {number}", "name_key": f"voice {number}"}
            for number in range(count)
        ]
        marks = ", ".join(f":{column}" for column in row)
        connection.executemany(f"INSERT INTO voices VALUES ({marks})", rows)
    assert len(MIGRATIONS) >= 1


def test_texts_for_people():
    record = SimpleNamespace(last_used=time.time() - 90000, builtin=False, origin="blend", is_improved=True)
    assert used_text(record) == "Used yesterday"
    assert made_text(record) == "Blend, improved"


def test_dialogs_explain_their_controls(qtbot, page):
    from tests.app.test_window import controls_of

    page.open_blend()
    page.open_backups()
    page.open_wizard()
    for dialog in page.findChildren(QDialog):
        missing = [
            f"{type(control).__name__} {control.accessibleName()!r}"
            for control in controls_of(dialog)
            if not control.toolTip() or not control.accessibleName()
        ]
        assert missing == []
        dialog.reject()
