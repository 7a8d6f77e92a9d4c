"""`autovoice voice`: make, list, exchange, improve and mix voices."""

import argparse
import sys
from pathlib import Path
from typing import Any

from autovoice_app.cli import UsageError, print_json, run_with_progress
from engine.errors import StoreError
from engine.jobs import JobContext
from engine.store import (
    Store,
    StoreDamagedError,
    VoiceRecord,
    default_data_folder,
    export_voice,
    import_voice,
    repair_store,
)

_CONSENT_QUESTION = "Whose voice is it, and did they agree to this? (for example: 'My own voice.')\n> "


def add_parser(subparsers: Any) -> None:
    """Add `voice` and its commands."""
    parser = subparsers.add_parser("voice", help="make, list, exchange, improve and mix voices")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    add = _command(commands, "add", _add, "make a voice from recordings of one person")
    add.add_argument("name", metavar="NAME")
    add.add_argument("files", metavar="FILE", nargs="+", type=Path, help="recordings, or folders of them")
    add.add_argument("--consent", metavar="TEXT", help="whose voice it is and that they agreed; asked for when absent")
    add.add_argument("--reduce-noise", action="store_true", help="lower steady background noise")

    _command(commands, "list", _list, "list the voices")
    _command(commands, "show", _show, "tell everything of one voice").add_argument("name", metavar="NAME")
    remove = _command(commands, "remove", _remove, "delete a voice; it can be brought back for 30 days")
    remove.add_argument("name", metavar="NAME")
    bring_back = _command(commands, "bring-back", _bring_back, "bring a deleted voice back")
    bring_back.add_argument("name", metavar="NAME")
    rename = _command(commands, "rename", _rename, "give a voice another name")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("new_name", metavar="NEW-NAME")

    export = _command(commands, "export", _export, "write a voice as one .autovoice file")
    export.add_argument("name", metavar="NAME")
    export.add_argument("file", metavar="FILE", type=Path)
    take = _command(commands, "import", _import, "take a voice from an .autovoice file")
    take.add_argument("file", metavar="FILE", type=Path)
    take.add_argument("--name", help="another name than the one in the file")

    improve = _command(commands, "improve", _improve, "fine-tune a voice on its recordings; kept only when it helps")
    improve.add_argument("name", metavar="NAME")
    improve.add_argument("--undo", action="store_true", help="go back to the voice before it was improved")
    blend = _command(commands, "blend", _blend, "mix voices into a new one")
    blend.add_argument("name", metavar="NAME")
    blend.add_argument("parts", metavar="VOICE=WEIGHT", nargs="+", help="two or more voices, such as Ada=2 Bob=1")

    _command(commands, "backups", _backups, "list the backups of the store")
    restore = _command(commands, "restore", _restore, "go back to a backup; repairs a damaged store")
    restore.add_argument("backup", metavar="BACKUP", nargs="?", help="its name; the newest good one when absent")


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)
    return parser


def _add(options: argparse.Namespace) -> None:
    from engine.enrollment import enroll, find_recordings

    with _open_store() as store:
        store.check_name(options.name)
        files = find_recordings(options.files)
        consent = _consent(options)

        def work(ctx: JobContext) -> VoiceRecord:
            return enroll(store, options.name, files, consent=consent, reduce_noise=options.reduce_noise, ctx=ctx)

        _tell(options, run_with_progress(work, quiet=options.quiet), "Made")


def _consent(options: argparse.Namespace) -> str:
    consent = options.consent
    if consent is None and sys.stdin.isatty():
        consent = input(_CONSENT_QUESTION)
    if consent is None or not consent.strip():
        raise UsageError("--consent TEXT is needed: whose voice it is, and that they agreed")
    return str(consent).strip()


def _list(options: argparse.Namespace) -> None:
    with _open_store() as store:
        records = store.voices()
    if options.json:
        print_json([_as_json(record) for record in records])
        return
    width = max((len(record.name) for record in records), default=0)
    for record in records:
        pitch = f"{record.median_f0_hz:4.0f} Hz"
        made = "comes with AutoVoice" if record.builtin else f"{record.seconds:4.0f} s, {record.quality}"
        print(f"{record.name:<{width}}  {pitch}  {made}")
    if not records:
        print("No voices yet: autovoice voice add NAME FILE...", file=sys.stderr)


def _show(options: argparse.Namespace) -> None:
    with _open_store() as store:
        record = store.voice(options.name)
        whole = {
            **_as_json(record),
            "recordings": [
                {
                    "name": one.source_name,
                    "seconds": one.seconds,
                    "voiced_seconds": one.voiced_seconds,
                    "original": str(one.original),
                    "processed": str(one.processed),
                    "assessment": dict(one.assessment),
                }
                for one in store.recordings(record)
            ],
        }
    if options.json:
        print_json(whole)
        return
    low, high = record.f0_range_hz
    print(record.name)
    print(f"  Pitch       {record.median_f0_hz:.0f} Hz, from {low:.0f} to {high:.0f} Hz")
    made = f"{record.seconds:.0f} s in {record.num_recordings} recordings ({record.origin})"
    print(f"  Made from   {'training speakers; it comes with AutoVoice' if record.builtin else made}")
    print(f"  Quality     {record.quality}")
    for message in record.messages:
        print(f"              {message}")
    print(f"  Consent     {record.consent or 'not noted'}")
    if record.is_improved:
        print("  Improved    yes; `voice improve NAME --undo` goes back")
    if record.notes:
        print(f"  Notes       {record.notes}")


