import pytest

from engine import models
from tests.engine.test_models_published import server  # noqa: F401 - a fixture
from tests.engine.test_separation import tiny_model


@pytest.fixture
def page(window):
    return window.show_page("models")


def texts(page):
    return [page._grid.itemAt(i).widget().text() for i in range(page._grid.count())]


def test_embedded_models_are_listed_with_size_and_licence(page):
    shown = texts(page)
    assert "separator" in shown
    assert "Takes the vocals out of songs" in shown
    assert "part of AutoVoice" in shown


def test_a_file_is_added_and_removed(qtbot, window, page, context, tmp_path):
    with qtbot.waitSignal(context.notices.shown, timeout=20_000) as caught:
        page.add_file(tiny_model(tmp_path, "mine"))
    assert caught.args[0].kind == "success"
    assert "mine" in texts(page)
    convert = window.show_page("convert")
    assert convert.choices.separation.findData("mine") >= 0
    with qtbot.waitSignal(context.notices.shown, timeout=20_000):
        page.remove("mine")
    assert "mine" not in texts(page)


def test_a_damaged_file_is_a_notice(qtbot, page, context, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"\0" * 40)
    with qtbot.waitSignal(context.notices.shown, timeout=20_000) as caught:
        page.add_file(path)
    assert caught.args[0].kind == "error"
    assert caught.args[0].hint


def test_a_published_model_is_downloaded_with_progress(qtbot, page, context, server):  # noqa: F811
    offer = page.offers["htdemucs"]
    assert offer.button.text() == "Download"
    with qtbot.waitSignal(context.notices.shown, timeout=30_000) as caught:
        offer.button.click()
        assert offer.button.text() == "Cancel"
        assert offer.bar.isVisible()
    assert "htdemucs" in caught.args[0].message
    qtbot.waitUntil(lambda: offer.button.text() == "Installed")
    assert not offer.button.isEnabled()
    assert not offer.bar.isVisible()
    assert "htdemucs" in {info.name for info in models.installed_models()}


def test_a_failed_download_is_a_notice_and_can_be_tried_again(qtbot, page, context, server):  # noqa: F811
    server.breaks_after = 20_000
    offer = page.offers["htdemucs"]
    with qtbot.waitSignal(context.notices.shown, timeout=30_000) as caught:
        offer.button.click()
    assert caught.args[0].kind == "error"
    qtbot.waitUntil(lambda: offer.button.text() == "Download")
    assert offer.button.isEnabled()
