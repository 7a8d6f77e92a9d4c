"""Work away from the GUI thread: a lane for jobs that use models, one for files, for downloads, and for devices.

An `EngineTask` is a QObject that stays in the GUI thread; the executor's thread has a `_Job`, which knows nothing of it
and tells its news to the one long-lived `Tasks` object. That emits the task's signals in the GUI thread, so slots run
there, and a task that ended can be deleted: no worker is inside one of its signals (seen as a crash) or holds its last
reference. This module alone catches everything: `Cancelled` is silence, an `AutoVoiceError` becomes a notice, all else
is a crash report. A failed task never stops those queued behind it.
"""

import itertools
import logging
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal, SignalInstance

from autovoice_app.notices import Notices
from engine.errors import AutoVoiceError, Cancelled
from engine.jobs import JobContext

_log = logging.getLogger(__name__)

Work = Callable[[JobContext], Any]
ENGINE, FILES, NETWORK, DEVICES = "engine", "files", "network", "devices"


@dataclass(frozen=True, eq=False)
class _Job:
    """A task as its lane's thread has it.

    Attributes:
        key: Of the task.
        title: For the log.
        work: What to do.
        ctx: Of the task.
        lane: Where it runs.
        news: Takes (key, name of one of the task's signals, what that carries).
    """

    key: int
    title: str
    work: Work
    ctx: JobContext
    lane: str
    news: SignalInstance

    def run(self) -> None:
        """Do the work, in the lane's thread."""
        try:
            if self.ctx.is_cancelled:
                raise Cancelled
            self.news.emit((self.key, "started"))
            result = self._with_models() if self.lane == ENGINE else self.work(self.ctx)
        except Cancelled:
            self.news.emit((self.key, "cancelled"))
        except BaseException as error:  # noqa: BLE001 - the one place that catches everything
            if not isinstance(error, AutoVoiceError):
                _log.error("task '%s' crashed", self.title, exc_info=error)
            self.news.emit((self.key, "failed", error))
        else:
            self.news.emit((self.key, "finished", result))

    def _with_models(self) -> Any:
        from engine.models import lease_when_free

        with lease_when_free(self.ctx):  # live conversion is not to be disturbed
            return self.work(self.ctx)


class EngineTask(QObject):
    """One piece of work: queued, then running, then ended in one of four ways.

    Connect before `start()`, to methods of QObjects; read `ctx.progress` and `seconds` from a timer.
    """

    started = Signal()
    finished = Signal(object)  # what the work returned
    failed = Signal(object)  # the AutoVoiceError, or the exception of a crash
    cancelled = Signal()
    ended = Signal()  # after finished, failed or cancelled

    def __init__(self, title: str, work: Work, tasks: "Tasks", lane: str, *, gives_way: bool = False) -> None:
        super().__init__(tasks)
        self.title, self.lane, self.gives_way = title, lane, gives_way
        self.ctx = JobContext()
        self.is_running = self.is_ended = False
        self._work, self._tasks = work, tasks
        self._started_at = 0.0
        self._future: Future[None] | None = None

    def start(self) -> "EngineTask":
        """Queue the work; call once, after connecting."""
        self._future = self._tasks._submit(self, self._work)
        return self

    def cancel(self) -> None:
        """Stop it: at once when still queued, else at its next checkpoint."""
        self.ctx.cancel()
        if self._future is not None and self._future.cancel():
            self._take("cancelled")

    @property
    def seconds(self) -> float:
        """Seconds since it left the queue; 0 while queued."""
        return time.monotonic() - self._started_at if self._started_at else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds to go, judged from the share done so far; None while there is too little to judge by."""
        fraction = self.ctx.progress.fraction
        if fraction < 0.02 or self.seconds < 1.0:
            return None
        return self.seconds * (1.0 - fraction) / fraction

    def _take(self, news: str, *values: object) -> None:
        """Emit the signal of that name and what follows from it."""
        if news == "started":
            self.is_running, self._started_at = True, time.monotonic()
            self.started.emit()
            return
        self.is_running, self.is_ended = False, True
        getattr(self, news).emit(*values)
        self.ended.emit()


class Tasks(QObject):
    """The lanes and what waits in them."""

    changed = Signal()  # a task was queued, started or ended
    crashed = Signal(str)  # a traceback, for the crash dialog
    _news = Signal(object)  # see _Job.news

    def __init__(self, notices: Notices, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._notices = notices
        self._lanes = {
            name: ThreadPoolExecutor(max_workers=workers, thread_name_prefix=f"autovoice-{name}")
            for name, workers in (
                (ENGINE, 1),
                (FILES, 2),
                (NETWORK, 1),
                (DEVICES, 1),
            )  # files: an export holds up no waveform
        }
        self._open: dict[int, EngineTask] = {}  # by the key that their jobs name them by
        self._keys = itertools.count()
        self._news.connect(self._take_news, Qt.ConnectionType.QueuedConnection)
        self._closing = False

    def create(self, title: str, work: Work, *, lane: str = ENGINE, gives_way: bool = False) -> EngineTask:
        """Prepare a task.

        Args:
            title: What it does, for people ("Converting caesium.flac").
            work: Called with the task's JobContext in the lane's thread; touches no widgets.
            lane: ENGINE for all that uses models; FILES for short reading (peaks, checks of a recording's header);
                NETWORK for downloads; DEVICES for opening and closing devices, in the order asked for.
            gives_way: Nobody asked for it: it is cancelled as soon as anything else wants its lane, and the window
                neither shows it nor asks before it closes.

        Returns:
            The task; connect its signals, then `start()` it.
        """
        return EngineTask(title, work, self, lane, gives_way=gives_way)

    @property
    def open_tasks(self) -> tuple[EngineTask, ...]:
        """Tasks that are queued or running, in order."""
        return tuple(self._open.values())

    @property
    def running_engine_task(self) -> EngineTask | None:
        """The task that the engine lane works on, unless nobody asked for it."""
        return next(
            (task for task in self.open_tasks if task.lane == ENGINE and task.is_running and not task.gives_way), None
        )

    def cancel_all(self) -> None:
        """Stop what runs and what waits."""
        for task in self.open_tasks[::-1]:
            task.cancel()

    def shut_down(self) -> None:
        """Cancel everything and wait for the lanes to fall silent; nothing can be started afterwards."""
        self._closing = True
        self.cancel_all()
        for lane in self._lanes.values():
            lane.shutdown(wait=True, cancel_futures=True)

    def _submit(self, task: EngineTask, work: Work) -> "Future[None]":
        task.started.connect(self.changed)
        task.failed.connect(self._report)
        task.ended.connect(self._forget)
        for other in self.open_tasks:
            if other.gives_way and other.lane == task.lane:
                other.cancel()
        job = _Job(next(self._keys), task.title, work, task.ctx, task.lane, self._news)
        self._open[job.key] = task
        future = self._lanes[task.lane].submit(job.run)
        self.changed.emit()
        return future

    def _take_news(self, news: tuple[Any, ...]) -> None:
        key, name, *values = news
        if task := self._open.get(key):
            task._take(name, *values)

    def _report(self, error: BaseException) -> None:
        if self._closing:
            return
        if isinstance(error, AutoVoiceError):
            self._notices.error(error)
        else:
            self.crashed.emit("".join(traceback.format_exception(error)))

    def _forget(self) -> None:
        for key, task in list(self._open.items()):
            if task.is_ended:
                del self._open[key]
                task.deleteLater()
        self.changed.emit()
