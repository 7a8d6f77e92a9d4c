import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autovoice_app.cli import main, run_with_progress
from engine.conversion import embed_voice
from engine.errors import Cancelled
from engine.signal import AudioClip, probe_audio, read_audio, write_audio
from engine.store import Store
from tests.fakes import voice_like
from tests.synthetic_speech import speak

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data folder with one voice, shared by the module; tests only read it or add to its history."""
    folder = tmp_path_factory.mktemp("home")
    voice = embed_voice([AudioClip(voice_like(220.0, 6.0)[None], 48000)], name="Ana")
    with Store(folder) as store:
        store.add_voice(voice, consent="synthetic", seconds=6.0)
    return folder


@pytest.fixture(autouse=True)
def use_home(home, monkeypatch):
    monkeypatch.setenv("AUTOVOICE_HOME", str(home))


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "my song é.wav"
    write_audio(path, AudioClip(voice_like(150.0, 1.5, 44100)[None], 44100))
    return path


def bare(song, *words):
    return main(["convert", str(song), "--voice", "ana", "--preset", "fast", "--separation", "none", *words])


def start(home, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "autovoice_app", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "AUTOVOICE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_song_becomes_a_file_a_report_and_an_entry_in_the_history(song, home, tmp_path, capsys):
    out = tmp_path / "new folder" / "out.mp3"
    report = tmp_path / "report.json"
    assert bare(song, "-o", str(out), "--report", str(report), "--transpose", "-3", "--stems", str(tmp_path / "s")) == 0
    assert probe_audio(out).sample_rate == 44100
    written = json.loads(report.read_text())
    assert written["transpose_semitones"] == -3
    assert written["voice"] == "Ana"
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"vocals.wav", "converted.wav"}
    said = capsys.readouterr()
    assert str(out) in said.out
    assert "Converting the voice" in said.err
    with Store(home) as store:
        assert store.renders()[0].destination == out
    assert not list(tmp_path.rglob(".*"))


def test_without_o_a_free_name_beside_the_song_is_taken(song, capsys):
    assert bare(song, "--quiet", "--json") == 0
    said = capsys.readouterr()
    assert not said.err
    made = Path(json.loads(said.out)["destination"])
    assert made == song.with_name("my song é - Ana.wav")
    made.write_text("mine")
    assert bare(song, "--quiet") == 0
    assert made.read_text() == "mine"
    assert (song.with_name("my song é - Ana 2.wav")).exists()


def failing(capsys, *words):
    code = main([str(word) for word in words])
    said = capsys.readouterr().err.strip().splitlines()
    assert said[0].startswith("autovoice: "), said
    assert len(said) == 2, said
    assert "Traceback" not in "".join(said)
    return code, said


def test_failures_are_one_sentence_and_a_hint_with_exit_code_1(song, tmp_path, capsys, monkeypatch):
    (tmp_path / "text.wav").write_text("no sound")
    assert failing(capsys, "convert", song, "--voice", "Nobody")[0] == 1
    assert failing(capsys, "convert", tmp_path / "missing.wav", "--voice", "Ana")[0] == 1
    assert failing(capsys, "convert", tmp_path / "text.wav", "--voice", "Ana")[0] == 1
    assert failing(capsys, "convert", song, "--voice", "Ana", "-o", tmp_path / "a.xyz")[0] == 1
    assert failing(capsys, "convert", song, "--voice", "Ana", "--separation", "none", "-o", song, "--quiet")[0] == 1
    code, said = failing(
        capsys, "convert", song, "--voice", "Ana", "--separation", "no-such-model", "--quiet", "-o", tmp_path / "b.wav"
    )
    assert code == 1
    assert "no-such-model" in said[0]
    monkeypatch.setattr("autovoice_app.cli.convert._check_voice", lambda name: 1 / 0)
    code, said = failing(capsys, "convert", song, "--voice", "Ana")
    assert code == 1
    assert "bug" in said[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my song é.wav", "text.wav"]


def test_wrong_arguments_exit_with_2(song, tmp_path, capsys):
    for words in (
        ["convert", str(song)],
        ["convert", str(song), "--voice", "Ana", "--preset", "best"],
        ["convert", str(song), "--voice", "Ana", "--transpose", "up"],
        ["convert", str(song), "--voice", "Ana", "--transpose", "99"],
        ["convert", str(song), "--voice", "Ana", "--device", "toaster"],
        ["convert", str(song), "--voice", "Ana", "--report", str(song)],
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
    assert main(["nonsense"]) == 2


def test_a_recording_serves_as_voice(song, tmp_path, capsys):
    speech, _ = speak("masetina.folusemikatu.." * 9, f0_hz=150)
    write_audio(tmp_path / "singer.flac", speech)
    code = main(
        ["convert", str(song), "--voice", str(tmp_path / "singer.flac"), "--preset", "fast", "--separation", "none"]
        + ["-o", str(tmp_path / "out.wav"), "--report", str(tmp_path / "r.json"), "--quiet"]
    )
    assert code == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "r.json").read_text())["voice"] == "singer"
    write_audio(tmp_path / "silence.wav", AudioClip(np.zeros((1, 16000 * 20), np.float32), 16000))
    assert failing(capsys, "convert", song, "--voice", tmp_path / "silence.wav", "--quiet")[0] == 1


def test_two_converts_of_one_song_at_once_both_come_out_whole(song, home, tmp_path):
    words = ["convert", song, "--voice", "Ana", "--preset", "fast", "--separation", "none", "--quiet"]
    both = [start(home, *words) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["my song é - Ana 2.wav", "my song é - Ana.wav", "my song é.wav"]
    lengths = {read_audio(tmp_path / name).num_samples for name in made}
    assert lengths == {round(1.5 * 44100)}


def wait_for(condition, process, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("moment", ["import", "work"])
def test_ctrl_c_ends_it_within_a_second_and_leaves_nothing(home, tmp_path, moment):
    song = tmp_path / "long.wav"
    write_audio(song, AudioClip(np.tile(voice_like(150.0, 3.0, 44100), 100)[None], 44100))
    out = tmp_path / "out"
    out.mkdir()
    process = start(
        home, "convert", song, "--voice", "Ana", "--preset", "fast", "--separation", "none", "-o", out / "mix.wav"
    )
    if moment == "import":
        maps = Path(f"/proc/{process.pid}/maps")
        wait_for(lambda: not maps.exists() or "libtorch" in maps.read_text(), process)
    else:
        wait_for(lambda: any(path.name.endswith(".part") for path in out.iterdir()), process)
        time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert time.monotonic() - began < 1.5  # a busy test machine gets half a second more
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in said
    assert not list(out.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_job_that_does_not_listen_is_left_behind(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom autovoice_app.cli import run_with_progress\n"
        "from engine.signal import AudioWriter\n"
        "def work(ctx):\n"
        f"    AudioWriter(Path({str(tmp_path)!r}) / 'a.wav', 16000, 1)\n"
        "    print('busy', flush=True)\n    time.sleep(60)\n"
        "run_with_progress(work, quiet=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "busy\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - began < 1.5
    assert not list(tmp_path.iterdir())


def test_progress_lines_notes_and_errors_of_a_job(capsys):
    def work(ctx):
        ctx.checkpoint("Thinking", 0.5)
        ctx.note("It was easy.")
        time.sleep(0.15)
        return 7

    assert run_with_progress(work) == 7
    said = capsys.readouterr().err
    assert " 50%  Thinking" in said
    assert "note: It was easy." in said

    def stopped(ctx):
        ctx.cancel()
        ctx.checkpoint("Thinking", 0.5)

    with pytest.raises(Cancelled):
        run_with_progress(stopped, quiet=True)
    assert not capsys.readouterr().err


def test_names_that_the_terminal_cannot_show_stop_nothing(home, tmp_path):
    """A Western European console on Windows knows neither the voice's name nor the song's."""
    env = {**os.environ, "AUTOVOICE_HOME": str(tmp_path), "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    with Store(home) as store, Store(tmp_path) as other:
        voice = dataclasses.replace(store.load_voice(store.voice("Ana")), name="歌手 🎤")
        other.add_voice(voice, consent="synthetic", seconds=6.0)

    def run(*words):
        command = [sys.executable, "-m", "autovoice_app", *words]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=60)

    listed = run("voice", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "歌手 🎤" in {voice["name"] for voice in json.loads(listed.stdout)}
    assert run("voice", "list").returncode == 0
    refused = run("convert", "сонг 🎵.wav", "--voice", "Ana")
    assert refused.returncode == 1
    assert refused.stderr.startswith(b"autovoice: There is no")
    assert b"Traceback" not in refused.stderr


def test_the_doctor_says_why_a_graphics_card_lies_idle(capsys, monkeypatch):
    torch_here = {"version": "2.11.0+cpu", "device": "cpu", "threads": 2, "cuda": None, "gpus": [], "mps": False}
    monkeypatch.setattr("engine.models.describe_torch", lambda: torch_here)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: "nvidia-smi" if name == "nvidia-smi" else which(name))
    main(["doctor", "--json"])
    [warning] = [w for w in json.loads(capsys.readouterr().out)["warnings"] if "NVIDIA" in w["message"]]
    assert "2.11.0 for CUDA" in warning["hint"]
    torch_here["cuda"] = "13.0"
    main(["doctor", "--json"])
    [warning] = [w for w in json.loads(capsys.readouterr().out)["warnings"] if "NVIDIA" in w["message"]]
    assert "driver" in warning["hint"]


def test_the_doctor_knows_everything_by_name(capsys):
    code = main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert code == (1 if findings["problems"] else 0)
    assert findings["versions"]["torch"]
    assert {"decoder", "speaker", "separator"} <= {model["name"] for model in findings["models"]}
    assert all(model["state"] == "good" and len(model["sha256"]) == 64 for model in findings["models"])
    assert findings["data_folder"]["voices"] == 1
    assert findings["demo"]["seconds"] == pytest.approx(29.1, abs=0.1)
    assert main(["doctor"]) == code
    assert "Models" in capsys.readouterr().out


def test_the_doctor_finds_what_is_missing(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.models.registry.models_folder", lambda: tmp_path / "none")
    assert problems_of(main(["doctor", "--json"]), capsys) >= {"The model decoder is not installed."}
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOVOICE_HOME", str(tmp_path / "file"))
    assert any("data folder" in message for message in problems_of(main(["doctor", "--json"]), capsys))


def problems_of(code, capsys):
    said = capsys.readouterr()
    assert code == 1
    assert said.err.startswith("autovoice: ")
    return {problem["message"] for problem in json.loads(said.out)["problems"]}
