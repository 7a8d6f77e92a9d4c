"""The command line: one module per group of commands, all on the engine's own calls."""

import argparse
import contextlib
import importlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from engine.errors import AutoVoiceError, Cancelled
from engine.jobs import JobContext

# Command -> module of this package that defines `add_parser(subparsers)`; imported only when needed, so that
# `autovoice` without a command opens the window fast.
COMMANDS: dict[str, str] = {
    "convert": "convert",
    "demo": "convert",
    "devices": "devices",
    "live": "live",
    "separate": "separate",
    "models": "models",
    "bench": "bench",
    "voice": "voice",
    "doctor": "doctor",
}


STOPPED = 130  # the exit code after Ctrl-C, as shells have it


class UsageError(Exception):
    """Arguments that parse but make no sense together; leads to exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after the program's name; None takes them from sys.argv.

    Returns:
        The exit code: 0, 1 after a failure told in one sentence, 2 for wrong arguments, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0] not in COMMANDS and not words[0].startswith("-")):
        return _open_window(words)
    parser: argparse.ArgumentParser | None = None
    try:
        parser = _build_parser(words[0])
        options = parser.parse_args(words)
        run: Callable[[argparse.Namespace], int | None] = options.run
        return run(options) or 0
    except UsageError as error:
        assert parser is not None
        parser.error(str(error))
    except AutoVoiceError as error:
        print_failure(error)
        return 1
    except (KeyboardInterrupt, Cancelled):
        print("Stopped.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - a bug of ours: no traceback in the terminal, but in a file
        print_failure(_keep_traceback(error))
        return 1


def start() -> NoReturn:
    """The program's entry: run the words of the command line and leave the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every system's text holds every name of a file or voice
            stream.reconfigure(errors="backslashreplace")
    code = main()
    if code == STOPPED:  # taking PyTorch down in good order costs a second that Ctrl-C does not have
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _keep_traceback(error: Exception) -> AutoVoiceError:
    from engine.store import default_data_folder

    log = default_data_folder() / "logs" / "last-error.txt"
    text = "".join(traceback.format_exception(error))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text, encoding="utf-8")
        hint = f"This is a bug; please report it with the file {log}."
    except OSError:
        hint = f"This is a bug; please report it. It happened in {text.strip().splitlines()[-2].strip()}"
    return AutoVoiceError(f"Something unexpected went wrong: {type(error).__name__}: {error}.", hint=hint)


def print_failure(error: AutoVoiceError) -> None:
    """Write a failure's sentence and hint to standard error."""
    print(f"autovoice: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Write a value to standard output as indented JSON; beyond ASCII only where that is UTF-8."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    json.dump(value, sys.stdout, indent=2, ensure_ascii=not is_utf8)
    print()


def run_with_progress(work: Callable[[JobContext], Any], *, quiet: bool = False, preload: Sequence[str] = ()) -> Any:
    """Run a job in a thread of its own, showing its progress; Ctrl-C cancels it.

    A job that does not stop within 0.8 s, or a second Ctrl-C, ends the process on the spot, after the unfinished files
    are removed.

    Args:
        work: Called with the job's context; its result is returned, its exception raised here.
        quiet: Show nothing.
        preload: Modules to import first. While they load, Python cannot run its own handlers (a big library holds
            the interpreter for seconds), so Ctrl-C then simply ends the process: nothing was written yet.

    Returns:
        What the work returned.

    Raises:
        Cancelled: Ctrl-C was pressed.
    """
    ctx = JobContext()
    outcome: dict[str, Any] = {}

    def target() -> None:
        try:
            outcome["value"] = work(ctx)
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread and raised there
            outcome["error"] = error

    bar = _ProgressBar(sys.stderr, quiet=quiet)
    with _signals(signal.SIG_DFL):
        for name in preload:
            bar.announce("Loading")
            importlib.import_module(name)
    stopped_at: list[float] = []

    def stop(_signal: int, _frame: object) -> None:
        ctx.cancel()
        if stopped_at:
            _leave_at_once(bar)
        stopped_at.append(time.monotonic())

    # A daemon, so that leaving the process never waits for it.
    thread = threading.Thread(target=target, name="job", daemon=True)
    try:
        with _signals(stop):
            thread.start()
            while thread.is_alive():
                thread.join(0.05)
                bar.show(ctx)
                if stopped_at and time.monotonic() - stopped_at[0] > 0.8 and thread.is_alive():
                    _leave_at_once(bar)
    finally:
        bar.close()
    for note in () if quiet else ctx.progress.notes:
        print(f"note: {note}", file=sys.stderr)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


@contextlib.contextmanager
def _signals(handler: Any) -> Iterator[None]:
    """Give SIGINT and SIGTERM a handler for a while; only the main thread can, elsewhere nothing changes."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM) if is_main}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _leave_at_once(bar: "_ProgressBar") -> None:
    from engine.signal import remove_part_files

    remove_part_files(for_good=True)
    bar.close()
    print("Stopped.", file=sys.stderr, flush=True)
    os._exit(STOPPED)


class _ProgressBar:
    def __init__(self, stream: TextIO, *, quiet: bool) -> None:
        self._stream, self._quiet = stream, quiet
        self._told: set[str] = set()
        self._is_terminal = stream.isatty()
        if self._is_terminal and os.name == "nt":
            os.system("")  # a console of Windows understands the sequences used here only after this
        self._drawn = False

    def announce(self, text: str) -> None:
        """Show a word before there is any progress; on terminals only."""
        if not self._quiet and self._is_terminal:
            self._stream.write(f"\r\x1b[K{text} ...")
            self._drawn = True
            self._stream.flush()

    def show(self, ctx: JobContext) -> None:
        """Draw the state of a job: a bar on a terminal, one line per stage elsewhere."""
        progress = ctx.progress
        if self._quiet or not progress.stage:
            return
        if self._is_terminal:
            filled = round(30 * progress.fraction)
            bar = "#" * filled + "-" * (30 - filled)
            self._stream.write(f"\r\x1b[K[{bar}] {progress.fraction:4.0%}  {progress.stage}")
            self._drawn = True
        else:  # stages that came and went between two looks are told, too
            for stage in [name for name in ctx.stage_seconds if name not in self._told]:
                percent = f"{progress.fraction:4.0%}" if stage == progress.stage else "    "
                self._stream.write(f"{percent}  {stage}\n")
                self._told.add(stage)
        self._stream.flush()

    def close(self) -> None:
        """Wipe the bar."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _build_parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autovoice", description="Without a command: opens the window, with the given songs."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    names = [command] if command in COMMANDS else list(COMMANDS)
    for module in dict.fromkeys(COMMANDS[name] for name in names):
        importlib.import_module(f"{__name__}.{module}").add_parser(subparsers)
    return parser


def _open_window(words: list[str]) -> int:
    for word in words:
        if not Path(word).exists():
            print(f"autovoice: '{word}' is neither a command nor a file.", file=sys.stderr)
            print(f"  Commands: {', '.join(COMMANDS)}; see autovoice --help.", file=sys.stderr)
            return 2
    from autovoice_app.application import run_window

    return run_window([Path(word) for word in words])
