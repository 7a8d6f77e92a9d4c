import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from engine.errors import ModelError, StoreError
from engine.store import Store, StoreDamagedError, file_name, repair_store
from engine.store.database import Database
from engine.store.files import FileStore
from engine.store.schema import MIGRATIONS
from tests.engine.store.helpers import add, some_recording, some_voice


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "data") as store:
        yield store


def own(store):
    return [voice for voice in store.voices() if not voice.builtin]


def test_a_voice_comes_back_as_it_was_saved(store):
    record = add(store, "Zoë", notes="alto", picture=b"\x89PNG", quality="poor", messages=["A little noisy."])
    again = store.voice("ZOË")
    assert again == record == store.voice(record.id)
    assert (again.consent, again.notes, again.quality, again.messages) == (
        "Zoë agreed.",
        "alto",
        "poor",
        ("A little noisy.",),
    )
    voice, wanted = store.load_voice(again), some_voice("Zoë")
    assert np.array_equal(voice.speaker_embedding, wanted.speaker_embedding)
    assert np.array_equal(voice.tensors["prints"], wanted.tensors["prints"])
    assert (voice.name, voice.f0_range_hz) == ("Zoë", (90.0, 300.0))
    (recording,) = store.recordings(again)
    assert recording.original.read_bytes() == some_recording().original
    assert recording.assessment["snr_db"] == 40.5


def test_names_are_unique_whatever_their_case_and_checked(store):
    record = add(store, "Ada")
    for name, said in [
        ("ADA", "exists already"),
        ("  ", "needs a name"),
        ("x" * 99, "too long"),
        ("a\x07b", "cannot be shown"),
    ]:
        with pytest.raises(StoreError, match=said):
            add(store, name, seed=1)
    with pytest.raises(StoreError, match="no voice named 'Bob'") as caught:
        store.voice("Bob")
    assert "Ada" in caught.value.hint
    assert store.rename(record, "ada").name == "ada"
    other = add(store, "Bob", seed=2)
    with pytest.raises(StoreError, match="exists already"):
        store.rename(other, "ADA")
    assert store.load_voice(store.rename(other, "Cyd")).name == "Cyd"


def test_failed_save_leaves_no_file(store):
    add(store, "Ada")
    before = set(store._files.names())
    with pytest.raises(StoreError):
        add(store, "ada", seed=5)
    assert set(store._files.names()) == before


def test_delete_and_undo(store):
    record = add(store, "Ada")
    store.delete(record)
    assert own(store) == []
    add(store, "Ada", seed=3)
    assert store.undelete(record).name == "Ada 2"
    assert len(own(store)) == 2


def test_duplicate_is_whole(store):
    record = add(store, "Ada", notes="soprano")
    copy = store.duplicate(record)
    assert (copy.name, copy.notes, copy.num_recordings, copy.origin) == ("Ada 2", "soprano", 1, "copy")
    store.delete(record)
    assert store.load_voice(copy).name == "Ada 2"


def test_improvement_can_be_undone_even_after_a_second_one(store):
    record = add(store, "Ada")
    for seed in (7, 8):
        record = store.replace_voice(record, some_voice("Ada", seed), similarity=0.8)
    assert record.is_improved
    assert record.similarity == 0.8
    record = store.undo_improvement(record)
    assert not record.is_improved
    assert np.array_equal(store.load_voice(record).speaker_embedding, some_voice("Ada").speaker_embedding)
    with pytest.raises(StoreError, match="no improvement"):
        store.undo_improvement(record)


def test_garbage_pass_removes_only_what_nothing_names(store, monkeypatch):
    monkeypatch.setattr("engine.store.store._GARBAGE_AGE_S", -1.0)
    record = add(store, "Ada")
    store.delete(add(store, "Bob", seed=2))
    store._files.write(b"nobody's", ".flac")
    assert store.maintain() == 1
    store.load_voice(record)
    assert store.load_voice(store.undelete(store.deleted_voices()[0])).name == "Bob"
    store.delete(store.voice("Bob"))
    monkeypatch.setattr("engine.store.store._DELETED_KEPT_S", -1.0)
    assert store.maintain() == 3


