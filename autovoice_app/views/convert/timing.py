"""Times the presets while nothing else is to be done, so that the page can say what they cost before the first song."""

import functools
import logging

from PySide6.QtCore import QObject, QTimer, Signal

from autovoice_app import costs
from autovoice_app.context import AppContext
from autovoice_app.costs import Cost
from autovoice_app.tasks import ENGINE, EngineTask
from engine.errors import AutoVoiceError
from engine.jobs import JobContext
from engine.rendering import PRESETS

_log = logging.getLogger(__name__)

IDLE_MS = 3000  # so long nothing may have happened in the engine lane before it is used


class PresetTiming(QObject):
    """Finds out what each preset costs, one after another, whenever the Convert page is in front and the lane is free.

    What is found is kept in the settings for this machine and these models. Anything else that wants the engine lane
    stops it at once; it goes on later.
    """

    found = Signal()  # another preset was timed

    def __init__(self, context: AppContext, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._costs: dict[str, Cost] | None = None
        self._known: set[str] = set()
        self._task: EngineTask | None = None
        self._is_wanted = self._has_failed = False
        self._idle = QTimer(self, interval=IDLE_MS, singleShot=True)
        self._idle.timeout.connect(self._begin)
        context.tasks.changed.connect(self._wait)

    @property
    def costs(self) -> dict[str, Cost]:
        """What was timed on this machine, by preset."""
        if self._costs is None:
            self._costs = costs.costs_from_text(self._context.settings.current.convert_costs)
        return self._costs

    @property
    def is_running(self) -> bool:
        """Whether a preset is being timed."""
        return self._task is not None

    def resume(self, known: set[str]) -> None:
        """Time what is not known yet, when there is time.

        Args:
            known: Presets whose cost conversions have told already.
        """
        self._known, self._is_wanted = known, True
        self._wait()

    def pause(self) -> None:
        """Leave the lane to others."""
        self._is_wanted = False
        self._idle.stop()
        if self._task is not None:
            self._task.cancel()

    def _missing(self) -> list[str]:
        return [name for name in PRESETS if name not in self.costs and name not in self._known]

    def _is_free(self) -> bool:
        return not any(task.lane == ENGINE for task in self._context.tasks.open_tasks)

    def _wait(self) -> None:
        """Begin a little after the lane has become free; whatever enters it starts the wait anew."""
        if self._is_wanted and not self._has_failed and self._is_free() and self._missing():
            self._idle.start()
        else:
            self._idle.stop()

    def _begin(self) -> None:
        if self._context.player.is_playing:  # all cores at work might make it stutter
            self._idle.start()
            return
        preset, store = self._missing()[0], self._context.store

        def work(ctx: JobContext) -> Cost | None:
            try:
                return costs.time_preset(preset, store, ctx)
            except AutoVoiceError as error:  # who wanted to convert will be told; nobody asked for this
                _log.warning("preset %s cannot be timed: %s", preset, error.message)
                return None

        task = self._context.tasks.create("Timing the presets", work, gives_way=True)
        task.finished.connect(functools.partial(self._take, preset))
        task.failed.connect(self._give_up)
        task.ended.connect(self._end)
        self._task = task
        task.start()
        self.found.emit()

    def _take(self, preset: str, cost: Cost | None) -> None:
        if cost is None:
            self._give_up()
            return
        self._costs = {**self.costs, preset: cost}
        self._context.settings.update(convert_costs=costs.costs_to_text(self._costs))

    def _give_up(self, *_error: object) -> None:
        self._has_failed = True

    def _end(self) -> None:
        self._task = None
        self.found.emit()
