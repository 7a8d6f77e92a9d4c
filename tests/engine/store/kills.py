"""Kills a process at random moments of changing a store and looks at what is left; arguments: FOLDER KILLS SEED."""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import engine.store.store
from engine.store import Store, export_voice, import_voice
from tests.engine.store.helpers import add, freeze_models, some_voice

LONGEST_S = 0.5


def main(folder, kills, seed):
    rng = random.Random(seed)
    archive = folder / "voice.autovoice"
    with Store(folder / "prepared") as store:
        export_voice(store, add(store, "Imported", seed=5), archive)
    known, moments = {}, {}
    started = time.monotonic()
    for turn in range(kills):
        reports, killed_in = kill_once(folder / "data", archive, rng, turn)
        moments[killed_in] = moments.get(killed_in, 0) + 1
        known = check(folder / "data", known, reports)
    result = {"kills": kills, "voices": len(known), "killed_in": moments, "seconds": time.monotonic() - started}
    sys.stdout.write(json.dumps(result) + "\n")


def kill_once(folder, archive, rng, turn):
    """Run one child until it is killed; returns what it reported and what it was doing."""
    read_end, write_end = os.pipe()
    child_seed, after_s = rng.random(), rng.uniform(0.0, LONGEST_S)
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            change_for_ever(folder, archive, random.Random(child_seed), turn, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the child died by itself: {status}"
    with os.fdopen(read_end) as stream:
        lines = stream.read().split("\n")[:-1]
    reports = [json.loads(line) for line in lines]
    open_ended = reports and reports[-1]["said"] == "begin"
    return reports, reports[-1]["what"] if open_ended else "between"


def change_for_ever(folder, archive, rng, turn, write_end):
    def say(**report):
        os.write(write_end, (json.dumps(report) + "\n").encode())

    engine.store.store._GARBAGE_AGE_S = 0.0
    say(said="begin", what="open")
    store = Store(folder)
    say(said="done", what="open")
    number = 0
    while True:
        number += 1
        own = [voice for voice in store.voices() if not voice.builtin]
        what = rng.choice(["create", "create", "import", "rename", "improve", "undo", "delete", "undelete", "tidy"])
        name, seed = f"{what} {turn} {number}", rng.randrange(100_000)
        record = rng.choice(own) if own else None
        deleted = store.deleted_voices()
        if what == "create":
            say(said="begin", what=what, name=name, seed=seed)
            record = add(store, name, seed=seed)
        elif what == "import":
            say(said="begin", what=what, name=name, seed=5)
            record = import_voice(store, archive, name=name)
        elif what == "tidy":
            say(said="begin", what=what)
            store.maintain()
            say(said="done", what=what)
            continue
        elif what == "undelete" and deleted:
            record = rng.choice(deleted)
            say(said="begin", what=what, id=record.id)
            record = store.undelete(record)
        elif what == "undelete" or record is None or (what == "undo" and not record.is_improved):
            continue
        elif what == "rename":
            say(said="begin", what=what, id=record.id, name=name)
            record = store.rename(record, name)
        elif what == "improve":
            say(said="begin", what=what, id=record.id, seed=seed)
            record = store.replace_voice(record, some_voice(record.name, seed), similarity=0.5)
        elif what == "undo":
            say(said="begin", what=what, id=record.id)
            record = store.undo_improvement(record)
        elif what == "delete":
            say(said="begin", what=what, id=record.id)
            store.delete(record)
        state = {"name": record.name, "seed": round(record.median_f0_hz - 100.0), "deleted": what == "delete"}
        say(said="done", what=what, id=record.id, state=state)


def check(folder, known, reports):
    """Compare the store with everything reported; the change that was under way may have happened or not."""
    known = {voice_id: dict(state) for voice_id, state in known.items()}
    for report in reports:
        if report["said"] == "done" and "id" in report:
            known[report["id"]] = report["state"]
    pending = reports[-1] if reports and reports[-1]["said"] == "begin" else {}
    with Store(folder) as store:
        found = {}
        for record in [voice for voice in store.voices() if not voice.builtin]:
            found[record.id] = state_of(store, record, deleted=False)
        for record in store.deleted_voices():
            found[record.id] = state_of(store, record, deleted=True)
    for voice_id, state in known.items():
        assert voice_id in found, f"{state} had been reported as saved and is gone"
        if pending.get("id") == voice_id:
            check_pending(state, found[voice_id], pending)
        else:
            assert found[voice_id] == state, f"{found[voice_id]} is not {state}"
    for voice_id in set(found) - set(known):
        assert pending.get("what") in ("create", "import"), f"{found[voice_id]} came from nowhere"
        assert found[voice_id] == {"name": pending["name"], "seed": pending["seed"], "deleted": False}
    return found


def state_of(store, record, *, deleted):
    """What a voice is like, after a look that it is whole."""
    voice = store.load_voice(record)
    assert voice.median_f0_hz == record.median_f0_hz
    (recording,) = store.recordings(record)
    for path in (recording.original, recording.processed):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    return {"name": record.name, "seed": round(record.median_f0_hz - 100.0), "deleted": deleted}


def check_pending(before, found, pending):
    after = dict(before)
    if pending["what"] in ("rename", "improve"):
        key = "name" if pending["what"] == "rename" else "seed"
        after[key] = pending[key]
    elif pending["what"] == "undo":
        after["seed"] = found["seed"]  # the seed before is not kept here
    else:
        after["deleted"] = pending["what"] == "delete"
    assert found in (before, after), f"{found} is neither {before} nor {after}"


if __name__ == "__main__":
    freeze_models()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
