"""A disk that fills up, or refuses, at each single write."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from engine.errors import StoreError
from engine.store import NewRecording, Store, export_voice, import_voice
from engine.store.backups import named_files
from engine.store.files import FileStore
from tests.engine.store.helpers import add, some_flac, some_voice


def snapshot(store):
    voices = [voice for voice in store.voices() if not voice.builtin]
    for voice in voices:
        assert store.load_voice(voice).name == voice.name
        for recording in store.recordings(voice):
            assert recording.original.exists()
            assert recording.processed.exists()
    return voices


def save_new(store, folder):
    add(store, "New", seed=7, picture=b"\x89PNG\r\n\x1a\nx")


def save_from_files(store, folder):
    path = folder / "take.flac"
    path.write_bytes(some_flac(9, 0.25))
    recording = NewRecording("take", path, ".flac", path, 1.0, 1.0)
    store.add_voice(some_voice("New", 8), consent="", seconds=1.0, recordings=[recording])


def save_duplicate(store, folder):
    store.duplicate(store.voice("Ada"))


def save_picture(store, folder):
    store.set_picture(store.voice("Ada"), b"\x89PNG\r\n\x1a\nother")


def save_improved(store, folder):
    store.replace_voice(store.voice("Ada"), some_voice("Ada", 6), similarity=0.7)


def save_imported(store, folder):
    import_voice(store, folder / "bob.autovoice")


def save_exported(store, folder):
    export_voice(store, store.voice("Ada"), folder / "ada.autovoice")


SAVES = [save_new, save_from_files, save_duplicate, save_picture, save_improved, save_imported, save_exported]


@pytest.fixture
def faults(monkeypatch):
    """Lets the n-th of all os-level writing calls fail."""

    class Faults:
        left, number, hits = -1, errno.ENOSPC, 0

        def arm(self, left, number):
            self.left, self.number, self.hits = left, number, 0

        def pass_or_fail(self):
            self.hits += self.left == 0
            self.left -= 1
            if self.left == -1:
                raise OSError(self.number, os.strerror(self.number), "somewhere")

    faults = Faults()

    def guard(name):
        real = getattr(os, name)

        def guarded(*arguments, **options):
            faults.pass_or_fail()
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, guarded)

    for name in ("open", "write", "fsync", "replace"):
        guard(name)
    return faults


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")])
def test_every_single_write_may_fail_and_nothing_is_lost(tmp_path, faults, monkeypatch, save, number, said):
    with Store(tmp_path / "data") as store:
        add(store, "Bob", seed=3)
        export_voice(store, store.voice("Bob"), tmp_path / "bob.autovoice")
        store.delete(store.voice("Bob"))
        add(store, "Ada")
        for seed, seconds in ((7, 0.25), (7, 0.125), (9, 0.25)):
            some_flac(seed, seconds)  # made now, while the disk has room
        before = snapshot(store)
        for turn in range(60):
            faults.arm(turn, number)
            error = failure_of(save, store, tmp_path)
            hit = faults.hits
            faults.arm(-1, number)
            if error is None:
                before = snapshot(store)
            else:
                assert said in error.message
                assert error.hint
                assert snapshot(store) == before
                assert not list(tmp_path.rglob("*.part"))
            if not hit:
                break
        assert turn > 2
        assert error is None
        monkeypatch.setattr("engine.store.store._GARBAGE_AGE_S", -1.0)
        store.maintain()
        with store._reading("look") as connection:
            assert {name for name, _ in store._files.names()} == named_files(connection)


def failure_of(act, *arguments):
    try:
        act(*arguments)
    except StoreError as error:
        return error
    return None


def run_in_process(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_database_that_may_not_grow_says_so_and_loses_nothing(tmp_path):
    said = run_in_process(
        """
        import resource, sys
        from pathlib import Path
        from engine.errors import StoreError
        from engine.store import Store
        from tests.engine.store.helpers import add, freeze_models
        freeze_models()
        folder = Path(sys.argv[1])
        saved, failures = [], []
        with Store(folder) as store:
            add(store, "first")
            limit = max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) + 120_000
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            for turn in range(14):
                try:
                    saved.append(add(store, f"voice {turn}", seed=turn, notes="n" * 3000).name)
                except StoreError as error:
                    failures.append(error.message)
            assert failures and saved, (len(failures), len(saved))
            assert all("full" in message for message in failures), failures
            assert {voice.name for voice in store.voices() if not voice.builtin} == {"first", *saved}
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            add(store, "last", seed=99)
        with Store(folder) as store:
            for voice in store.voices():
                store.load_voice(voice)
        print(len(saved), len(failures))
        """,
        tmp_path / "data",
    )
    assert len(said.split()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="folder permissions are POSIX")
def test_read_only_folder_is_told_in_one_sentence(tmp_path):
    folder = tmp_path / "data"
    with Store(folder) as store:
        add(store, "Ada")
    said = run_in_process(
        """
        import os, sys
        from pathlib import Path
        import numpy, safetensors.numpy
        from engine.conversion.voice import Voice
        from engine.errors import StoreError
        from engine.store import Store
        from tests.engine.store.helpers import add, freeze_models
        freeze_models()
        folder = Path(sys.argv[1])
        store = Store(folder)
        add(store, "before", seed=1)  # imports all that is needed, while everything may be read
        for path in (folder, *folder.rglob("*"), *folder.parents[:3]):
            os.chmod(path, 0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.setuid(65534)  # permission bits bind everyone but root
        for act in (lambda: add(store, "Bob", seed=2), lambda: Store(folder / "new")):
            try:
                act()
            except StoreError as error:
                print(error.message)
        """,
        folder,
    )
    lines = said.splitlines()
    for path in (tmp_path.parent, tmp_path, folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert len(lines) == 2
    assert all("read-only" in line for line in lines)
    with Store(folder) as store:
        assert store.load_voice(store.voice("Ada")).name == "Ada"


def test_short_writes_are_completed(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: real(descriptor, bytes(view)[:100]))
    files = FileStore(tmp_path)
    data = bytes(range(256)) * 5
    name, size = files.write(data, ".flac")
    assert files.read(name) == data
    assert size == len(data)


def test_another_process_holding_the_database_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.store.database._BUSY_TIMEOUT_S", 0.1)
    with Store(tmp_path) as first, Store(tmp_path) as second, first._database.writing("hold"):  # noqa: SIM117
        with pytest.raises(StoreError, match="Another AutoVoice is busy"):
            add(second, "Bob")
