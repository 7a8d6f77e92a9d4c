"""The voice benchmark's choice of material, its figures and the tables made of them, without models."""

import csv
import json
import random

import numpy as np
import pytest

from engine.bench.figures import Conversion, conversion_figures, judge_figures, recording_figures, spread
from engine.bench.judges import Hearing, WordCount
from engine.bench.tables import fill, main, voice_rows
from engine.bench.voice import ENROLMENT_S, choose_pairs, choose_sung, read_speakers
from engine.errors import AutoVoiceError
from engine.pitch import F0Contour
from engine.signal import AudioClip, write_audio

RATE = 8000


@pytest.fixture
def corpus(tmp_path):
    """Three speakers of whom one has too little, and two sung clips; each file's level says which it is."""
    folder = tmp_path / "dev"
    folder.mkdir()
    rows = []
    for speaker, lengths in {"ann": [3, 20, 20, 4, 8], "bob": [19, 5, 18, 14], "cut": [20, 3]}.items():
        for number, seconds in enumerate(lengths):
            name = f"{speaker}{number}.wav"
            write_audio(folder / name, AudioClip(np.full((1, seconds * RATE), 0.1, np.float32), RATE))
            rows.append([name, "talk", speaker, seconds, f"words of {name}"])
    for name in ("x_adlib", "y_adlib"):
        write_audio(folder / f"{name}.wav", AudioClip(np.full((1, 4 * RATE), 0.1, np.float32), RATE))
        rows.append([f"{name}.wav", "producerspace", name, 4, ""])
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "set", "speaker", "seconds", "text"])
        writer.writerows(rows)
    return tmp_path


def test_enrolment_and_held_out_never_share_an_utterance(corpus):
    speakers = {s.name: s for s in read_speakers(corpus / "dev")}
    assert set(speakers) == {"ann", "bob"}
    assert speakers["ann"].enrolment.seconds == pytest.approx(ENROLMENT_S)
    assert [u.path.stem for u in speakers["ann"].held_out] == ["ann0", "ann3"]
    assert [u.path.stem for u in speakers["bob"].held_out] == ["bob1"]


def test_pairs_cover_all_directions_and_repeat_the_same_way(corpus):
    speakers = read_speakers(corpus / "dev")
    chosen = choose_pairs(speakers, 5, random.Random(1))
    assert {(s.speaker, t) for s, t in chosen[:2]} == {("ann", "bob"), ("bob", "ann")}
    again = choose_pairs(speakers, 5, random.Random(1))
    assert [(s.name, t) for s, t in chosen] == [(s.name, t) for s, t in again]
    assert all(source.text == f"words of {source.name}.wav" for source, _target in chosen)


def test_sung_clips_go_to_spoken_voices(corpus):
    chosen = choose_sung(corpus, ["ann", "bob"], 9, random.Random(1))
    assert {source.name for source, _target in chosen} == {"x_adlib", "y_adlib"}
    assert {target for _source, target in chosen} == {"ann", "bob"}


def test_a_corpus_without_manifest_is_told(tmp_path):
    with pytest.raises(AutoVoiceError, match="manifest"):
        read_speakers(tmp_path)


def unit(*values):
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def hearing(embedding, dnsmos=3.0, errors=1, f0_hz=200.0, unvoiced=0):
    values = np.full(100, f0_hz, np.float32)
    values[:unvoiced] = np.nan
    contour = F0Contour(values, np.ones(100, np.float32), 0.01)
    return Hearing(embedding, embedding, dnsmos, WordCount(errors, 10), contour)


def converted(embedding, *, kind="speech", dnsmos=3.0, errors=2, f0_hz=202.0, unvoiced=0):
    silence = AudioClip(np.zeros((1, 48000), np.float32), 48000)
    wanted = F0Contour(np.full(100, 200.0, np.float32), np.ones(100, np.float32), 0.01)
    target, source = unit(1, 0), unit(0, 1)
    conversion = Conversion(kind, "u", "ann", "bob", silence, silence, None if kind == "world" else wanted, 0.0)
    conversion.hearing = hearing(embedding, dnsmos, errors, f0_hz, unvoiced)
    conversion.source_hearing = hearing(source)
    conversion.target_embedding, conversion.source_embedding = (target, target), (source, source)
    return conversion


