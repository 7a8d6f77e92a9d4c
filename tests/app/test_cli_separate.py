import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autovoice_app.cli import main
from engine import models
from engine.signal import read_audio, write_audio
from tests.engine.test_separation import song, tiny_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path):
    clip, _ = song(1.5)
    path = tmp_path / "my song.wav"
    write_audio(path, clip, float_samples=True)
    return path, str(tiny_model(tmp_path / "weights")), clip


def test_separate_writes_both_stems_and_a_report(files, tmp_path, capsys):
    path, model, clip = files
    out, report = tmp_path / "out", tmp_path / "report.json"
    words = ["separate", str(path), "-o", str(out), "--model", model, "--device", "cpu", "--json", str(report)]
    assert main(words) == 0
    vocals, accompaniment = (read_audio(out / f"{name}.wav") for name in ("vocals", "accompaniment"))
    assert np.array_equal(vocals.samples + accompaniment.samples, clip.samples)
    figures = json.loads(report.read_text())
    assert figures["seconds"] == pytest.approx(1.5)
    assert figures["device"] == "cpu"
    assert "Separating vocals" in figures["stage_seconds"]
    assert str(out / "vocals.wav") in capsys.readouterr().out


def test_separate_tells_failures_in_a_sentence_and_a_hint(files, tmp_path, capsys):
    path, model, _ = files
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    for words in (
        ["separate", str(tmp_path / "none.wav"), "-o", str(tmp_path / "out")],
        ["separate", str(text), "-o", str(tmp_path / "out"), "--model", model],
        ["separate", str(path), "-o", str(tmp_path / "out"), "--model", "nobody"],
        ["separate", str(path), "-o", str(path / "below a file"), "--model", model],
    ):
        assert main(words) == 1
        error = capsys.readouterr().err
        assert error.count("autovoice: ") == 1
        assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as caught:
        main(["separate", str(path)])
    assert caught.value.code == 2


def test_models_are_listed_added_and_removed(files, capsys):
    _, model, _ = files
    assert main(["models", "add", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"separator", "tiny"} <= {info["name"] for info in listed["installed"]}
    assert {info["name"]: info["size"] for info in listed["downloadable"]} == {
        name: published.size for name, published in models.PUBLISHED.items()
    }
    assert main(["models", "list"]) == 0
    assert "htdemucs_ft" in capsys.readouterr().out
    assert main(["models", "remove", "tiny"]) == 0
    assert main(["models", "remove", "tiny"]) == 1
    assert main(["models", "remove", "separator"]) == 1
    assert main(["models", "download", "nobody", "--quiet"]) == 1
    assert main(["models", "add", "nothing.th"]) == 1


def test_the_program_itself_separates(files, tmp_path):
    path, model, _ = files
    words = [sys.executable, "-m", "autovoice_app", "separate", str(path), "-o", str(tmp_path / "o"), "--model", model]
    done = subprocess.run([*words, "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["accompaniment.wav", "vocals.wav"]
