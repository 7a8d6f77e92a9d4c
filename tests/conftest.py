"""What every test shares: no display, no user folders, no thread left behind."""

import os
import threading
import time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other are slow beside other work

import pytest


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path, monkeypatch):
    """A store and settings of the test's own; a developer's are never read."""
    monkeypatch.setenv("AUTOVOICE_HOME", str(tmp_path / "autovoice-home"))


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test():
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
        if not left:
            return
        time.sleep(0.02)
    pytest.fail(f"threads outlived the test: {left}")
