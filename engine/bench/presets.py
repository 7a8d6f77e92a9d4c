"""`autovoice bench presets`: what each preset costs on this machine, and what it gives, on one song."""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from engine.jobs import JobContext

_KEPT = (
    "seconds",
    "real_time_factor",
    "stage_seconds",
    "f0_rmse_hz",
    "f0_rmse_cents",
    "f0_correlation",
    "voicing_errors",
    "similarity",
    "transpose_semitones",
    "mix_peak_dbtp",
    "device",
    "models",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--song", type=Path, help="without it, the bundled demo")
    parser.add_argument("--voice", metavar="NAME", help="a stored voice; without it, the first demo voice")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--preset", action="append", metavar="NAME", help="only this one; may be given again")


def run(options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    """Render the song once per preset, after one short run that loads everything."""
    from engine.rendering import PRESETS, RenderOptions, render_song
    from engine.signal import read_audio, write_audio
    from engine.store import Store, default_data_folder

    song = options.song or Path(str(files("resources"))) / "demo" / "song.opus"
    with Store(default_data_folder()) as store:
        record = store.voice(options.voice) if options.voice else next(v for v in store.voices() if v.builtin)
        voice = store.load_voice(record)
    names = options.preset or list(PRESETS)
    figures: dict[str, Any] = {"song": song.name, "voice": voice.name, "presets": {}}
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm.flac"
        write_audio(warm, read_audio(song, max_seconds=4.0))
        for i, name in enumerate(names):
            part = ctx.part(i / len(names), (i + 1) / len(names))
            wanted = RenderOptions(preset=name, torch_device=options.device)
            render_song(warm, Path(folder) / "warm.wav", voice, wanted, part.part(0.0, 0.1))
            processor_before = time.process_time()
            result = render_song(song, Path(folder) / "mix.wav", voice, wanted, part.part(0.1, 1.0))
            figures["presets"][name] = {
                **{key: result.report[key] for key in _KEPT},
                "processor_seconds": round(time.process_time() - processor_before, 2),
            }
    return figures


def summarise(figures: Mapping[str, Any]) -> str:
    """One line per preset."""
    lines = [f"{figures['song']} in the voice {figures['voice']}"]
    for name, preset in figures["presets"].items():
        lines.append(
            f"  {name:9} {preset['real_time_factor']:.2f} x real time on {preset['device']}"
            f" ({preset['processor_seconds'] / preset['seconds']:.2f} s of processor per second),"
            f" F0 {_text(preset['f0_rmse_cents'], '.1f')} cents off, voicing {preset['voicing_errors']:.1%} off,"
            f" similarity {_text(preset['similarity'], '.3f')}"
        )
    return "\n".join(lines)


def table_rows(figures: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Rows for the tables of README."""
    return [
        (
            f"Preset {name}",
            f"{preset['real_time_factor']:.2f} x real time; F0 {_text(preset['f0_rmse_cents'], '.1f')} cents off;"
            f" similarity {_text(preset['similarity'], '.3f')}",
        )
        for name, preset in figures["presets"].items()
    ]


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
