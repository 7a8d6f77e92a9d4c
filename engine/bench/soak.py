"""A long run of live conversion on a private sound server, beside a plain passthrough: xruns, delay, memory."""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.jobs import JobContext

if TYPE_CHECKING:
    from engine.bench.roundtrip import PrivatePulse
    from engine.live import LiveVoice, VoiceStream

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--voice", metavar="NAME", help="a stored voice; without it, the first built-in one")
    parser.add_argument("--file", type=Path, help="speech to play over and over; without it, a synthetic voice")
    parser.add_argument("--block", type=float, metavar="MS", help="5 to 40 ms; without it, measured")


def run(options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    """Run it with the shipped live models."""
    from engine.bench.live import choose_voice
    from engine.bench.roundtrip import RATE, PrivatePulse
    from engine.conversion import load_converter
    from engine.live import LiveVoice
    from engine.signal import read_audio, resample
    from engine.store import Store, default_data_folder

    with Store(default_data_folder()) as store:
        voice = store.load_voice(choose_voice(store, options.voice))
    samples = None
    if options.file:
        samples = resample(read_audio(options.file, max_seconds=120.0).mono(), RATE).samples[0]
    with PrivatePulse() as server:
        return soak(
            server,
            lambda: load_converter("live").stream(voice),
            LiveVoice(voice, voice.median_f0_hz),
            seconds=60 * options.minutes,
            block_ms=options.block or "auto",
            samples=samples,
            ctx=ctx,
        )


def soak(
    server: "PrivatePulse",
    make_stream: "Callable[[], VoiceStream]",
    voice: "LiveVoice",
    *,
    seconds: float,
    window_s: float = 60.0,
    block_ms: Any = "auto",
    samples: Any = None,
    ctx: JobContext | None = None,
) -> dict[str, Any]:
    """Run live conversion and a passthrough side by side.

    Some of the dry voice is mixed in (as late as the converted one), because the delay is measured from it.

    Args:
        server: With its sinks free.
        make_stream: Gives the conversion stream.
        voice: Who to convert to.
        seconds: From settling to the end.
        window_s: Length of the first and the last window, in which delay and memory are measured.
        block_ms: See `LiveOptions`.
        samples: What is played over and over, [N] at 48 kHz; None for a synthetic voice.
        ctx: For progress.

    Returns:
        Figures that JSON can hold.
    """
    from engine.bench.roundtrip import MICROPHONE, RATE, SPEAKERS, Listener, Passthrough
    from engine.devices import system_devices
    from engine.live import LiveOptions, LiveSession, LiveSettings, LiveState, session_stats

    system_devices().devices(refresh=True)
    session = LiveSession(
        system_devices(),
        lambda _voice: make_stream(),
        voice,
        LiveOptions(input_device=MICROPHONE, output_device=SPEAKERS, block_ms=block_ms),
        LiveSettings(wet=0.6),
    )
    with tempfile.TemporaryDirectory() as name:
        listener = Listener(_play_signal() if samples is None else samples, Path(name))
        passthrough = None
        windows, memory_mb = [], []
        try:
            session.start()
            while session.snapshot.state is not LiveState.LIVE:
                time.sleep(0.05)
                if not session.is_running:
                    raise session.snapshot.error or RuntimeError("live conversion did not start")
            passthrough = Passthrough(round(session.snapshot.block_ms * RATE / 1000))
            time.sleep(2.0)  # a stream that joins makes the server stumble; that counts for neither
            before = session.snapshot.counts
            began = time.monotonic()
            for end in (window_s, seconds):
                while (left := began + end - time.monotonic()) > 0:
                    if ctx:
                        ctx.checkpoint("Running live beside a passthrough", 1 - (left + seconds - end) / seconds)
                    time.sleep(min(left, 0.2))
                windows.append(_delays(listener.heard(window_s)))
                memory_mb.append(_memory_mb())
            last = session.snapshot
            stats = session_stats(session, last)
        finally:
            listener.close()
            session.stop()
            passthrough_xruns = passthrough.close() if passthrough else 0
    added = [_difference(window["live_ms"], window["passthrough_ms"]) for window in windows]
    return {
        "seconds": seconds,
        "live": stats,
        "live_xruns": last.counts.xruns - before.xruns,
        "passthrough": {"xruns": passthrough_xruns},
        "windows": windows,
        "memory_mb": memory_mb,
        "added_ms": added,
        "stated_ms": stats["latency_ms"]["sum"],
        "delay_drift_ms": _difference(windows[-1]["live_ms"], windows[0]["live_ms"]),
        "passthrough_drift_ms": _difference(windows[-1]["passthrough_ms"], windows[0]["passthrough_ms"]),
        "memory_growth_mb": round(memory_mb[-1] - memory_mb[0], 1),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else round(value - base, 2)


def summarise(figures: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    live, factor = figures["live"], figures["live"]["real_time_factor"]
    return "\n".join(
        (
            f"{figures['seconds'] / 60:.1f} minutes, block {live['block_ms']:g} ms",
            f"xruns: live {figures['live_xruns']}, passthrough {figures['passthrough']['xruns']}",
            f"delay: stated {figures['stated_ms']} ms, measured {figures['windows'][-1]['live_ms']} ms",
            f"added to the passthrough's: {figures['added_ms'][0]} ms at first, {figures['added_ms'][-1]} ms at last",
            f"drift from the first window to the last: {figures['delay_drift_ms']} ms "
            f"(passthrough {figures['passthrough_drift_ms']} ms)",
            f"real-time factor: median {factor['median']:.2f}, p99 {factor['p99']:.2f}, max {factor['max']:.2f}",
            f"memory growth {figures['memory_growth_mb']:.1f} MB",
        )
    )


def table_rows(figures: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """What README shows of a report."""
    live, factor = figures["live"], figures["live"]["real_time_factor"]
    first, last = figures["added_ms"]
    return [
        ("Minutes / block", f"{figures['seconds'] / 60:.0f} / {live['block_ms']:g} ms"),
        ("Xruns: live / passthrough", f"{figures['live_xruns']} / {figures['passthrough']['xruns']}"),
        ("Delay added to the passthrough's, first / last minute", f"{first:.1f} / {last:.1f} ms"),
        ("Drift of the delay", f"{figures['delay_drift_ms']:.1f} ms"),
        ("Real-time factor: median / p99", f"{factor['median']:.2f} / {factor['p99']:.2f}"),
        ("Growth of memory", f"{figures['memory_growth_mb']:.0f} MB"),
    ]


def _delays(heard: dict[str, Any]) -> dict[str, float | None]:
    from engine.bench.roundtrip import RATE, delay_ms

    mic = heard["mic"]
    seconds = len(mic) / RATE
    starts = np.linspace(0.2, seconds - 1.8, max(3, int(seconds / 4)))
    medians: dict[str, float | None] = {}
    for name, sink in (("live_ms", "speakers"), ("passthrough_ms", "passed")):
        found = [delay_ms(mic, heard[sink], start_s=float(start), seconds=1.0) for start in starts]
        found = [delay for delay in found if np.isfinite(delay)]
        medians[name] = round(float(np.median(found)), 2) if found else None
    return medians


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE_BYTES / 1e6


def _play_signal() -> Any:
    from engine.live.measuring import work_signal

    signal = work_signal(20.0)
    breath = 0.01 * np.random.default_rng(3).standard_normal(len(signal))  # makes the delay sharp
    return (2 * signal + breath).astype(np.float32)