def test_stale_voice_without_recordings_is_refused(store, monkeypatch):
    record = store.add_voice(some_voice("Old", model_id="old"), consent="", seconds=30.0)
    monkeypatch.setattr("engine.conversion.voice.voice_model_id", lambda: "new")
    with pytest.raises(ModelError, match="other models"):
        store.load_voice(record)


def test_changed_tensors_file_is_noticed(store):
    record = add(store, "Ada")
    record.tensors.write_bytes(record.tensors.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match="changed by something else"):
        store.load_voice(record)


def test_backups_are_daily_seven_and_restorable(store, tmp_path, monkeypatch):
    add(store, "Ada")
    for day in range(1, 11):
        monkeypatch.setattr(time, "strftime", lambda form, day=day: f"2027-01-{day:02}" + "-000000" * ("%H" in form))
        store.back_up_daily()
        time.sleep(0.002)
    monkeypatch.undo()
    backups = store.backups()
    assert len(backups) == 7
    assert backups[0].path.name == "daily-2027-01-10.sqlite"
    assert backups[0].num_voices == 1
    add(store, "Bob", seed=2)
    store.restore(backups[0])
    assert [voice.name for voice in own(store)] == ["Ada"]
    before = next(backup for backup in store.backups() if backup.reason == "before-restore")
    store.restore(before)
    assert [voice.name for voice in own(store)] == ["Ada", "Bob"]


def damage_header(path):
    path.write_bytes(b"not a database at all" * 400)


def damage_middle(path):
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data) - 4096, 4096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))


def damage_empty(path):
    path.write_bytes(b"")


def damage_gone(path):
    path.unlink()


@pytest.mark.parametrize("damage", [damage_header, damage_middle, damage_empty, damage_gone])
def test_damaged_database_is_kept_aside_and_the_newest_backup_restored(tmp_path, damage):
    folder = tmp_path / "data"
    with Store(folder) as store:
        old = add(store, "Ada")
        store.back_up()
        new = add(store, "Bob", seed=2, notes="made after the backup")
    damage(folder / "autovoice.sqlite")
    with pytest.raises(StoreDamagedError) as caught:
        Store(folder)
    assert caught.value.backup is not None
    store, found = repair_store(folder, caught.value.backup)
    with store:
        assert found == ["Bob"]
        assert store.voice("Ada") == old
        assert store.voice("Bob") == new
        assert store.load_voice(new).name == "Bob"
        assert store.recordings(new)[0].original.exists()
    assert damage is damage_gone or list(folder.glob("damaged-*.sqlite"))
    Store(folder).close()


def test_damage_without_any_backup_finds_the_voices_in_their_files(tmp_path):
    folder = tmp_path / "data"
    with Store(folder) as store:
        add(store, "Ada")
    for backup in (folder / "backups").iterdir():
        backup.write_bytes(b"damaged too")
    damage_header(folder / "autovoice.sqlite")
    with pytest.raises(StoreDamagedError) as caught:
        Store(folder)
    assert caught.value.backup is None
    store, found = repair_store(folder, None)
    store.close()
    assert found == ["Ada"]


def test_newer_schema_is_refused_and_left_alone(tmp_path):
    folder = tmp_path / "data"
    Store(folder).close()
    connection = sqlite3.connect(folder / "autovoice.sqlite")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer AutoVoice"):
        Store(folder)


