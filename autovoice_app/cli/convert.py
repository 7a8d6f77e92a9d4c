"""`autovoice convert`: a song in another voice; `autovoice demo`: the bundled song in a bundled voice."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovoice_app.cli import UsageError, print_json, run_with_progress
from autovoice_app.demo import demo_song
from engine.errors import AudioFileError, AutoVoiceError, StoreError
from engine.jobs import JobContext

if TYPE_CHECKING:
    from engine.conversion import Voice
    from engine.rendering import RenderResult
    from engine.store import VoiceRecord

PRESET_NAMES = ("fast", "balanced", "quality")
DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")
_WRITABLE = "wav, flac, ogg, opus, mp3 or m4a"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    convert = subparsers.add_parser(
        "convert",
        help="convert a song or a bare voice",
        description="Render SONG in another voice. Exit code: 0 done, 1 failed, 2 wrong arguments, 130 stopped.",
    )
    convert.add_argument("song", type=Path, metavar="SONG", help="any sound file; the song's own rate is kept")
    convert.add_argument(
        "--voice", required=True, metavar="NAME", help="a voice of 'autovoice voice list', or the path of a recording"
    )
    convert.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help=f"the mix; its ending ({_WRITABLE}) picks the kind; default: a new name beside the song",
    )
    _add_render_options(convert)
    convert.add_argument("--transpose", type=_transpose, default="auto", metavar="auto|SEMITONES", help="default: auto")
    convert.add_argument(
        "--formant", type=_semitones, default=0.0, metavar="SEMITONES", help="move the formants; default: 0"
    )
    convert.add_argument(
        "--separation",
        default="auto",
        metavar="auto|none|MODEL",
        help="none: SONG is a bare voice; or a model of 'autovoice doctor'",
    )
    convert.add_argument("--stems", type=Path, metavar="DIR", help="also keep the stems here")
    convert.set_defaults(run=run_convert)

    demo = subparsers.add_parser(
        "demo", help="render the bundled song in a bundled voice", description="Render the bundled demo song."
    )
    demo.add_argument("--voice", metavar="NAME", help="default: the first demo voice")
    demo.add_argument("-o", "--output", type=Path, metavar="OUT", help="default: in the data folder")
    _add_render_options(demo)
    demo.set_defaults(run=run_demo)


def _add_render_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=PRESET_NAMES, default="balanced", help="default: balanced")
    parser.add_argument("--device", choices=DEVICE_NAMES, default="auto", help="default: auto")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="write figures of the render here")
    parser.add_argument("--json", action="store_true", help="print the report on standard output")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run_convert(options: argparse.Namespace) -> None:
    """Convert the song that the options name."""
    from engine.signal import check_writable_ending, release_destination, reserve_destination
    from engine.store import file_name

    song, output = options.song, options.output
    _check_paths(song, output, options.report)
    if output is not None:
        check_writable_ending(output)
    _check_voice(options.voice)

    def work(ctx: JobContext) -> "RenderResult":
        voice, record = _find_voice(options.voice, options.device, ctx)
        destination = output or reserve_destination(
            song.absolute().parent, f"{song.stem} - {file_name(voice.name)}", _ending_like(song)
        )
        try:
            result = _render(song, destination, voice, options, ctx)
        except BaseException:
            release_destination(destination)
            raise
        _remember(result, record, options)
        return result

    _finish(run_with_progress(work, quiet=options.quiet, preload=_preload(song)), options)


def run_demo(options: argparse.Namespace) -> None:
    """Render the bundled demo song."""
    from engine.signal import check_writable_ending
    from engine.store import default_data_folder, file_name

    song = demo_song()
    if options.output is not None:
        check_writable_ending(options.output)
    _check_paths(song, options.output, options.report)
    options.transpose, options.formant, options.separation, options.stems = "auto", 0.0, "auto", None

    def work(ctx: JobContext) -> "RenderResult":
        voice, _ = _find_voice(options.voice or _first_demo_voice(), options.device, ctx)
        destination = options.output
        if destination is None:
            folder = default_data_folder() / "demo"
            _make_folder(folder)
            destination = folder / f"song - {file_name(voice.name)}.flac"
        return _render(song, destination, voice, options, ctx)

    _finish(run_with_progress(work, quiet=options.quiet, preload=_preload(song)), options)


def _check_paths(song: Path, output: Path | None, report: Path | None) -> None:
    if report is not None and report.exists() and song.exists() and report.samefile(song):
        raise UsageError("the report would overwrite the song")
    if report is not None and output is not None and report.absolute() == output.absolute():
        raise UsageError("the report and the mix cannot be the same file")


def _check_voice(name: str) -> None:
    """Fail before anything big is loaded when there is neither such a voice nor such a file."""
    from engine.store import Store, default_data_folder

    if not Path(name).is_file():
        with Store(default_data_folder()) as store:
            store.voice(name)


def _preload(song: Path) -> tuple[str, ...]:
    """What to import before the job; nothing when the song cannot be read anyway, so that the failure comes fast."""
    from engine.signal import probe_audio

    probe_audio(song)
    return ("torch", "engine.rendering")


def _find_voice(name: str, torch_device: str, ctx: JobContext) -> tuple["Voice", "VoiceRecord | None"]:
    from engine.store import Store, default_data_folder

    with Store(default_data_folder()) as store:
        try:
            record = store.voice(name)
        except StoreError:
            if not Path(name).is_file():
                raise
        else:
            return store.load_voice(record, ctx), record
    return _voice_of_recording(Path(name), torch_device, ctx), None


def _voice_of_recording(path: Path, torch_device: str, ctx: JobContext) -> "Voice":
    from engine.conversion import embed_voice
    from engine.enrollment import check_takes, process, take_file
    from engine.models import pick_torch_device

    take = take_file(path, ctx=ctx)
    accepted, messages = check_takes([take])
    for message in messages:
        ctx.note(message)
    clips = [process(one.clip).mono() for one in accepted]
    return embed_voice(clips, name=path.stem, torch_device=pick_torch_device(torch_device), ctx=ctx)


def _render(
    song: Path, destination: Path, voice: "Voice", options: argparse.Namespace, ctx: JobContext
) -> "RenderResult":
    from engine.rendering import RenderOptions, render_song

    _make_folder(destination.absolute().parent)
    rendering = RenderOptions(
        preset=options.preset,
        transpose=options.transpose,
        separation=options.separation,
        torch_device=options.device,
        formant_semitones=options.formant,
    )
    return render_song(song, destination.absolute(), voice, rendering, ctx, stems_folder=options.stems)


def _remember(result: "RenderResult", record: "VoiceRecord | None", options: argparse.Namespace) -> None:
    from engine.store import Store, default_data_folder

    with Store(default_data_folder()) as store:
        store.add_render(
            options.song.absolute(),
            result.destination,
            voice=record,
            voice_name=str(result.report["voice"]),
            preset=options.preset,
            stems_folder=options.stems.absolute() if options.stems else None,
            options={"transpose": options.transpose, "separation": options.separation, "formant": options.formant},
            report=result.report,
        )


def _finish(result: "RenderResult", options: argparse.Namespace) -> None:
    report = result.report
    if options.report is not None:
        _write_report(options.report, report)
    if options.json:
        print_json(report)
    elif not options.quiet:
        print(
            f"{result.destination}\n  {report['seconds']:.1f} s of audio in {report['total_seconds']:.1f} s"
            f" ({report['real_time_factor']:.2f} x real time), key {report['transpose_semitones']:+g} semitones"
        )


def _write_report(path: Path, report: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AutoVoiceError(
            f"The report cannot be written to “{path}”: {(error.strerror or str(error)).lower()}.",
            hint="The mix itself is finished. Choose another place for the report.",
        ) from error


def _first_demo_voice() -> str:
    from engine.store import Store, default_data_folder

    with Store(default_data_folder()) as store:
        for record in store.voices():
            if record.builtin:
                return record.name
    raise StoreError("The demo voices are missing.", hint="Install AutoVoice again; autovoice doctor tells more.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(
            f"The folder “{folder}” cannot be made: {(error.strerror or str(error)).lower()}.",
            hint="Choose another place.",
        ) from error


def _ending_like(song: Path) -> str:
    from engine.signal import WRITABLE_ENDINGS

    ending = song.suffix.lower().removeprefix(".")
    return ending if ending in WRITABLE_ENDINGS else "flac"


def _semitones(text: str) -> float:
    value = float(text)
    if not -24 <= value <= 24:
        raise argparse.ArgumentTypeError("must lie between -24 and 24")
    return value


def _transpose(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return _semitones(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be 'auto' or a number of semitones") from error
