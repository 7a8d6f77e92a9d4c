"""What the window's tests share: a context with a store of its own and fake devices, and the real window on it."""

import pytest

from autovoice_app.application import make_application, open_context
from autovoice_app.main_window import MainWindow
from tests.fakes import FakeDevices


@pytest.fixture(scope="session")
def qapp():
    return make_application(["autovoice"])


@pytest.fixture
def devices():
    return FakeDevices()


@pytest.fixture
def preset_timing_idle_ms():
    """How long the engine must be idle before presets are timed; a test that wants that to happen overrides it."""
    return 1_000_000


@pytest.fixture
def context(qapp, tmp_path, devices, monkeypatch, preset_timing_idle_ms):
    monkeypatch.setattr("autovoice_app.views.convert.timing.IDLE_MS", preset_timing_idle_ms)
    with open_context(tmp_path / "autovoice-home", devices) as context:
        yield context


@pytest.fixture
def window(qtbot, context):
    window = MainWindow(context)
    qtbot.addWidget(window, before_close_func=lambda window: context.tasks.cancel_all())
    window.show()
    with qtbot.waitActive(window):
        window.activateWindow()
    return window
