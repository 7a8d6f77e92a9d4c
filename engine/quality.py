"""How good a conversion is: pitch against the wanted contour, loudness against the source, likeness to the voice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.conversion.voice import Voice
from engine.jobs import JobContext
from engine.pitch import F0Contour, estimate_f0
from engine.signal import AudioClip, FloatArray, integrated_lufs

_SLIP_CENTS = 600.0  # further off than half an octave is a tracker's octave slip or a failed frame, not detuning


@dataclass(frozen=True)
class PitchFigures:
    """One F0 contour against another, on the frames of the wanted one.

    Attributes:
        rmse_hz: Over frames voiced in both and less than half an octave apart; None without any.
        rmse_cents: The same in cents.
        median_cents: Median signed deviation, measured less wanted: a constant detuning shows here.
        correlation: Pearson's, of the two contours in Hz over the same frames; None below two frames or when either
            contour is constant.
        slips: Share of the frames voiced in both that are half an octave or more apart.
        voicing_errors: Share of all frames that only one of the contours calls voiced.
        voiced_frames: Frames voiced in both.
    """

    rmse_hz: float | None
    rmse_cents: float | None
    median_cents: float | None
    correlation: float | None
    slips: float
    voicing_errors: float
    voiced_frames: int


@dataclass(frozen=True)
class ConversionQuality:
    """Figures of one conversion, for the report of a render.

    Attributes:
        pitch: The converted voice's F0 against the wanted contour.
        source_lufs: Integrated loudness of the source; None for silence.
        converted_lufs: Integrated loudness of the conversion; None for silence.
        similarity: Cosine of the speaker encoder between the conversion and the voice; None for silence.
        source_similarity: The same between the conversion and the source: what is left of the singer.
    """

    pitch: PitchFigures
    source_lufs: float | None
    converted_lufs: float | None
    similarity: float | None
    source_similarity: float | None


def compare_f0(wanted: F0Contour, measured: F0Contour) -> PitchFigures:
    """Compare a measured contour with the wanted one.

    Args:
        wanted: The reference; its frames are the ones that count.
        measured: Taken at the nearest frame in time; frames past its end count as unvoiced.

    Returns:
        The figures; with `voiced_frames` of 0 most are None.
    """
    measured_hz = _at_times(measured, wanted.times_s)
    return compare_f0_values(wanted.f0_hz, measured_hz)


def compare_f0_values(wanted_hz: npt.ArrayLike, measured_hz: npt.ArrayLike) -> PitchFigures:
    """Compare F0 values on one grid.

    Args:
        wanted_hz: [T], Hz, NaN where unvoiced.
        measured_hz: [T], Hz, NaN where unvoiced.

    Raises:
        ValueError: The shapes differ.
    """
    wanted, measured = np.asarray(wanted_hz, np.float64), np.asarray(measured_hz, np.float64)
    if wanted.shape != measured.shape or wanted.ndim != 1:
        raise ValueError(f"contours must be [T] on one grid, not {wanted.shape} and {measured.shape}")
    wanted_voiced, measured_voiced = np.isfinite(wanted), np.isfinite(measured)
    both = wanted_voiced & measured_voiced
    voicing_errors = float(np.mean(wanted_voiced != measured_voiced)) if wanted.size else 0.0
    cents = 1200.0 * np.log2(measured[both] / wanted[both])
    close = np.abs(cents) < _SLIP_CENTS
    slips = float(np.mean(~close)) if close.size else 0.0
    if not close.any():
        return PitchFigures(None, None, None, None, slips, voicing_errors, int(both.sum()))
    a, b, cents = wanted[both][close], measured[both][close], cents[close]
    return PitchFigures(
        rmse_hz=float(np.sqrt(np.mean((b - a) ** 2))),
        rmse_cents=float(np.sqrt(np.mean(cents**2))),
        median_cents=float(np.median(cents)),
        correlation=_correlation(a, b),
        slips=slips,
        voicing_errors=voicing_errors,
        voiced_frames=int(both.sum()),
    )


def assess_conversion(
    source: AudioClip,
    converted: AudioClip,
    wanted: F0Contour,
    voice: Voice,
    *,
    tracker: str = "swift",
    ctx: JobContext | None = None,
) -> ConversionQuality:
    """Measure one finished conversion.

    Args:
        source: The singer's voice, any rate; only its first channel's mean counts.
        converted: The conversion of it, any rate, same duration.
        wanted: The contour that the conversion should follow (already transposed).
        voice: Whose voice it should be.
        tracker: Name of the F0 tracker that listens to the conversion.
        ctx: Progress and cancellation.
    """
    from engine.conversion import similarity  # brings PyTorch along

    ctx = ctx or JobContext()
    stage = "Measuring the result"
    ctx.checkpoint(stage, 0.0)
    source, converted = source.mono(), converted.mono()
    measured = estimate_f0(converted, tracker=tracker, ctx=ctx.part(0.0, 0.5))
    ctx.checkpoint(stage, 0.5)
    source_lufs, converted_lufs = loudness_or_none(source), loudness_or_none(converted)
    ctx.checkpoint(stage, 0.7)
    to_voice = to_source = None
    if converted_lufs is not None:
        to_voice = similarity(converted, voice)
        ctx.checkpoint(stage, 0.85)
        to_source = similarity(converted, source) if source_lufs is not None else None
    ctx.checkpoint(stage, 1.0)
    return ConversionQuality(compare_f0(wanted, measured), source_lufs, converted_lufs, to_voice, to_source)


def loudness_or_none(clip: AudioClip) -> float | None:
    """Integrated loudness, LUFS, or None where it has none: silence, or shorter than one gating block of 400 ms."""
    if clip.seconds < 0.4:
        return None
    lufs = float(integrated_lufs(clip))
    return lufs if np.isfinite(lufs) and lufs > -70.0 else None


def _at_times(contour: F0Contour, times_s: npt.NDArray[np.floating[Any]]) -> FloatArray:
    frames = np.rint(times_s / contour.hop_s).astype(np.int64)
    values = np.full(len(frames), np.nan, np.float32)
    inside = frames < len(contour.f0_hz)
    values[inside] = contour.f0_hz[frames[inside]]
    return values


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float | None:
    if len(a) < 2 or a.std() < 1e-9 or b.std() < 1e-9:
        return None
    return float(np.corrcoef(a, b)[0, 1])
