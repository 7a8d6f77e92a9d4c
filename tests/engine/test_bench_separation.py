import argparse
import json

import numpy as np
import pytest

from engine.bench.frame import run_benchmark
from engine.bench.separation import ideal_ratio_mask, leakage_db, stem_figures, table_rows
from engine.errors import AutoVoiceError
from engine.jobs import JobContext
from engine.signal import AudioClip, write_audio
from tests.engine.test_separation import RATE, band, singing, tiny_model


def test_figures_of_known_errors():
    rng = np.random.default_rng(0)
    reference, noise = rng.standard_normal((2, 2, 5000)).astype(np.float32)
    figures = stem_figures(reference + 0.1 * noise, reference)
    assert figures["si_sdr_db"] == pytest.approx(20, abs=0.3)
    assert figures["sdr_db"] == pytest.approx(20, abs=0.3)
    halved = stem_figures(0.5 * reference, reference)
    assert halved["si_sdr_db"] > 60
    assert halved["sdr_db"] == pytest.approx(6.02, abs=0.01)


def test_leakage_counts_only_where_the_singer_is_silent():
    mixture = np.full((2, 4 * RATE), 0.1, np.float32)
    reference = np.zeros_like(mixture)
    reference[:, : 2 * RATE] = 0.1
    estimate = np.full_like(mixture, 0.01)
    estimate[:, : 2 * RATE] = 0.1
    assert leakage_db(estimate, reference, mixture, RATE) == pytest.approx(-20, abs=0.01)


def test_the_ideal_mask_is_nearly_ideal():
    vocals, accompaniment = np.stack([singing(3)] * 2).astype(np.float32), band(3).astype(np.float32)
    found, rest = ideal_ratio_mask(vocals, accompaniment)
    np.testing.assert_allclose(found + rest, vocals + accompaniment, atol=1e-6)
    assert stem_figures(found, vocals)["si_sdr_db"] > 10


def test_the_benchmark_reports_every_song(tmp_path):
    folder = tmp_path / "songs" / "dev" / "toy"
    folder.mkdir(parents=True)
    write_audio(folder / "vocals.wav", AudioClip(np.stack([singing(3)] * 2).astype(np.float32), RATE))
    write_audio(folder / "accompaniment.wav", AudioClip(band(3).astype(np.float32), RATE))
    options = argparse.Namespace(
        corpus=tmp_path,
        model=str(tiny_model(tmp_path / "weights")),
        device="cpu",
        passes=1,
        seconds=None,
        museval=False,
        json=tmp_path / "report.json",
    )
    figures = run_benchmark("separation", options, JobContext())["figures"]
    toy = json.loads((tmp_path / "report.json").read_text())["figures"]["songs"]["toy"]
    assert toy["ideal_ratio_mask"]["vocals"]["si_sdr_db"] > toy["mixture"]["vocals"]["si_sdr_db"]
    assert figures["peak_memory_mb"] > 50
    assert all(isinstance(what, str) and isinstance(value, str) for what, value in table_rows(figures))
    with pytest.raises(AutoVoiceError) as caught:
        run_benchmark("separation", argparse.Namespace(**{**vars(options), "corpus": folder}), JobContext())
    assert caught.value.hint
