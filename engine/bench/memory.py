"""`autovoice bench memory`: convert a very long song, and watch the memory it takes."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from engine.bench.frame import require_extra
from engine.errors import AutoVoiceError
from engine.jobs import JobContext

LIMIT_GB = 4.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--hours", type=float, default=2.0, help="length of the generated song (default 2)")
    parser.add_argument("--preset", default="fast", help="default: fast")
    parser.add_argument("--voice", metavar="NAME", help="a stored voice; without it, the first demo voice")
    parser.add_argument(
        "--folder", type=Path, help="where 15 GB fit for two hours; default: the system's for temporary files"
    )


def run(options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    """Generate the song, convert it in a process of its own, and poll that process's memory."""
    psutil = require_extra("psutil", purpose="the memory of another process")
    from engine.store import Store, default_data_folder

    with Store(default_data_folder()) as store:
        name = options.voice or next(voice.name for voice in store.voices() if voice.builtin)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        song, report = Path(folder) / "long.flac", Path(folder) / "report.json"
        seconds = _generate(song, options.hours * 3600, ctx.part(0.0, 0.05))
        command = [sys.executable, "-m", "autovoice_app", "convert", str(song), "--voice", name]
        command += [
            "--preset",
            options.preset,
            "-o",
            str(Path(folder) / "mix.flac"),
            "--report",
            str(report),
            "--quiet",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            peak, began = 0, time.monotonic()
            try:
                watched = psutil.Process(process.pid)
                while process.poll() is None:
                    peak = max(peak, watched.memory_info().rss)
                    ctx.checkpoint("Converting the long song", 0.5)
                    time.sleep(0.25)
            finally:
                process.terminate()
            assert process.stderr is not None
            if process.returncode:
                said = process.stderr.read().decode(errors="replace").strip()
                raise AutoVoiceError("The long song was not converted.", hint=said[-300:])
        figures = json.loads(report.read_text(encoding="utf-8"))
    return {
        "hours": round(seconds / 3600, 3),
        "preset": options.preset,
        "peak_gb": round(peak / 1e9, 3),
        "limit_gb": LIMIT_GB,
        "wall_s": round(time.monotonic() - began, 1),
        "real_time_factor": figures["real_time_factor"],
        "stage_seconds": figures["stage_seconds"],
    }


def _generate(path: Path, seconds: float, ctx: JobContext) -> float:
    """The demo song over and over, each time a little louder or softer, over faint noise."""
    from engine.signal import AudioWriter, read_audio, resample

    demo = resample(read_audio(Path(str(files("resources"))) / "demo" / "song.opus"), 44100)
    rng = np.random.default_rng(0)
    written = 0
    with AudioWriter(path, 44100, 2) as writer:
        while written < seconds * 44100:
            ctx.checkpoint("Generating a long song", written / (seconds * 44100))
            noise = 1e-3 * rng.standard_normal(demo.samples.shape)
            writer.write((demo.samples * rng.uniform(0.5, 0.9) + noise).astype(np.float32))
            written += demo.num_samples
    return written / 44100


def summarise(figures: Mapping[str, Any]) -> str:
    """One line."""
    return (
        f"{figures['hours']:.2f} h, preset {figures['preset']}: at most {figures['peak_gb']:.2f} GB"
        f" (limit {figures['limit_gb']:.0f} GB), {figures['real_time_factor']:.2f} x real time"
    )


def table_rows(figures: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Rows for the tables of README."""
    return [(f"Memory for {figures['hours']:.1f} h of song", f"{figures['peak_gb']:.2f} GB at most")]
