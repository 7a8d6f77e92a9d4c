"""`autovoice live`: speak into the microphone, come out as someone else."""

import argparse
import json
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovoice_app.cli import UsageError
from engine.errors import AutoVoiceError

if TYPE_CHECKING:
    from engine.live import LiveSession, LiveSnapshot

_TURN_S = 0.1


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("live", help="convert the microphone as you speak; Ctrl-C ends it")
    parser.add_argument("--voice", required=True, metavar="NAME", help="whose voice comes out")
    parser.add_argument("--input", metavar="DEV", help="microphone: id, name or part of a name; see `devices`")
    parser.add_argument("--output", metavar="DEV", help="where the converted voice is played")
    parser.add_argument("--monitor", metavar="DEV", help="a second device that plays the same")
    parser.add_argument("--input-channel", type=_channel, default=1, metavar="N|mix", help="recorded channel, from 1")
    parser.add_argument("--input-rate", type=int, metavar="HZ", help="the microphone's rate, if not its own")
    parser.add_argument("--output-rate", type=int, metavar="HZ", help="the output's rate, if not its own")
    parser.add_argument("--block", type=_block, default="auto", metavar="MS|auto", help="5 to 40 ms; auto measures")
    parser.add_argument("--transpose", type=_transpose, default="auto", metavar="auto|N", help="semitones, -12 to 12")
    parser.add_argument("--formant", type=float, default=0.0, metavar="N", help="move the resonances by N semitones")
    parser.add_argument("--gate", type=_gate, default=-50.0, metavar="DBFS|off", help="level that opens the gate")
    parser.add_argument("--denoise", action="store_true", help="lower steady noise; adds 10 ms")
    parser.add_argument("--input-gain", type=float, default=0.0, metavar="DB")
    parser.add_argument("--output-gain", type=float, default=0.0, metavar="DB")
    parser.add_argument("--bypass", action="store_true", help="play the dry voice, as late as the converted")
    parser.add_argument("--record", type=Path, metavar="FILE.flac", help="record; the dry voice goes to FILE-dry.flac")
    parser.add_argument("--seconds", type=float, metavar="N", help="end by itself after N seconds")
    parser.add_argument("--stats", type=Path, metavar="FILE.json", help="write figures at the end")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert until Ctrl-C or the given time."""
    from engine.conversion import load_converter
    from engine.devices import system_devices
    from engine.live import LiveOptions, LiveSession, LiveSettings, LiveVoice
    from engine.store import Store, default_data_folder

    if options.seconds is not None and options.seconds <= 0:
        raise UsageError("--seconds must be above 0")
    with Store(default_data_folder()) as store:
        voice = store.load_voice(store.voice(options.voice))
    session = LiveSession(
        system_devices(),
        lambda wanted: load_converter("live").stream(wanted),
        LiveVoice(voice, voice.median_f0_hz),
        LiveOptions(
            input_device=options.input,
            output_device=options.output,
            monitor_device=options.monitor,
            input_channel=options.input_channel - 1 if options.input_channel else None,
            input_rate=options.input_rate,
            output_rate=options.output_rate,
            block_ms=options.block,
            record=options.record,
        ),
        LiveSettings(
            input_gain_db=options.input_gain,
            output_gain_db=options.output_gain,
            noise_suppression=options.denoise,
            gate_enabled=options.gate is not None,
            gate_threshold_dbfs=options.gate if options.gate is not None else -50.0,
            transpose=options.transpose,
            formant_semitones=options.formant,
            bypassed=options.bypass,
        ),
    )
    return _run_session(session, options)


def _run_session(session: "LiveSession", options: argparse.Namespace) -> int:
    from engine.live import LiveState, session_stats

    stopped = threading.Event()
    handlers = {s: signal.signal(s, lambda *_: stopped.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    last = session.snapshot
    line = _StatusLine()
    try:
        session.start()
        while not stopped.wait(_TURN_S) and session.is_running:
            snapshot = session.snapshot
            line.show(snapshot)
            if snapshot.state is LiveState.LIVE:
                last = snapshot
                if options.seconds is not None and snapshot.seconds >= options.seconds:
                    break
        session.stop()
    finally:
        line.close()
        session.stop()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    end = session.snapshot
    if last.state is LiveState.LIVE:
        stats = session_stats(session, last)
        _print_summary(stats)
        if options.stats:
            _write_json(options.stats, stats)
    if end.error is not None and end.state is LiveState.FAILED:
        raise end.error
    if end.notice is not None:
        raise end.notice
    return 0


class _StatusLine:
    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said = ""

    def show(self, snapshot: "LiveSnapshot") -> None:
        from engine.live import LiveState

        if snapshot.state is LiveState.LIVE and self._is_terminal:
            pitch = f"{snapshot.source_f0_hz:5.0f} Hz" if math.isfinite(snapshot.source_f0_hz) else "    -   "
            sys.stderr.write(
                f"\r\x1b[KLIVE  in {snapshot.input_peak_dbfs:4.0f} dBFS  out {snapshot.output_peak_dbfs:4.0f} dBFS  "
                f"{pitch}  {snapshot.transpose_semitones:+.1f} st  delay {snapshot.latency.total:.0f} ms  "
                f"block {snapshot.block_ms:g} ms  load {snapshot.rtf_p99:.0%}  xruns {snapshot.counts.xruns}"
            )
            self._said = ""
        else:
            text = "Live." if snapshot.state is LiveState.LIVE else snapshot.message
            if text and text != self._said:
                sys.stderr.write(f"{chr(13) + chr(27) + '[K' if self._is_terminal else ''}{text}\n")
            self._said = text
        sys.stderr.flush()

    def close(self) -> None:
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")


def _print_summary(stats: dict[str, Any]) -> None:
    delay, factor = stats["latency_ms"], stats["real_time_factor"]
    print(f"{stats['seconds']:.1f} s live, block {stats['block_ms']:g} ms, {stats['xruns']} xruns")
    print(f"delay {delay['sum']:.0f} ms, of which conversion {delay['algorithmic']:.0f} ms")
    print(f"real-time factor: median {factor['median']:.2f}, p99 {factor['p99']:.2f}, max {factor['max']:.2f}")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise AutoVoiceError(
            f"The figures could not be written to {path}.", hint=error.strerror or "Choose another folder."
        ) from error


def _channel(word: str) -> int:
    """1, 2, ...; 0 stands for the mean of the first two."""
    if word == "mix":
        return 0
    channel = int(word)
    if channel < 1:
        raise argparse.ArgumentTypeError("must be 1 or more, or 'mix'")
    return channel


def _block(word: str) -> float | str:
    if word == "auto":
        return word
    block = float(word)
    if not 5 <= block <= 40:
        raise argparse.ArgumentTypeError("must be 5 to 40 ms, or 'auto'")
    return block


def _transpose(word: str) -> float | str:
    if word == "auto":
        return word
    semitones = float(word)
    if not -12 <= semitones <= 12:
        raise argparse.ArgumentTypeError("must be -12 to 12 semitones, or 'auto'")
    return semitones


def _gate(word: str) -> float | None:
    return None if word == "off" else float(word)
