"""How well songs are separated: SI-SDR and SDR of both stems on songs whose stems are known, beside simple references.

References on the same songs: the mixture itself, mid and side (vocals := mid), and the ideal ratio mask, which knows
the stems. SI-SDR after Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019; SDR as in the Music Demixing
Challenge 2021 (energy of the reference over energy of the error, of the whole song); with `--museval` also the median
over seconds of BSS Eval v4's SDR (Stoeter et al., SiSEC 2018).
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.bench.frame import require_extra
from engine.errors import AudioFileError
from engine.jobs import JobContext
from engine.signal import AudioClip, FloatArray, read_audio, write_audio

_MASK_FFT, _MASK_HOP = 4096, 1024
_QUIET_RMS = 10 ** (-60 / 20)
_EPSILON = 1e-12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `autovoice bench separation`."""
    parser.add_argument("--corpus", type=Path, required=True, help="folder with songs/dev/NAME/vocals.* and so on")
    parser.add_argument("--model", default="embedded", help="embedded, the name of an installed one, or a file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--passes", type=int, default=1, help="shifted passes to average (default 1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="only the first S seconds of each song")
    parser.add_argument("--museval", action="store_true", help="also BSS Eval v4 (slow)")


def run(options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    """Separate every song under CORPUS/songs/dev and measure; see the module for what is measured."""
    folders = sorted(path.parent for path in (options.corpus / "songs" / "dev").glob("*/vocals.*"))
    if not folders:
        raise AudioFileError(
            f"There are no songs with stems in '{options.corpus}'.",
            hint="Expected songs/dev/NAME/vocals.opus and accompaniment.opus.",
        )
    songs = {}
    for index, folder in enumerate(folders):
        part = ctx.part(index / len(folders), (index + 1) / len(folders))
        songs[folder.name] = _measure_song(folder, options, part)
    kinds = ("mixture", "mid_side", "separated", "ideal_ratio_mask")
    mean = {
        kind: {
            stem: {
                name: _rounded(np.mean([song[kind][stem][name] for song in songs.values()]))
                for name in songs[folders[0].name][kind][stem]
            }
            for stem in ("vocals", "accompaniment")
        }
        for kind in kinds
    }
    gain = mean["separated"]["vocals"]["si_sdr_db"] - mean["mixture"]["vocals"]["si_sdr_db"]
    return {
        "model": next(iter(songs.values()))["model"],
        "torch_device": next(iter(songs.values()))["torch_device"],
        "passes": options.passes,
        "songs": songs,
        "mean": mean,
        "vocals_si_sdr_gain_db": _rounded(gain),
        "leakage_db": _rounded(np.mean([song["leakage_db"] for song in songs.values()])),
        "real_time_factor": round(float(np.mean([song["real_time_factor"] for song in songs.values()])), 4),
        "peak_memory_mb": max(song["peak_memory_mb"] for song in songs.values()),
    }


def summarise(figures: Mapping[str, Any]) -> str:
    """The table as text."""
    return "\n".join(f"{what}: {value}" for what, value in table_rows(figures))


def table_rows(figures: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """(what, value) for the tables of README and the card."""
    mean = figures["mean"]
    names = {
        "separated": "Separated",
        "mixture": "– the mixture itself",
        "mid_side": "– mid and side",
        "ideal_ratio_mask": "– ideal ratio mask, which knows the stems",
    }
    rows = [
        ("Songs / seconds", f"{len(figures['songs'])} / {sum(s['seconds'] for s in figures['songs'].values()):.0f}"),
        ("Vocals: SI-SDR gain over the mixture", f"{figures['vocals_si_sdr_gain_db']:.1f} dB"),
    ]
    for kind, name in names.items():
        vocals, rest = mean[kind]["vocals"], mean[kind]["accompaniment"]
        values = (
            f"{vocals['si_sdr_db']:.1f} / {vocals['sdr_db']:.1f} / {rest['si_sdr_db']:.1f} / {rest['sdr_db']:.1f} dB"
        )
        rows.append((f"{name}: vocals SI-SDR / SDR / accompaniment SI-SDR / SDR", values))
    rows += [
        ("Leakage where the singer is silent, against the mixture", f"{figures['leakage_db']:.1f} dB"),
        (f"Real-time factor ({figures['torch_device']})", f"{figures['real_time_factor']:.3f}"),
        ("Peak memory of the process", f"{figures['peak_memory_mb']} MB"),
    ]
    return rows


def _measure_song(folder: Path, options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    from engine.separation import separate

    ctx.checkpoint(f"Reading {folder.name}", 0.0)
    with tempfile.TemporaryDirectory() as temporary:
        mixture_path = Path(temporary) / "mixture.wav"
        sample_rate, seconds = _write_mixture(folder, mixture_path, options.seconds)
        warm = read_audio(mixture_path, max_seconds=4.0)  # loads what a second song finds loaded
        separate(warm, Path(temporary) / "warm", model=options.model, torch_device=options.device)
        with PeakMemory() as memory:
            started = time.monotonic()
            stems = separate(
                mixture_path,
                Path(temporary) / "stems",
                model=options.model,
                torch_device=options.device,
                passes=options.passes,
                ctx=ctx.part(0.05, 0.7),
            )
            spent = time.monotonic() - started
        ctx.checkpoint("Measuring", 0.75)
        estimates = read_audio(stems.vocals).samples, read_audio(stems.accompaniment).samples
    references = (
        _stem(folder, "vocals", options.seconds).samples,
        _stem(folder, "accompaniment", options.seconds).samples,
    )
    mixture = references[0] + references[1]
    mid = np.repeat(mixture.mean(axis=0, keepdims=True), len(mixture), axis=0)
    pairs = {
        "mixture": (mixture, mixture),
        "mid_side": (mid, mixture - mid),
        "separated": estimates,
        "ideal_ratio_mask": ideal_ratio_mask(*references),
    }
    result: dict[str, Any] = {
        kind: {
            stem: stem_figures(estimate, reference)
            for stem, estimate, reference in zip(("vocals", "accompaniment"), pair, references, strict=True)
        }
        for kind, pair in pairs.items()
    }
    if options.museval:
        ctx.checkpoint("Measuring with museval", 0.8)
        for stem, value in zip(("vocals", "accompaniment"), _museval(references, estimates, sample_rate), strict=True):
            result["separated"][stem]["museval_sdr_db"] = value
    gain = result["separated"]["vocals"]["si_sdr_db"] - result["mixture"]["vocals"]["si_sdr_db"]
    return {
        "seconds": round(seconds, 2),
        "model": stems.model_ids,
        "torch_device": stems.torch_device,
        "vocals_si_sdr_gain_db": _rounded(gain),
        "leakage_db": leakage_db(estimates[0], references[0], mixture, sample_rate),
        "real_time_factor": round(spent / seconds, 4),
        "peak_memory_mb": round(memory.peak_bytes / 1e6),
        **result,
    }


def _stem(folder: Path, name: str, seconds: float | None) -> AudioClip:
    paths = sorted(folder.glob(f"{name}.*"))
    if not paths:
        raise AudioFileError(f"'{folder.name}' has no {name}.", hint=f"Expected {folder}/{name}.opus.")
    return read_audio(paths[0], max_seconds=seconds)


def _write_mixture(folder: Path, destination: Path, seconds: float | None) -> tuple[int, float]:
    vocals, accompaniment = (_stem(folder, name, seconds) for name in ("vocals", "accompaniment"))
    mixture = AudioClip(vocals.samples + accompaniment.samples, vocals.sample_rate)
    write_audio(destination, mixture, float_samples=True)
    return mixture.sample_rate, mixture.seconds


def stem_figures(estimate: FloatArray, reference: FloatArray) -> dict[str, float]:
    """SI-SDR and SDR of a whole stem, dB; [C, N] each, all channels together."""
    found, wanted = estimate.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    target = (found @ wanted) / (wanted @ wanted + _EPSILON) * wanted
    error, difference = found - target, found - wanted
    return {
        "si_sdr_db": _rounded(10 * np.log10((target @ target + _EPSILON) / (error @ error + _EPSILON))),
        "sdr_db": _rounded(10 * np.log10((wanted @ wanted + _EPSILON) / (difference @ difference + _EPSILON))),
    }


def leakage_db(vocals: FloatArray, reference: FloatArray, mixture: FloatArray, sample_rate: int) -> float:
    """Level of the estimated vocals against the mixture over the half seconds in which the singer is silent, dB."""
    size = sample_rate // 2
    blocks = reference.shape[1] // size
    power = [
        np.square(signal[:, : blocks * size], dtype=np.float64).reshape(len(signal), blocks, size).mean(axis=(0, 2))
        for signal in (vocals, reference, mixture)
    ]
    silent = (power[1] < _QUIET_RMS**2) & (power[2] > _QUIET_RMS**2)
    if not silent.any():
        return 0.0
    return _rounded(10 * np.log10((power[0][silent].sum() + _EPSILON) / power[2][silent].sum()))


def ideal_ratio_mask(vocals: FloatArray, accompaniment: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What the power ratio of the true stems in each bin makes of their sum; both [C, N]."""
    import torch

    window = torch.hann_window(_MASK_FFT)
    results = []
    for voice, rest in zip(torch.from_numpy(vocals), torch.from_numpy(accompaniment), strict=True):
        kind: dict[str, Any] = {"n_fft": _MASK_FFT, "hop_length": _MASK_HOP, "window": window}
        spectra = [torch.stft(signal, return_complex=True, **kind) for signal in (voice, rest)]
        powers = [spectrum.abs().square() for spectrum in spectra]
        masked = (spectra[0] + spectra[1]) * (powers[0] / (powers[0] + powers[1] + _EPSILON))
        results.append(torch.istft(masked, length=len(voice), **kind).numpy())
    found = np.stack(results)
    return found, vocals + accompaniment - found


def _museval(references: Sequence[FloatArray], estimates: Sequence[FloatArray], sample_rate: int) -> list[float]:
    metrics = require_extra("museval.metrics", purpose="BSS Eval figures")
    sdr, *_ = metrics.bss_eval(
        np.stack([signal.T for signal in references]).astype(np.float64),
        np.stack([signal.T for signal in estimates]).astype(np.float64),
        window=sample_rate,
        hop=sample_rate,
        compute_permutation=False,
        framewise_filters=False,
        bsseval_sources_version=False,
    )
    return [_rounded(np.nanmedian(row)) for row in sdr]


class PeakMemory:
    """Highest resident memory of this process while the context lasts, looked up every 50 ms."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._process = require_extra("psutil", purpose="memory figures").Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory")

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, int(self._process.memory_info().rss))
            if self._done.wait(0.05):
                return


def _rounded(value: Any) -> float:
    return round(float(value), 2)
