"""From what the judges heard to the figures of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.bench.judges import Hearing, high_band_db
from engine.bench.speaker_judge import equal_error
from engine.pitch import F0Contour
from engine.quality import PitchFigures, compare_f0
from engine.signal import AudioClip, FloatArray

_ENCODERS = ("independent", "ge2e")


@dataclass
class Conversion:
    """One converted clip, and what the judges say once they have heard it.

    Attributes:
        kind: "speech", "sung", "resynthesis" or "world".
        source_name: Name of the source clip.
        source_speaker: Who speaks or sings in it.
        target: Whose voice it should be.
        source: [1, N].
        converted: [1, N'], same duration; None for the WORLD conversion, which is heard and forgotten.
        wanted: The contour that the converter was given; None for the WORLD conversion, which has its own.
        semitones: How far the wanted contour was moved.
    """

    kind: str
    source_name: str
    source_speaker: str
    target: str
    source: AudioClip
    converted: AudioClip | None
    wanted: F0Contour | None
    semitones: float
    hearing: Hearing | None = None
    source_hearing: Hearing | None = None
    target_embedding: tuple[FloatArray, FloatArray] | None = None
    source_embedding: tuple[FloatArray, FloatArray] | None = None

    def cosines(self, encoder: str) -> tuple[float, float]:
        """(to the target, to the source) by one encoder."""
        hearing, _source = self._heard()
        if self.target_embedding is None or self.source_embedding is None:
            raise RuntimeError("the clip was not judged yet")
        index = _ENCODERS.index(encoder)
        mine = (hearing.independent, hearing.ge2e)[index]
        return float(mine @ self.target_embedding[index]), float(mine @ self.source_embedding[index])

    def margin(self, encoder: str) -> float:
        """How much closer it is to the target than to the source."""
        to_target, to_source = self.cosines(encoder)
        return to_target - to_source

    @property
    def pitch(self) -> PitchFigures:
        """The conversion's pitch by the judge's tracker against the wanted contour."""
        hearing, source_hearing = self._heard()
        return compare_f0(self.wanted or source_hearing.f0, hearing.f0)

    @property
    def voicing_errors(self) -> float:
        """Share of frames that the judge's tracker calls voiced in only one of source and conversion."""
        hearing, source_hearing = self._heard()
        return compare_f0(source_hearing.f0, hearing.f0).voicing_errors

    def summary(self) -> dict[str, Any]:
        """This clip's figures, rounded."""
        hearing, _source = self._heard()
        to_target, to_source = self.cosines("independent")
        return {
            "source": self.source_speaker,
            "target": self.target,
            "semitones": round(self.semitones, 1),
            "independent_to_target": round(to_target, 3),
            "independent_to_source": round(to_source, 3),
            "ge2e_to_target": round(self.cosines("ge2e")[0], 3),
            "dnsmos": round(hearing.dnsmos, 2),
            "f0_rmse_cents": _rounded(self.pitch.rmse_cents, 1),
            "voicing_errors_percent": round(100 * self.voicing_errors, 1),
        }

    def _heard(self) -> tuple[Hearing, Hearing]:
        if self.hearing is None or self.source_hearing is None:
            raise RuntimeError("the clip was not judged yet")
        return self.hearing, self.source_hearing


def conversion_figures(conversions: Sequence[Conversion], thresholds: Mapping[str, float]) -> dict[str, Any]:
    """Figures of one kind of conversions.

    Args:
        conversions: Judged ones.
        thresholds: Of each encoder at its equal-error rate.
    """
    if not conversions:
        return {"clips": 0}
    figures: dict[str, Any] = {"clips": len(conversions)}
    for encoder in _ENCODERS:
        cosines = np.array([c.cosines(encoder) for c in conversions])
        threshold = thresholds[encoder]
        accepted = (cosines[:, 0] >= threshold) & (cosines[:, 1] < threshold)
        figures[encoder] = {
            "closer_to_target_percent": _percent(cosines[:, 0] > cosines[:, 1]),
            "accepted_as_target_percent": _percent(cosines[:, 0] >= threshold),
            "accepted_and_source_rejected_percent": _percent(accepted),
            "cosine_to_target": spread(cosines[:, 0], worst="low"),
            "cosine_to_source": spread(cosines[:, 1], worst="high"),
        }
    figures["words"] = word_figures([(c.hearing, c.source_hearing) for c in conversions])
    figures["dnsmos"] = spread([c.hearing.dnsmos for c in conversions if c.hearing], worst="low")
    figures["voicing_errors_percent"] = spread([100 * c.voicing_errors for c in conversions], worst="high")
    pitch = [c.pitch for c in conversions if c.wanted is not None]
    if pitch:
        figures["f0_rmse_hz"] = spread([p.rmse_hz for p in pitch], worst="high")
        figures["f0_rmse_cents"] = spread([p.rmse_cents for p in pitch], worst="high")
        figures["f0_correlation"] = spread([p.correlation for p in pitch], worst="low")
        figures["f0_slips_percent"] = spread([100 * p.slips for p in pitch], worst="high")
    high = [level for c in conversions if c.converted and (level := high_band_db(c.converted)) is not None]
    if high:
        figures["high_band_db"] = spread(high, worst="low")
    return figures


def recording_figures(
    heard: Sequence[tuple[str, Hearing]], enrolled: Mapping[str, tuple[FloatArray, FloatArray]]
) -> dict[str, Any]:
    """The same judges on untouched recordings: the ceiling.

    Args:
        heard: (speaker, hearing) of each recording.
        enrolled: Embeddings by speaker; speakers that are not in it get no cosine.
    """
    if not heard:
        return {"clips": 0}
    figures: dict[str, Any] = {"clips": len(heard)}
    for index, encoder in enumerate(_ENCODERS):
        cosines = [
            float((hearing.independent, hearing.ge2e)[index] @ enrolled[name][index])
            for name, hearing in heard
            if name in enrolled
        ]
        if cosines:
            figures[encoder] = {"cosine_to_target": spread(cosines, worst="low")}
    figures["words"] = word_figures([(hearing, hearing) for _name, hearing in heard])
    figures["dnsmos"] = spread([hearing.dnsmos for _name, hearing in heard], worst="low")
    return figures


def judge_figures(
    trials: Sequence[tuple[str, tuple[FloatArray, FloatArray]]],
    enrolled: Mapping[str, tuple[FloatArray, FloatArray]],
) -> dict[str, Any]:
    """How well the encoders themselves tell the dev speakers apart.

    Args:
        trials: (speaker, embeddings) of held-out recordings.
        enrolled: Embeddings of every speaker's enrolment.
    """
    figures = {}
    for index, encoder in enumerate(_ENCODERS):
        scores = [(name == other, float(e[index] @ r[index])) for name, e in trials for other, r in enrolled.items()]
        rate, threshold = equal_error([s for same, s in scores if same], [s for same, s in scores if not same])
        figures[encoder] = {
            "equal_error_percent": round(100 * rate, 2),
            "threshold": round(threshold, 4),
            "trials": len(scores),
        }
    return figures


def word_figures(heard: Sequence[tuple[Hearing | None, Hearing | None]]) -> dict[str, Any] | None:
    """Word errors over all words of (conversion, source) pairs with a text; None without any."""
    counted = [(c.words, s.words) for c, s in heard if c and s and c.words and s.words]
    words = sum(c.words for c, _s in counted)
    if not words:
        return None
    converted = 100.0 * sum(c.errors for c, _s in counted) / words
    source = 100.0 * sum(s.errors for _c, s in counted) / words
    return {
        "words": words,
        "converted_percent": round(converted, 1),
        "source_percent": round(source, 1),
        "added_points": round(converted - source, 1),
    }


def spread(values: Sequence[float | None] | npt.NDArray[np.float64], *, worst: str) -> dict[str, float] | None:
    """Median and the border of the worst tenth; None values are left out.

    Args:
        values: One a clip.
        worst: "low" or "high": which end is bad.
    """
    present = np.array([v for v in values if v is not None], np.float64)
    if not present.size:
        return None
    tenth = np.percentile(present, 10 if worst == "low" else 90)
    return {"median": round(float(np.median(present)), 4), "worst_tenth": round(float(tenth), 4)}


def _percent(flags: npt.NDArray[np.bool_]) -> float:
    return round(100.0 * float(np.mean(flags)), 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