def _remove(options: argparse.Namespace) -> None:
    with _open_store() as store:
        record = store.voice(options.name)
        store.delete(record)
        store.maintain()
    _say(options, {"removed": record.name}, f"Removed '{record.name}'; `voice bring-back` undoes it for 30 days.")


def _bring_back(options: argparse.Namespace) -> None:
    with _open_store() as store:
        for record in store.deleted_voices():
            if options.name in (record.id, record.name):
                _tell(options, store.undelete(record), "Brought back")
                return
        names = ", ".join(record.name for record in store.deleted_voices())
    raise StoreError(f"No deleted voice is named '{options.name}'.", hint=f"Deleted: {names}." if names else "")


def _rename(options: argparse.Namespace) -> None:
    with _open_store() as store:
        _tell(options, store.rename(store.voice(options.name), options.new_name), "Now named")


def _export(options: argparse.Namespace) -> None:
    with _open_store() as store:
        record = store.voice(options.name)
        run_with_progress(lambda ctx: export_voice(store, record, options.file, ctx), quiet=options.quiet)
    _say(options, {"exported": record.name, "file": str(options.file)}, f"Wrote '{record.name}' to {options.file}.")


def _import(options: argparse.Namespace) -> None:
    with _open_store() as store:

        def work(ctx: JobContext) -> VoiceRecord:
            return import_voice(store, options.file, name=options.name, ctx=ctx)

        _tell(options, run_with_progress(work, quiet=options.quiet), "Imported")


def _improve(options: argparse.Namespace) -> None:
    from engine.enrollment import improve

    with _open_store() as store:
        record = store.voice(options.name)
        if options.undo:
            _tell(options, store.undo_improvement(record), "Went back to the earlier")
            return
        outcome = run_with_progress(lambda ctx: improve(store, record, ctx=ctx), quiet=options.quiet)
    change = f"similarity {outcome.similarity_before:.3f} before, {outcome.similarity_after:.3f} after"
    said = "Improved" if outcome.kept else "Left as it was, because it did not help:"
    value = {
        "voice": record.name,
        "kept": outcome.kept,
        "similarity_before": outcome.similarity_before,
        "similarity_after": outcome.similarity_after,
    }
    _say(options, value, f"{said} '{record.name}': {change}.")


def _blend(options: argparse.Namespace) -> None:
    from engine.enrollment import blend

    parts = []
    with _open_store() as store:
        for part in options.parts:
            name, found, weight = part.rpartition("=")
            try:
                parts.append((store.voice(name if found else part), float(weight) if found else 1.0))
            except ValueError as error:
                raise UsageError(f"'{part}' is not VOICE=WEIGHT") from error
        if len(parts) < 2 or any(weight <= 0 for _, weight in parts):
            raise UsageError("a blend needs two voices or more, each with a weight above 0")
        _tell(options, blend(store, options.name, parts), "Made")


def _backups(options: argparse.Namespace) -> None:
    with _open_store() as store:
        backups = store.backups()
    if options.json:
        print_json([{**one.__dict__, "path": str(one.path)} for one in backups])
        return
    for one in backups:
        print(f"{one.path.name}  {one.num_voices} voices")


def _restore(options: argparse.Namespace) -> None:
    try:
        store = Store(default_data_folder())
    except StoreDamagedError as error:
        repaired, found = repair_store(error.folder, error.backup)
        repaired.close()
        also = f" Found again in their files: {', '.join(found)}." if found else ""
        value = {"restored": str(error.backup) if error.backup else None, "found": found}
        said = f"Restored {error.backup.name}" if error.backup else "Started a new database"
        _say(options, value, f"{said}; the damaged one is kept beside it.{also}")
        return
    with store:
        backups = store.backups()
        wanted = [one for one in backups if options.backup in (None, one.path.name)]
        if not wanted:
            raise StoreError(f"There is no sound backup named '{options.backup}'.", hint="See `voice backups`.")
        store.restore(wanted[0])
    _say(options, {"restored": str(wanted[0].path), "found": []}, f"Went back to {wanted[0].path.name}.")


def _open_store() -> Store:
    try:
        return Store(default_data_folder())
    except StoreDamagedError as error:
        raise StoreError(error.message, hint=f"{error.hint} Do it with `autovoice voice restore`.") from error


def _tell(options: argparse.Namespace, record: VoiceRecord, said: str) -> None:

    _say(options, _as_json(record), f"{said} '{record.name}'.")
    if not options.json and not options.quiet:
        for message in record.messages:
            print(f"  {message}", file=sys.stderr)


def _say(options: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    if options.json:
        print_json(value)
    elif not options.quiet:
        print(text)


def _as_json(record: VoiceRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "builtin": record.builtin,
        "origin": record.origin,
        "created": record.created,
        "last_used": record.last_used,
        "median_f0_hz": record.median_f0_hz,
        "f0_range_hz": list(record.f0_range_hz),
        "seconds": record.seconds,
        "quality": record.quality,
        "messages": list(record.messages),
        "consent": record.consent,
        "notes": record.notes,
        "colour": record.colour,
        "model_id": record.model_id,
        "is_improved": record.is_improved,
        "similarity": record.similarity,
    }
