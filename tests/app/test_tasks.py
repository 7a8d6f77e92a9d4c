import threading

from PySide6.QtCore import QThread

from engine.errors import AudioFileError


def test_the_queue_goes_on_after_an_error_that_becomes_a_notice(qtbot, context):
    shown, results = [], []
    context.notices.shown.connect(shown.append)

    def fail(ctx):
        raise AudioFileError("The file is empty.", hint="Copy it again.")

    first = context.tasks.create("first", fail)
    second = context.tasks.create("second", lambda ctx: threading.current_thread().name)
    second.finished.connect(results.append)
    first.start()
    with qtbot.waitSignal(second.ended, timeout=5000):
        second.start()
    assert [(notice.message, notice.hint, notice.kind) for notice in shown] == [
        ("The file is empty.", "Copy it again.", "error")
    ]
    assert results[0].startswith("autovoice-engine")
    assert context.tasks.open_tasks == ()


def test_results_arrive_in_the_gui_thread(qtbot, context, qapp):
    threads = []
    task = context.tasks.create("where", lambda ctx: None)
    task.finished.connect(lambda _: threads.append(QThread.currentThread()))
    with qtbot.waitSignal(task.ended, timeout=5000):
        task.start()
    assert threads == [qapp.thread()]


def test_cancel_stops_a_running_task_and_one_that_waits_in_silence(qtbot, context):
    running, shown, cancelled = threading.Event(), [], []
    context.notices.shown.connect(shown.append)

    def work(ctx):
        running.set()
        while True:
            ctx.checkpoint("Working", 0.5)

    first, second = context.tasks.create("first", work), context.tasks.create("second", work)
    for task in (first, second):
        task.cancelled.connect(lambda title=task.title: cancelled.append(title))
        task.start()
    assert running.wait(5)
    with qtbot.waitSignal(first.ended, timeout=5000):
        second.cancel()
        first.cancel()
    assert cancelled == ["second", "first"]
    assert shown == []


def test_a_bug_becomes_a_crash_report(qtbot, context, caplog):
    def work(ctx):
        raise ZeroDivisionError("a bug")

    task = context.tasks.create("buggy", work)
    with qtbot.waitSignal(context.tasks.crashed, timeout=5000) as caught:
        task.start()
    assert "ZeroDivisionError: a bug" in caught.args[0]
    assert "task 'buggy' crashed" in caplog.text


def test_shutting_down_cancels_and_joins(context):
    running = threading.Event()

    def work(ctx):
        running.set()
        while True:
            ctx.checkpoint("Working", 0.5)

    context.tasks.create("endless", work).start()
    assert running.wait(5)
    context.tasks.shut_down()
    assert not [t for t in threading.enumerate() if t.name.startswith("autovoice-engine")]
