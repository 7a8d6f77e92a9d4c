"""The program as a process, and what it says when something is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication, QMessageBox

from autovoice_app.application import CrashReporter, open_store
from engine.signal import AudioClip, write_audio
from engine.store import Store
from tests.fakes import tone

ROOT = Path(__file__).resolve().parents[2]


def answer(seen, choice):
    """Press a button of the next dialog, after noting what it says."""

    def press():
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(20, press)
            return
        seen.append((box.text(), box.informativeText(), box.detailedText()))
        next(button for button in box.buttons() if choice in button.text()).click()

    QTimer.singleShot(20, press)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could answer")
def test_the_program_opens_with_a_song_and_leaves_cleanly(tmp_path):
    song = tmp_path / "one two é.wav"
    write_audio(song, AudioClip(tone(220, 1.0, 24000)[None], 24000))
    home = tmp_path / "home"
    environment = {**os.environ, "AUTOVOICE_HOME": str(home), "QT_QPA_PLATFORM": "offscreen"}
    process = subprocess.Popen(
        [sys.executable, "-m", "autovoice_app", str(song)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    log = home / "logs" / "autovoice.log"
    try:
        deadline = time.monotonic() + 120
        while not (log.exists() and "ready after" in log.read_text()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in said + log.read_text()
    assert "one two" in (home / "settings.ini").read_text(encoding="utf-8"), "the song comes back at the next start"


def test_a_bug_is_shown_once_with_traceback_and_versions(qtbot, qapp, tmp_path):
    seen = []
    reporter = CrashReporter(tmp_path / "logs")
    answer(seen, "OK")
    reporter.report("Traceback: first")
    assert len(seen) == 1
    assert str(tmp_path / "logs") in seen[0][1]
    assert "Traceback: first" in seen[0][2]
    assert "Qt" in seen[0][2]


def test_a_damaged_store_is_restored_when_asked(qtbot, qapp, tmp_path):
    Store(tmp_path).close()
    database = next(
        path for path in tmp_path.iterdir() if path.is_file() and path.suffix in (".sqlite", ".db", ".sqlite3")
    )
    database.write_bytes(b"rubbish" * 1000)
    seen = []
    answer(seen, "Quit")
    assert open_store(tmp_path) is None
    answer(seen, "Restore")
    opened = open_store(tmp_path)
    assert opened is not None
    store, told = opened
    assert told is not None
    assert store.renders() == []
    store.close()
    assert len(seen) == 2


def test_closing_while_a_song_is_converted_asks_first(qtbot, window, context):
    task = context.tasks.create("Converting a song", _endless)
    task.start()
    qtbot.waitUntil(lambda: context.tasks.running_engine_task is task, timeout=10000)
    seen = []
    answer(seen, "Keep working")
    assert not window.close()
    assert "Converting a song" in seen[0][0]
    assert window.isVisible()
    context.tasks.cancel_all()
    qtbot.waitUntil(lambda: context.tasks.running_engine_task is None, timeout=10000)


def _endless(ctx):
    while True:
        ctx.checkpoint("Working", 0.5)
        time.sleep(0.01)


def test_the_program_outlives_many_signals():
    """PySide6 6.12 takes a reference to True with every emission; see application._keep_singletons."""
    program = (
        "from autovoice_app.application import make_application\n"
        "from PySide6.QtCore import QObject, Signal\n"
        "class Sender(QObject):\n"
        "    sent = Signal(object)\n"
        "app, sender = make_application(['x']), Sender()\n"
        "for number in range(20_000):\n"
        "    sender.sent.emit(number)\n"
    )
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
