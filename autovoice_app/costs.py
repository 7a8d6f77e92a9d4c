"""What a conversion costs on this machine, by preset: learnt from earlier ones, or timed on a bit of the demo song."""

import hashlib
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovoice_app import __version__
from autovoice_app.demo import demo_song
from engine.jobs import JobContext
from engine.models import installed_models
from engine.rendering import PRESETS, RenderOptions, render_song
from engine.signal import AudioClip, read_audio, write_audio

if TYPE_CHECKING:
    from engine.store import Store

_RUNS_COUNTED = 5
_RENDERS_READ = 60
_FROM_S, _WARM_S, _TIMED_S = 4.0, 1.5, 8.0  # of the demo song, from where the voice is in
_LOADING, _SEPARATING = "Loading", "Separating"


@dataclass(frozen=True)
class Cost:
    """What a preset takes, apart from loading models, which is over after the first song.

    Attributes:
        separating: Seconds of work per second of song for taking the vocals out; None when that was never timed.
        rest: Seconds of work per second of song for all else.
    """

    separating: float | None
    rest: float

    def seconds(self, preset: str, song_s: float, *, separates: bool) -> float | None:
        """What a song of this length takes; None when that is not known."""
        if separates and self.separating is None:
            return None
        return (self.rest + (self.separating or 0.0) * separates) * song_s


def cost_of(report: Mapping[str, Any], preset: str, *, separated: bool) -> Cost | None:
    """What a report of rendering tells; None when it is too old to tell."""
    stages, seconds = report.get("stage_seconds"), report.get("seconds")
    if not isinstance(stages, dict) or not isinstance(seconds, int | float) or seconds <= 0 or preset not in PRESETS:
        return None
    by_kind = {_LOADING: 0.0, _SEPARATING: 0.0, "": 0.0}
    for stage, spent in stages.items():
        by_kind[next(kind for kind in by_kind if stage.startswith(kind))] += float(spent)
    return Cost(by_kind[_SEPARATING] / seconds if separated else None, by_kind[""] / seconds)


def learnt_costs(store: "Store") -> dict[str, Cost]:
    """Costs by preset, the medians of the last conversions."""
    found: dict[str, list[Cost]] = {}
    for render in store.renders(_RENDERS_READ):
        separated = render.options.get("separation") != "none" and not render.options.get("reused_stems")
        cost = cost_of(render.report, render.preset, separated=separated)
        if cost is not None:
            found.setdefault(render.preset, []).append(cost)
    return {preset: _median(costs) for preset, costs in found.items()}


def _median(costs: Sequence[Cost]) -> Cost:
    separating = [cost.separating for cost in costs if cost.separating is not None][:_RUNS_COUNTED]
    last = costs[:_RUNS_COUNTED]
    return Cost(
        statistics.median(separating) if separating else None,
        statistics.median(cost.rest for cost in last),
    )


def time_preset(preset: str, store: "Store", ctx: JobContext) -> Cost:
    """Convert some seconds of the demo song with a demo voice, after a shorter bit that loads the models.

    Runs in the engine lane; leaves no file and no trace in the store.

    Raises:
        AutoVoiceError: As `render_song` and `Store.load_voice` do; or there is no room for temporary files.
        Cancelled: The lane is wanted for something else.
    """
    voice = store.load_voice(next(record for record in store.voices() if record.builtin))
    options = RenderOptions(preset=preset)
    ctx.checkpoint("Timing the presets", 0.0)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="autovoice-") as name:
        folder = Path(name)
        for seconds, part in ((_WARM_S, ctx.part(0.0, 0.3)), (_TIMED_S, ctx.part(0.3, 1.0))):
            clip = read_audio(demo_song(), max_seconds=_FROM_S + seconds)
            bit = AudioClip(clip.samples[:, round(_FROM_S * clip.sample_rate) :], clip.sample_rate)
            write_audio(folder / "song.wav", bit)
            report = render_song(folder / "song.wav", folder / "mix.wav", voice, options, part).report
    cost = cost_of(report, preset, separated=True)
    assert cost is not None
    return cost


def machine_key() -> str:
    """Changes with the machine, the program and its models, and so with what conversions cost."""
    models = sorted(model.sha256 for model in installed_models() if model.source == "embedded")
    told = [platform.node(), platform.machine(), str(os.cpu_count()), __version__, *models]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def costs_to_text(costs: Mapping[str, Cost]) -> str:
    """As the settings keep timed costs."""
    return json.dumps({"machine": machine_key(), "costs": {name: asdict(cost) for name, cost in costs.items()}})


def costs_from_text(text: str) -> dict[str, Cost]:
    """What `costs_to_text` gave on this machine with these models; nothing when it was another, or does not parse."""
    try:
        kept = json.loads(text) if text else {}
        if kept.get("machine") != machine_key():
            return {}
        return {name: Cost(**cost) for name, cost in kept["costs"].items() if name in PRESETS}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
