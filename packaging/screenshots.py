"""Take pictures of every page, in light and dark: empty, busy and done, from a real conversion of a song.

    python packaging/screenshots.py [FOLDER] [--song FILE] [--size 1180x780] [--only PAGE] [--scale 1]

Runs offscreen; uses a data folder of its own, so nothing of the user's is touched or shown.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def main() -> int:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/screenshots"))
    parser.add_argument("--song", type=Path, help="instead of the demo song")
    parser.add_argument("--size", default="1180x780")
    parser.add_argument("--only", default="", help="key of a page")
    parser.add_argument("--scale", default="", help="as QT_SCALE_FACTOR")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--voice", type=Path, help="a recording to sing with, instead of the first voice there is")
    options = parser.parse_args()
    if options.scale:
        os.environ["QT_SCALE_FACTOR"] = options.scale
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data_folder:
        os.environ["AUTOVOICE_HOME"] = data_folder
        _take_all(options, Path(data_folder))
    return 0


def _take_all(options: argparse.Namespace, data_folder: Path) -> None:
    from autovoice_app.application import make_application, open_context
    from autovoice_app.assets import apply_theme
    from autovoice_app.main_window import PAGES, MainWindow
    from engine.devices import system_devices

    app = make_application(["autovoice"])
    with open_context(data_folder, system_devices()) as context:
        if options.voice:
            from engine.enrollment import enroll
            from engine.jobs import JobContext

            record = enroll(
                context.store, options.voice.stem, [options.voice], consent="For a picture.", ctx=JobContext()
            )
            context.settings.update(convert_voice=record.id)
        window = MainWindow(context)
        width, height = (int(part) for part in options.size.split("x"))
        window.resize(width, height)
        window.show()

        def take(name: str) -> None:
            for appearance in ("light", "dark"):
                apply_theme(app, appearance)
                _wait(0.3)
                window.grab().save(str(options.folder / f"{name}-{appearance}.png"))

        for entry in PAGES:
            if options.only in ("", entry.key):
                window.show_page(entry.key)
                _wait(0.8)
                take(f"{entry.key}-empty" if entry.key == "convert" else entry.key)
        if options.only in ("", "convert"):
            _take_convert(window, options, take)
        context.tasks.cancel_all()
        window.close()
        window.deleteLater()


def _take_convert(window: object, options: argparse.Namespace, take: Callable[[str], None]) -> None:
    from autovoice_app.demo import demo_song
    from autovoice_app.songs import State
    from autovoice_app.views.convert.page import ConvertPage
    from engine.rendering import PRESETS

    page = window.show_page("convert")  # type: ignore[attr-defined]
    assert isinstance(page, ConvertPage)
    song_path = options.song or demo_song()
    _wait_until(lambda: len(page.choices.timing.costs) == len(PRESETS), 600)
    page.choices.preset.setCurrentIndex(page.choices.preset.findData(options.preset))
    page.add_songs([song_path])
    song = page.queue.songs[0]
    _wait_until(lambda: song.peaks is not None or song.state is State.FAILED, 60)
    take("convert-open")
    page.convert_current()
    _wait_until(lambda: not song.is_busy or song.edits is not None, 600)
    _wait(0.3)
    take("convert-busy")
    _wait_until(lambda: not song.is_busy, 1800)
    if song.edits is not None:
        import numpy as np

        sung = np.flatnonzero(song.edits.source.voiced) * song.edits.source.hop_s
        start = float(sung[len(sung) // 3])
        page.axis.show_range(start - 3.0, start + 7.0)
        page.axis.select((start, start + 1.2))
        page.plots.pitch.shift_selection(2.0)
        page._seek(start - 1.5)
    _wait(0.5)
    take("convert-done")


def _wait(seconds: float) -> None:
    """Let the window and its threads work; QTest.qWait would keep the interpreter to itself."""
    from PySide6.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        _wait(0.05)


if __name__ == "__main__":
    sys.exit(main())