def test_figures_of_known_conversions():
    clips = [converted(unit(1, 0.1), dnsmos=3.5), converted(unit(1, 0.8), unvoiced=10), converted(unit(0, 1), errors=5)]
    figures = conversion_figures(clips, {"independent": 0.5, "ge2e": 0.9})
    assert figures["clips"] == 3
    assert figures["independent"]["closer_to_target_percent"] == pytest.approx(66.7)
    assert figures["independent"]["accepted_and_source_rejected_percent"] == pytest.approx(33.3)
    assert figures["ge2e"]["accepted_as_target_percent"] == pytest.approx(33.3)
    assert figures["words"] == {"words": 30, "converted_percent": 30.0, "source_percent": 10.0, "added_points": 20.0}
    assert figures["dnsmos"]["median"] == 3.0
    assert figures["f0_rmse_hz"]["median"] == pytest.approx(2.0, abs=1e-3)
    assert figures["voicing_errors_percent"] == {"median": 0.0, "worst_tenth": 8.0}
    assert "high_band_db" not in figures  # silence has none


def test_no_clips_give_no_figures():
    assert conversion_figures([], {"independent": 0.5, "ge2e": 0.5}) == {"clips": 0}
    assert recording_figures([], {}) == {"clips": 0}
    assert spread([None, None], worst="low") is None


def test_judges_are_judged_by_their_trials():
    enrolled = {"ann": (unit(1, 0), unit(1, 1)), "bob": (unit(0, 1), unit(1, 1))}
    trials = [("ann", (unit(1, 0.2), unit(1, 0))), ("bob", (unit(0.2, 1), unit(0, 1)))]
    figures = judge_figures(trials, enrolled)
    assert figures["independent"]["equal_error_percent"] == 0.0
    assert figures["ge2e"]["equal_error_percent"] == 50.0


@pytest.fixture
def report():
    thresholds = {"independent": 0.5, "ge2e": 0.5}
    group = conversion_figures([converted(unit(1, 0.1))], thresholds)
    heard = [("ann", hearing(unit(1, 0)))]
    enrolled = {"ann": (unit(1, 0), unit(1, 0))}
    return {
        "benchmark": "voice",
        "figures": {
            "model": "studio",
            "enrolment_s": 2.34,
            "speed": {"threads": 2, "rtf_wall": 0.0213, "rtf_cpu": 0.03},
            "vctk_high_band_db": -20.0,
            "speaker_judges": {"independent": {"equal_error_percent": 2.3}, "ge2e": {"equal_error_percent": 3.0}},
            "speech": {**group, "high_band_db": {"median": -21.5, "worst_tenth": -25.0}},
            "sung": conversion_figures([], thresholds),
            "resynthesis": group,
            "world": conversion_figures([converted(unit(0, 1), kind="world")], thresholds),
            "recordings": recording_figures(heard, enrolled),
            "sung_recordings": recording_figures([], {}),
        },
    }


def test_tables_stand_between_their_markers_and_nothing_else_changes(report, tmp_path):
    text = "before\n<!-- table: voice -->\nold\n<!-- end -->\nafter\n"
    filled = fill(text, [report])
    assert filled.startswith("before\n<!-- table: voice -->\n| | studio |\n")
    assert filled.endswith("<!-- end -->\nafter\n")
    assert "| -1.5 |" in filled
    assert "| 0.021 / 0.030 (2) |" in filled
    assert fill(filled, [report]) == filled
    document, source = tmp_path / "README.md", tmp_path / "report.json"
    document.write_text(text, encoding="utf-8")
    source.write_text(json.dumps(report), encoding="utf-8")
    assert main([str(source), "--into", str(document), "--check"]) == 1
    assert main([str(source), "--into", str(document)]) == 0
    assert main([str(source), "--into", str(document), "--check"]) == 0
    assert document.read_text(encoding="utf-8") == filled


def test_rows_of_missing_figures_are_dashes(report):
    rows = dict(voice_rows(report["figures"]))
    assert rows["Sung: F0 correlation"] == "–"
    assert rows["Algorithmic latency, ms"] == "–"


def test_unknown_tables_and_missing_reports_are_told(report):
    with pytest.raises(AutoVoiceError, match="no table 'nonsense'"):
        fill("<!-- table: nonsense -->\n<!-- end -->", [report])
    with pytest.raises(AutoVoiceError, match="no table for these reports"):
        fill("<!-- table: voice -->\n<!-- end -->", [])
    with pytest.raises(AutoVoiceError, match="no table for these reports"):
        fill("plain", [report])