def test_migration_copies_first_and_rolls_back_whole_when_it_fails(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    with Store(folder) as store:
        add(store, "Ada")
    broken = (*MIGRATIONS, ("CREATE TABLE more (x INTEGER) STRICT", "CREATE TABLE more (x INTEGER) STRICT"))
    monkeypatch.setattr("engine.store.database.MIGRATIONS", broken)
    with pytest.raises(sqlite3.OperationalError):
        Store(folder)
    good = (*MIGRATIONS, ("CREATE TABLE more (x INTEGER) STRICT",))
    monkeypatch.setattr("engine.store.database.MIGRATIONS", good)
    with Store(folder) as store:
        assert store.voice("Ada")
        assert [backup.reason for backup in store.backups()].count("before-migration") >= 1


def test_renders_jobs_and_settings_are_kept(store, tmp_path):
    record = add(store, "Ada")
    render = store.add_render(
        tmp_path / "a.wav", tmp_path / "b.wav", voice=record, preset="fast", stems_folder=tmp_path, report={"rtf": 0.5}
    )
    assert store.renders() == [render]
    assert store.voice("Ada").last_used == render.created
    store.forget_render(render)
    assert store.renders() == []
    job = store.set_job_state(store.add_job("render", "a.wav", {"voice": record.id}), "running")
    assert store.jobs() == [job]
    store.set_job_state(job, "failed", error="no space")
    assert store.jobs() == []
    assert store.jobs(["failed"])[0].error == "no space"
    for volume in range(25):
        store.save_settings({"volume": volume})
        store.save_settings({"volume": volume})
    versions = store.settings_versions()
    assert (len(versions), versions[0][1]) == (20, {"volume": 24})


def test_threads_share_a_store(store):
    failures = []

    def work(number):
        try:
            for turn in range(5):
                add(store, f"voice {number} {turn}", seed=number * 10 + turn)
                store.voices()
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(own(store)) == 20


WORKER = """
import sys
from pathlib import Path
from engine.store import Store
from tests.engine.store.helpers import add, freeze_models
freeze_models()
with Store(Path(sys.argv[1])) as store:
    for turn in range(5):
        record = add(store, f"{sys.argv[2]} {turn}", seed=turn)
        store.rename(record, f"{sys.argv[2]} renamed {turn}")
        store.maintain()
"""


def test_two_processes_share_a_store(tmp_path):
    folder = tmp_path / "data"
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(folder), name]) for name in ("left", "right")]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    with Store(folder) as store:
        names = {voice.name for voice in own(store)}
        assert names == {f"{side} renamed {turn}" for side in ("left", "right") for turn in range(5)}
        for voice in own(store):
            store.load_voice(voice)


def test_file_names_cannot_leave_the_folder(tmp_path):
    files = FileStore(tmp_path)
    for name in ("../x", "a" * 64, "A" * 64 + ".flac", "a" * 64 + ".f/../../x"):
        with pytest.raises(ValueError, match="not a name"):
            files.path(name)


def test_connections_of_ended_threads_are_closed(tmp_path):
    database = Database(tmp_path / "a.sqlite", lambda version: None)
    for _ in range(5):
        thread = threading.Thread(target=database._connection)
        thread.start()
        thread.join()
    database._local.__dict__.clear()
    database._connection()
    assert len(database._opened) <= 2
    database.close()


def test_voices_of_the_program_are_listed_and_cannot_be_changed(store):
    builtin = [voice for voice in store.voices() if voice.builtin]
    assert len(builtin) == 3
    for voice in builtin:
        assert store.voice(voice.name.upper()) == store.voice(voice.id) == voice
        assert store.load_voice(voice).name == voice.name
        assert voice.median_f0_hz > 50
        for change in (store.delete, lambda one: store.rename(one, "x"), lambda one: store.set_notes(one, "x")):
            with pytest.raises(StoreError, match="belongs to AutoVoice"):
                change(voice)
    with pytest.raises(StoreError, match="exists already"):
        add(store, builtin[0].name.lower())
    assert store.duplicate(builtin[0]).name == f"{builtin[0].name} 2"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Ada", "Ada"),
        ("AC/DC: live?", "AC_DC_ live_"),
        ("Ada.", "Ada"),
        (" . ", "_"),
        ("nul", "_nul"),
        ("Com1.flac", "_Com1.flac"),
        ("Connie", "Connie"),
        ("歌手 🎤", "歌手 🎤"),
    ],
)
def test_every_system_takes_a_voice_s_name_for_a_file(tmp_path, name, file):
    assert file_name(name) == file
    (tmp_path / file).touch()
