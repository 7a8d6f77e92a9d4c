"""Progress and cancellation of long work, shared by the window, the command line and the engine."""

import threading
import time
from dataclasses import dataclass, replace

from engine.errors import Cancelled


@dataclass(frozen=True)
class JobProgress:
    """What a job last said of itself.

    Attributes:
        stage: Name of the running stage, for people ("Separating vocals").
        fraction: Share of the whole job that is done, 0 to 1.
        notes: Remarks for the user gathered so far, such as a fall-back to the CPU.
        interim: What the job could show already, of a type that it names (see `JobContext.show`), or None.
    """

    stage: str = ""
    fraction: float = 0.0
    notes: tuple[str, ...] = ()
    interim: object | None = None


class JobContext:
    """Carries progress out of a job and the wish to stop into it.

    One thread works and calls `checkpoint`, `note` and `show`; any thread reads `progress` and calls `cancel`.
    A job made of several parts hands each a `part`, whose fractions fill its share of the whole.
    """

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._progress = JobProgress()
        self._stage_seconds: dict[str, float] = {}
        self._stage_started = time.monotonic()

    @property
    def progress(self) -> JobProgress:
        """The latest progress, replaced whole."""
        return self._progress

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds spent per stage so far, in order of first appearance."""
        self._count_time()
        return dict(self._stage_seconds)

    def cancel(self) -> None:
        """Ask the job to stop at its next checkpoint."""
        self._cancelled.set()

    def checkpoint(self, stage: str, fraction: float) -> None:
        """Publish progress; call at least every 250 ms of work.

        Args:
            stage: Name of the running stage, for people.
            fraction: Share of the work that is done, 0 to 1.

        Raises:
            Cancelled: `cancel` was called.
        """
        if self._cancelled.is_set():
            raise Cancelled
        self._count_time()
        self._progress = replace(self._progress, stage=stage, fraction=min(max(fraction, 0.0), 1.0))

    def note(self, text: str) -> None:
        """Add a remark for the user, once."""
        if text not in self._progress.notes:
            self._progress = replace(self._progress, notes=(*self._progress.notes, text))

    def show(self, interim: object) -> None:
        """Hand out a part of the result before the rest is done.

        Args:
            interim: Immutable, and of a type that the job documents, so that who reads `progress` can tell what it is;
                takes the place of the one before.
        """
        self._progress = replace(self._progress, interim=interim)

    def part(self, start: float, end: float) -> "JobContext":
        """A context whose 0 to 1 fills `start` to `end` of this one; it shares cancellation and passes on the rest."""
        return _PartContext(self, start, end)

    def _count_time(self) -> None:
        now = time.monotonic()
        if self._progress.stage:
            spent = self._stage_seconds.get(self._progress.stage, 0.0)
            self._stage_seconds[self._progress.stage] = spent + now - self._stage_started
        self._stage_started = now


class _PartContext(JobContext):
    def __init__(self, whole: JobContext, start: float, end: float) -> None:
        super().__init__()
        self._whole, self._start, self._end = whole, start, end
        self._cancelled = whole._cancelled

    def checkpoint(self, stage: str, fraction: float) -> None:
        fraction = min(max(fraction, 0.0), 1.0)
        self._whole.checkpoint(stage, self._start + (self._end - self._start) * fraction)
        super().checkpoint(stage, fraction)

    def note(self, text: str) -> None:
        self._whole.note(text)
        super().note(text)

    def show(self, interim: object) -> None:
        self._whole.show(interim)
        super().show(interim)
