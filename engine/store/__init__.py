"""Voices, renders, jobs and settings on disk: SQLite, and files named by hash.

The only place that touches sqlite3. Start with `Store`; a damaged database goes to `repair_store`.
"""

from engine.store.archive import export_voice, import_voice
from engine.store.faults import StoreDamagedError
from engine.store.names import default_data_folder, file_name
from engine.store.records import (
    BackupRecord,
    JobRecord,
    NewRecording,
    RecordingRecord,
    RenderRecord,
    VoiceRecord,
)
from engine.store.repair import repair_store
from engine.store.store import Store

__all__ = [
    "BackupRecord",
    "JobRecord",
    "NewRecording",
    "RecordingRecord",
    "RenderRecord",
    "Store",
    "StoreDamagedError",
    "VoiceRecord",
    "default_data_folder",
    "export_voice",
    "file_name",
    "import_voice",
    "repair_store",
]
