"""What the program did and was asked to do: renders, jobs, settings. The other half of the store's front."""

import json
import sqlite3
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from engine.store.records import JobRecord, RenderRecord, VoiceRecord

_SETTINGS_KEPT = 20


class History:
    """Renders, jobs and settings versions; a part of `Store`, which brings the connections."""

    def _reading(self, doing: str) -> AbstractContextManager[sqlite3.Connection]:
        raise NotImplementedError

    def _writing(self, doing: str) -> AbstractContextManager[sqlite3.Connection]:
        raise NotImplementedError

    def add_render(
        self,
        source: Path,
        destination: Path,
        *,
        voice: VoiceRecord | None,
        voice_name: str = "",
        preset: str,
        stems_folder: Path | None = None,
        options: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> RenderRecord:
        """Keep what a finished conversion was made from and with.

        Args:
            source: The song.
            destination: The mix that was written.
            voice: The voice, or None when a recording was given by path.
            voice_name: What to call it then.
            preset: Name of the preset.
            stems_folder: Where the stems lie, or None.
            options: How it was asked for, JSON values only.
            report: What rendering reported, JSON values only.
        """
        record = RenderRecord(
            id=uuid.uuid4().hex,
            created=time.time(),
            source=source,
            destination=destination,
            voice_id=voice.id if voice else None,
            voice_name=voice.name if voice else voice_name,
            preset=preset,
            stems_folder=stems_folder,
            options=dict(options or {}),
            report=dict(report or {}),
        )
        with self._writing("note the conversion") as connection:
            connection.execute(
                "INSERT INTO renders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.id,
                    record.created,
                    str(source),
                    str(destination),
                    record.voice_id,
                    record.voice_name,
                    preset,
                    str(stems_folder) if stems_folder else None,
                    json.dumps(record.options),
                    json.dumps(record.report),
                ),
            )
            if voice is not None and not voice.builtin:
                connection.execute("UPDATE voices SET last_used = ? WHERE id = ?", (record.created, voice.id))
        return record

    def renders(self, limit: int = 200) -> list[RenderRecord]:
        """The last conversions, newest first."""
        with self._reading("list the conversions") as connection:
            rows = connection.execute("SELECT * FROM renders ORDER BY created DESC LIMIT ?", (limit,)).fetchall()
        return [
            RenderRecord(
                id=row["id"],
                created=row["created"],
                source=Path(row["source"]),
                destination=Path(row["destination"]),
                voice_id=row["voice_id"],
                voice_name=row["voice_name"],
                preset=row["preset"],
                stems_folder=Path(row["stems_folder"]) if row["stems_folder"] else None,
                options=json.loads(row["options"]),
                report=json.loads(row["report"]),
            )
            for row in rows
        ]

    def forget_render(self, record: RenderRecord) -> None:
        """Take a conversion off the list; its files stay."""
        with self._writing("forget the conversion") as connection:
            connection.execute("DELETE FROM renders WHERE id = ?", (record.id,))

    def add_job(self, kind: str, title: str, parameters: Mapping[str, Any]) -> JobRecord:
        """Queue a job, so that it is known after a restart.

        Args:
            kind: What sort of job, such as "render".
            title: For people.
            parameters: What it needs to start again, JSON values only.
        """
        record = JobRecord(uuid.uuid4().hex, kind, title, "waiting", time.time(), None, dict(parameters), "")
        with self._writing("queue the job") as connection:
            connection.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL, ?, '')",
                (record.id, kind, title, record.state, record.created, json.dumps(record.parameters)),
            )
        return record

    def set_job_state(self, record: JobRecord, state: str, *, error: str = "") -> JobRecord:
        """Note where a job stands: "waiting", "running", "done", "failed" or "cancelled"."""
        finished = time.time() if state in ("done", "failed", "cancelled") else None
        with self._writing("note the job") as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, finished = ?, error = ? WHERE id = ?", (state, finished, error, record.id)
            )
        values = {**record.__dict__, "state": state, "finished": finished, "error": error}
        return JobRecord(**values)

    def jobs(self, states: Collection[str] = ("waiting", "running")) -> list[JobRecord]:
        """Jobs in any of some states, oldest first; after a restart "running" means that it broke off."""
        marks = ", ".join("?" * len(states))
        with self._reading("list the jobs") as connection:
            rows = connection.execute(
                f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY created", tuple(states)
            ).fetchall()
        return [JobRecord(**{**dict(row), "parameters": json.loads(row["parameters"])}) for row in rows]

    def save_settings(self, settings: Mapping[str, Any]) -> None:
        """Keep a version of the settings unless it equals the last; the newest twenty stay."""
        saved = json.dumps(settings, sort_keys=True, ensure_ascii=False)
        with self._writing("save the settings") as connection:
            last = connection.execute("SELECT saved FROM settings_versions ORDER BY id DESC LIMIT 1").fetchone()
            if last is not None and last["saved"] == saved:
                return
            connection.execute("INSERT INTO settings_versions (created, saved) VALUES (?, ?)", (time.time(), saved))
            connection.execute(
                "DELETE FROM settings_versions WHERE id <= (SELECT max(id) FROM settings_versions) - ?",
                (_SETTINGS_KEPT,),
            )

    def settings_versions(self) -> list[tuple[float, dict[str, Any]]]:
        """Kept settings with their times, newest first."""
        with self._reading("list the settings") as connection:
            rows = connection.execute("SELECT created, saved FROM settings_versions ORDER BY id DESC").fetchall()
        return [(row["created"], json.loads(row["saved"])) for row in rows]
