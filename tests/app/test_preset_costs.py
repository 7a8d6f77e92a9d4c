"""What presets cost on this machine: the timing itself, when it happens, and what the page makes of it."""

import threading

import pytest
import torch
from PySide6.QtCore import Qt

from autovoice_app import costs
from autovoice_app.costs import Cost, cost_of
from autovoice_app.widgets.basics import NOTE_ROLE
from engine.errors import ModelError
from engine.jobs import JobContext
from engine.rendering import PRESETS
from engine.store import Store
from tests.app.test_convert_page import add, choose, song_file

__all__ = ["song_file"]

COSTS = {"fast": Cost(0.1, 0.1), "balanced": Cost(0.2, 0.2), "quality": Cost(1.0, 1.5)}


@pytest.fixture
def preset_timing_idle_ms():
    return 1


class FakeTiming:
    """Stands in for `time_preset`: takes as long as it is told to, and stops when it is cancelled."""

    def __init__(self):
        self.asked = []
        self.may_end = threading.Event()

    def __call__(self, preset, store, ctx):
        self.asked.append(preset)
        while not self.may_end.wait(0.005):
            ctx.checkpoint("Timing the presets", 0.5)
        return COSTS[preset]


@pytest.fixture
def timing(monkeypatch):
    fake = FakeTiming()
    monkeypatch.setattr(costs, "time_preset", fake)
    return fake


@pytest.fixture
def page(timing, window):
    return window.show_page("convert")


def test_every_preset_is_timed_and_the_menu_says_what_a_song_takes(qtbot, page, context, timing, song_file):
    qtbot.waitUntil(lambda: timing.asked == ["fast"], timeout=5000)
    assert "Finding out" in page.choices.cost.text()
    timing.may_end.set()
    qtbot.waitUntil(lambda: len(page.choices.timing.costs) == 3, timeout=5000)
    assert timing.asked == list(PRESETS)
    add(qtbot, page, song_file)
    names = Qt.ItemDataRole.AccessibleTextRole
    labels = [page.choices.preset.itemData(index, names) for index in range(3)]
    assert labels == ["Fast, about 1 s", "Balanced, about 2 s", "Quality, about 10 s"]
    choose(page.choices.preset, "quality")
    assert page.choices.cost.text() == "About 10 s for this song, as measured here."
    assert costs.costs_from_text(context.settings.current.convert_costs) == COSTS


def test_timing_gives_way_to_work_and_goes_on_afterwards(qtbot, timing, window, page, context):
    qtbot.waitUntil(lambda: timing.asked == ["fast"], timeout=5000)
    assert context.tasks.running_engine_task is None, "nobody asked for it"
    done = []
    task = context.tasks.create("Something that is wanted", lambda ctx: done.append(len(timing.asked)))
    with qtbot.waitSignal(task.finished, timeout=5000):
        task.start()
    assert done == [1]
    assert not page.choices.timing.costs
    qtbot.waitUntil(lambda: timing.asked == ["fast", "fast"], timeout=5000)
    window.show_page("live")
    qtbot.waitUntil(lambda: not context.tasks.open_tasks, timeout=5000)
    qtbot.wait(50)
    assert len(timing.asked) == 2, "other pages have the engine for themselves"
    window.show_page("convert")
    qtbot.waitUntil(lambda: len(timing.asked) == 3, timeout=5000)


def test_closing_the_window_stops_the_timing_without_a_question(qtbot, timing, window, page, context):
    qtbot.waitUntil(lambda: timing.asked == ["fast"], timeout=5000)
    assert window.close()
    qtbot.waitUntil(lambda: not context.tasks.open_tasks, timeout=5000)


def test_what_cannot_be_timed_is_not_tried_again_and_not_complained_about(qtbot, context, monkeypatch, caplog, request):
    asked, shown = [], []

    def fail(preset, store, ctx):
        asked.append(preset)
        raise ModelError("A model is missing.", hint="Install it.")

    monkeypatch.setattr(costs, "time_preset", fail)
    context.notices.shown.connect(shown.append)
    with caplog.at_level("CRITICAL"):
        page = request.getfixturevalue("window").show_page("convert")
        qtbot.waitUntil(lambda: bool(asked), timeout=5000)
        qtbot.wait(50)
    assert asked == ["fast"]
    assert not shown
    assert "Not timed" in page.choices.cost.text()


def test_conversions_tell_more_than_timings(qtbot, context, timing, tmp_path, request):
    stages = {"Separating vocals": 2.0, "Listening to the voice": 1.0, "Mixing": 3.0, "Loading the separator": 50.0}
    report = {"seconds": 10.0, "stage_seconds": stages}
    for preset in PRESETS:
        context.store.add_render(
            tmp_path / "a.flac", tmp_path / "mix.wav", voice=None, voice_name="A", preset=preset, report=report
        )
    page = request.getfixturevalue("window").show_page("convert")
    page.choices.show_cost(100.0)
    assert page.choices.preset.itemData(0, NOTE_ROLE) == "about 60 s"
    qtbot.wait(50)
    assert not timing.asked, "there is nothing left to find out"


def test_costs_of_another_machine_or_other_models_do_not_count(monkeypatch):
    text = costs.costs_to_text(COSTS)
    assert costs.costs_from_text(text) == COSTS
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert costs.costs_from_text(text) == {}
    for damaged in ("", "{", "[]", '{"machine": 1}', text.replace("rest", "west")):
        assert costs.costs_from_text(damaged) == {}


def test_a_report_without_stages_tells_nothing():
    assert cost_of({"real_time_factor": 1.0}, "fast", separated=True) is None


def test_the_demo_song_is_really_converted(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ctx = JobContext()
    with Store(tmp_path) as store:
        cost = costs.time_preset("fast", store, ctx)
        assert store.renders() == []
    torch.set_num_threads(threads)
    assert cost.separating > 0
    assert cost.rest > 0
    assert {"Separating vocals", "Converting the voice"} <= set(ctx.stage_seconds)
