"""`autovoice separate`: vocals and accompaniment of a song."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovoice_app.cli import run_with_progress
from autovoice_app.cli.convert import DEVICE_NAMES
from engine.errors import AudioFileError
from engine.jobs import JobContext
from engine.signal import probe_audio

if TYPE_CHECKING:
    from engine.separation import Separation


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "separate",
        help="split a song into vocals and accompaniment",
        description="Write FOLDER/vocals.wav and FOLDER/accompaniment.wav; their sum is the song.",
    )
    parser.add_argument("song", type=Path, metavar="SONG", help="any sound file; rate, channels and length are kept")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="made if missing")
    parser.add_argument(
        "--model",
        default="embedded",
        metavar="NAME|FILE",
        help="embedded (default), a separator of 'autovoice models list', or a model file",
    )
    parser.add_argument("--passes", type=_passes, default=1, metavar="N", help="average N shifted passes; default: 1")
    parser.add_argument("--device", choices=DEVICE_NAMES, default="auto", help="default: auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write seconds per stage and the rest here")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Separate the song and say where the stems lie and how long each stage took."""

    def work(ctx: JobContext) -> tuple["Separation", dict[str, float], tuple[str, ...]]:
        from engine.separation import separate

        stems = separate(
            options.song,
            options.output,
            model=options.model,
            torch_device=options.device,
            passes=options.passes,
            ctx=ctx,
        )
        return stems, ctx.stage_seconds, ctx.progress.notes

    probe_audio(options.song)  # what cannot be read fails before the big libraries load
    preload = ("torch", "engine.separation")
    stems, stage_seconds, notes = run_with_progress(work, quiet=options.quiet, preload=preload)
    if options.json is not None:
        _write_report(options.json, _report(stems, stage_seconds, notes))
    if not options.quiet:
        print(stems.vocals)
        print(stems.accompaniment)
        spent = sum(stage_seconds.values())
        stages = ", ".join(f"{stage.lower()} {seconds:.1f} s" for stage, seconds in stage_seconds.items())
        print(f"{stems.seconds:.1f} s of audio in {spent:.1f} s on {stems.torch_device}: {stages}")


def _report(stems: "Separation", stage_seconds: dict[str, float], notes: tuple[str, ...]) -> dict[str, Any]:
    spent = sum(stage_seconds.values())
    return {
        "vocals": str(stems.vocals),
        "accompaniment": str(stems.accompaniment),
        "seconds": stems.seconds,
        "sample_rate": stems.sample_rate,
        "channels": stems.num_channels,
        "model": stems.model,
        "model_sha256": stems.model_sha256,
        "device": stems.torch_device,
        "stage_seconds": {stage: round(seconds, 3) for stage, seconds in stage_seconds.items()},
        "real_time_factor": round(spent / stems.seconds, 4),
        "notes": list(notes),
    }


def _write_report(path: Path, report: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise AudioFileError(f"The report '{path}' cannot be written.", hint=str(error.strerror)) from error


def _passes(word: str) -> int:
    count = int(word)
    if not 1 <= count <= 16:
        raise argparse.ArgumentTypeError("must be 1 to 16")
    return count
