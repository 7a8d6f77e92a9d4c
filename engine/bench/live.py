"""Live conversion without devices: a file block by block, as fast as possible and in real time."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import StoreError
from engine.jobs import JobContext

if TYPE_CHECKING:
    from engine.live import LiveChain
    from engine.signal.clip import FloatArray
    from engine.store import Store, VoiceRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--file", type=Path, help="speech to convert; without it, a synthetic voice")
    parser.add_argument("--voice", metavar="NAME", help="a stored voice; without it, the first built-in one")
    parser.add_argument("--block", type=_block, default="auto", metavar="MS|auto", help="5 to 40 ms; auto measures")
    parser.add_argument("--seconds", type=float, default=10.0, help="how much of the file, twice (default 10)")


def _block(word: str) -> float | str:
    if word != "auto" and not 5 <= float(word) <= 40:
        raise argparse.ArgumentTypeError("must be 5 to 40 ms, or 'auto'")
    return word if word == "auto" else float(word)


def run(options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    """Measure computing times, latency and silence."""
    from engine.conversion import load_converter
    from engine.live import SAMPLE_RATE, BlockMeasurement, LiveChain, measure_blocks, warm_up
    from engine.live.measuring import work_signal
    from engine.live.priority import hurried_thread
    from engine.models import lease, one_torch_thread
    from engine.signal import read_audio, resample
    from engine.store import Store, default_data_folder

    with Store(default_data_folder()) as store:
        record = choose_voice(store, options.voice)
        voice = store.load_voice(record)
    if options.file:
        samples = resample(read_audio(options.file, max_seconds=options.seconds).mono(), SAMPLE_RATE).samples[0]
    else:
        samples = work_signal(options.seconds)
    ctx.checkpoint("Loading the models", 0.0)
    with lease():
        converter = load_converter("live")
    with lease(), one_torch_thread(), hurried_thread():
        chain = LiveChain(converter.stream(voice), voice.median_f0_hz)
        warm_up(chain.push)
        measurements: Sequence[BlockMeasurement] = ()
        block_ms = options.block
        if block_ms == "auto":
            ctx.checkpoint("Measuring blocks", 0.1)
            measurements = measure_blocks(chain.push)
            block_ms = measurements[-1].block_ms
        fast = _feed(chain, samples, block_ms, ctx.part(0.2, 0.5), paced=False)
        paced = _feed(chain, samples, block_ms, ctx.part(0.5, 1.0), paced=True)
        chain.stream.reset()
        quiet = [chain.push(np.zeros(480, dtype=np.float32)).converted for _ in range(200)]
    silence = float(np.abs(np.concatenate(quiet)[SAMPLE_RATE:]).max())
    return {
        "voice": record.name,
        "seconds": len(samples) / SAMPLE_RATE,
        "block_ms": block_ms,
        "block_measurements": [vars(measurement) for measurement in measurements],
        "as_fast_as_possible": fast,
        "real_time": paced,
        "latency_ms": {
            "algorithmic": 1000 * chain.latency_samples / SAMPLE_RATE,
            "conversion": 1000 * chain.stream.latency_samples / SAMPLE_RATE,
            "block": block_ms,
            "computing": paced["median_ms"],
            "sum": 1000 * chain.latency_samples / SAMPLE_RATE + block_ms + paced["median_ms"],
        },
        "silence_dbfs": round(20 * float(np.log10(max(silence, 1e-6))), 1),
    }


def choose_voice(store: "Store", name: str | None) -> "VoiceRecord":
    """The voice of that name, or the first there is.

    Raises:
        StoreError: There is none.
    """
    if name:
        return store.voice(name)
    records = store.voices()
    if not records:
        raise StoreError("There is no voice yet.", hint="Make one with `autovoice voice add`, or name one by --voice.")
    return records[0]


def summarise(figures: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [f"block {figures['block_ms']:g} ms, algorithmic delay {figures['latency_ms']['algorithmic']:.1f} ms"]
    for key, name in (("as_fast_as_possible", "as fast as possible"), ("real_time", "in real time")):
        row = figures[key]
        lines.append(
            f"{name}: real-time factor median {row['rtf_median']:.2f}, p99 {row['rtf_p99']:.2f}, "
            f"max {row['rtf_max']:.2f}; {row['late_blocks']} of {row['blocks']} blocks late"
        )
    lines.append(f"silence in: {figures['silence_dbfs']:.0f} dBFS out")
    return "\n".join(lines)


def _feed(
    chain: "LiveChain", samples: "FloatArray", block_ms: float, ctx: JobContext, *, paced: bool
) -> dict[str, Any]:
    from engine.live import SAMPLE_RATE, BlockTimes

    size, times, late = round(block_ms * SAMPLE_RATE / 1000), BlockTimes(), 0
    began = time.perf_counter()
    for number, start in enumerate(range(0, len(samples) - size + 1, size)):
        if number % 10 == 0:
            ctx.checkpoint("Converting in real time" if paced else "Converting", start / len(samples))
        due = began + (number + 1) * block_ms / 1000
        if paced:
            time.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        chain.push(samples[start : start + size])
        finished = time.perf_counter()
        times.add(1000 * (finished - started))
        late += paced and finished > due + block_ms / 1000
    return {
        "blocks": times.count,
        "late_blocks": int(late),
        "median_ms": times.percentile_ms(50),
        "p99_ms": times.percentile_ms(99),
        "max_ms": times.max_ms,
        "rtf_median": times.percentile_ms(50) / block_ms,
        "rtf_p99": times.percentile_ms(99) / block_ms,
        "rtf_max": times.max_ms / block_ms,
    }
