import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autovoice_app.cli import main
from engine.signal import write_audio
from engine.store import Store
from tests.engine.store.helpers import add, freeze_models, some_voice
from tests.engine.test_enrollment import singer


@pytest.fixture
def folder():
    return Path(os.environ["AUTOVOICE_HOME"])


@pytest.fixture
def frozen(monkeypatch):
    freeze_models(monkeypatch.setattr)


@pytest.fixture
def two_voices(folder, frozen):
    with Store(folder) as store:
        add(store, "Ada", notes="alto")
        add(store, "Bob", seed=60)


def run(capsys, *words):
    try:
        code = main(["voice", *words])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def read(capsys, *words):
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def own(capsys):
    return [voice["name"] for voice in read(capsys, "list") if not voice["builtin"]]


def test_add_makes_a_voice_and_asks_for_consent(capsys, folder, tmp_path, monkeypatch):
    path = tmp_path / "clip one.flac"
    write_audio(path, singer(15))
    code, _, err = run(capsys, "add", "Ada", str(path))
    assert code == 2
    assert "--consent" in err
    voice = read(capsys, "add", "Ada", str(path), "--consent", "Ada agreed.", "--quiet")
    assert (voice["name"], voice["consent"], voice["quality"]) == ("Ada", "Ada agreed.", "poor")
    code, out, err = run(capsys, "add", "ADA", str(path), "--consent", "x")
    assert (code, out) == (1, "")
    assert "exists already" in err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert run(capsys, "add", "Bob", str(path))[0] == 2


def test_bad_input_is_one_sentence(capsys, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    for file in ("text.wav", "missing.wav"):
        code, out, err = run(capsys, "add", "X", str(tmp_path / file), "--consent", "x", "--quiet")
        assert (code, out) == (1, "")
        assert err.startswith("autovoice: ")
    code, _, err = run(capsys, "show", "Nobody")
    assert code == 1
    assert "no voice named 'Nobody'" in err


def test_list_show_rename_remove_and_bring_back(capsys, two_voices):
    assert own(capsys) == ["Ada", "Bob"]
    shown = read(capsys, "show", "ada")
    assert (shown["notes"], shown["recordings"][0]["name"]) == ("alto", "take 1")
    assert Path(shown["recordings"][0]["original"]).exists()
    assert "Ada agreed." in run(capsys, "show", "Ada")[1]
    assert run(capsys, "rename", "Ada", "Anna")[0] == 0
    assert read(capsys, "remove", "Bob") == {"removed": "Bob"}
    assert own(capsys) == ["Anna"]
    assert run(capsys, "bring-back", "Bob")[0] == 0
    assert own(capsys) == ["Anna", "Bob"]
    assert "Bob" in run(capsys, "list")[1]


def test_export_and_import(capsys, two_voices, tmp_path):
    path = tmp_path / "ada.autovoice"
    assert run(capsys, "export", "Ada", str(path), "--quiet")[0] == 0
    assert read(capsys, "import", str(path), "--quiet")["name"] == "Ada 2"
    assert read(capsys, "import", str(path), "--name", "Eve", "--quiet")["consent"] == "Ada agreed."
    path.write_bytes(path.read_bytes()[:-30])
    code, out, err = run(capsys, "import", str(path), "--quiet")
    assert (code, out) == (1, "")
    assert "nothing was imported" in err


def test_blend(capsys, two_voices):
    assert read(capsys, "blend", "Mix", "Ada=3", "Bob=1")["origin"] == "blend"
    for wrong in (["Ada"], ["Ada=1", "Bob=0"], ["Ada=x", "Bob=1"]):
        assert run(capsys, "blend", "Mix 2", *wrong)[0] == 2


def test_improve_and_undo(capsys, two_voices, folder, monkeypatch):
    from types import SimpleNamespace

    def improve(store, record, ctx):
        store.replace_voice(record, some_voice("Ada", 9), similarity=0.9)
        return SimpleNamespace(kept=True, similarity_before=0.8, similarity_after=0.9)

    monkeypatch.setattr("engine.enrollment.improve", improve)
    assert read(capsys, "improve", "Ada")["kept"] is True
    assert read(capsys, "show", "Ada")["is_improved"] is True
    assert run(capsys, "improve", "Ada", "--undo")[0] == 0
    assert read(capsys, "show", "Ada")["is_improved"] is False
    assert run(capsys, "improve", "Ada", "--undo")[0] == 1


def test_damaged_store_is_told_and_restored(capsys, two_voices, folder):
    with Store(folder) as store:
        store.back_up()
    assert read(capsys, "backups")[0]["num_voices"] == 2
    (folder / "autovoice.sqlite").write_bytes(b"damaged" * 1000)
    code, _, err = run(capsys, "list")
    assert code == 1
    assert "voice restore" in err
    assert read(capsys, "restore")["restored"]
    assert own(capsys) == ["Ada", "Bob"]
    assert list(folder.glob("damaged-*.sqlite"))


def test_the_program_itself_lists_voices_without_torch(two_voices):
    script = "import sys; from autovoice_app.cli import main; code = main(['voice', 'list', '--json']); "
    script += "assert 'torch' not in sys.modules and 'PySide6' not in sys.modules; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"Ada", "Bob"} <= {voice["name"] for voice in json.loads(done.stdout)}
