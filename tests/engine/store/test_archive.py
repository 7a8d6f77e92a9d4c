import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from engine.errors import Cancelled, StoreError
from engine.jobs import JobContext
from engine.signal import AudioClip, read_audio, write_audio
from engine.store import NewRecording, Store, export_voice, import_voice
from tests.engine.store.helpers import add, some_flac, some_voice


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "data") as store:
        yield store


def test_a_voice_travels_whole(store, tmp_path):
    record = add(store, "Zoë", seed=4, notes="alto", picture=b"\x89PNG\r\n\x1a\nx", quality="poor", messages=["Noisy."])
    path = tmp_path / "zoë 🎤.autovoice"
    export_voice(store, record, path)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("manifest.json"))["consent"] == "Zoë agreed."
    with Store(tmp_path / "other") as other:
        again = import_voice(other, path)
        for key in ("name", "consent", "notes", "quality", "messages", "colour", "seconds", "median_f0_hz", "model_id"):
            assert getattr(again, key) == getattr(record, key)
        assert again.origin == "imported"
        assert again.picture.read_bytes() == record.picture.read_bytes()
        assert np.array_equal(other.load_voice(again).tensors["prints"], store.load_voice(record).tensors["prints"])
        (sent,), (came,) = store.recordings(record), other.recordings(again)
        assert came.original.read_bytes() == sent.original.read_bytes()
        assert came.processed.read_bytes() == sent.processed.read_bytes()
        assert came.assessment == sent.assessment
        assert import_voice(other, path).name == "Zoë 2"
        assert import_voice(other, path, name="Anna").name == "Anna"


def test_recordings_of_other_kinds_travel_as_flac(store, tmp_path):
    rng = np.random.default_rng(0)
    clip = AudioClip((0.1 * rng.standard_normal((2, 4000))).astype(np.float32), 8000)
    write_audio(tmp_path / "take.wav", clip)
    recording = NewRecording("take.wav", tmp_path / "take.wav", ".wav", some_flac(1, 0.1), 0.5, 0.5)
    record = store.add_voice(some_voice("Ada"), consent="", seconds=0.5, recordings=[recording])
    export_voice(store, record, tmp_path / "ada.autovoice")
    again = import_voice(store, tmp_path / "ada.autovoice")
    original = store.recordings(again)[0].original
    assert original.suffix == ".flac"
    assert np.allclose(read_audio(original).samples, clip.samples, atol=1e-6)


def test_cancelled_export_and_import_leave_nothing(store, tmp_path):
    record = add(store)
    path = tmp_path / "ada.autovoice"
    ctx = JobContext()
    ctx.cancel()
    with pytest.raises(Cancelled):
        export_voice(store, record, path, ctx)
    assert not list(tmp_path.glob("*autovoice*"))
    export_voice(store, record, path)
    with pytest.raises(Cancelled):
        import_voice(store, path, ctx=ctx)
    assert len([voice for voice in store.voices() if not voice.builtin]) == 1


def test_export_into_a_missing_folder_is_told(store, tmp_path):
    with pytest.raises(StoreError, match=r"could not write x\.autovoice"):
        export_voice(store, add(store), tmp_path / "missing" / "x.autovoice")


def test_archive_of_a_newer_version_is_refused_politely(store, tmp_path):
    path = tmp_path / "ada.autovoice"
    export_voice(store, add(store), path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["manifest.json"] = files["manifest.json"].replace(b'"format": 1', b'"format": 2')
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(StoreError, match="newer AutoVoice"):
        import_voice(store, path)


@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured the POSIX way")
def test_2000_hostile_archives_are_refused_fast_in_little_memory(tmp_path):
    command = [sys.executable, "-m", "tests.engine.store.hostile", str(tmp_path), "2000", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["refused"] + result["imported"] == 2000
    assert result["imported"] < 100
    assert result["megabytes"] < 500
    assert result["slowest_s"] < 2
