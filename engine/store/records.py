"""What the store hands out: frozen rows, times in seconds since 1970 (UTC)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class VoiceRecord:
    """One voice profile.

    Attributes:
        id: Never changes; built-in voices are "builtin:NAME".
        name: As the user wrote it; unique whatever its case.
        created: When it was made.
        last_used: When it last converted something, or None.
        median_f0_hz: Median pitch of the recordings.
        f0_range_hz: Low and high pitch (5th and 95th percentile), Hz.
        seconds: Speech or song that the profile was made from.
        quality: "good" or "poor" (usable, made with a warning).
        messages: The warnings, in words.
        consent: Whose voice it is and that they agreed; may be empty.
        colour: "#rrggbb" of the card without a picture.
        notes: The user's own.
        origin: "recorded", "imported", "blend", "copy" or "builtin".
        model_id: Which models made the tensors.
        tensors: The safetensors file.
        picture: A small PNG, or None.
        is_improved: Few-shot adaptation changed it and can be undone.
        similarity: To its own held-out seconds after improving, or None.
        num_recordings: How many recordings are kept for it.
    """

    id: str
    name: str
    created: float
    last_used: float | None
    median_f0_hz: float
    f0_range_hz: tuple[float, float]
    seconds: float
    quality: str
    messages: tuple[str, ...]
    consent: str
    colour: str
    notes: str
    origin: str
    model_id: str
    tensors: Path
    picture: Path | None = None
    is_improved: bool = False
    similarity: float | None = None
    num_recordings: int = 0

    @property
    def builtin(self) -> bool:
        """Whether it ships with the program: it cannot be renamed or deleted."""
        return self.origin == "builtin"


@dataclass(frozen=True)
class NewRecording:
    """A recording on its way into the store.

    Attributes:
        source_name: What the user knows it by ("take 1", "interview.wav").
        original: The untouched recording: a file to copy, or the bytes of one.
        original_suffix: Ending that says its format, such as ".flac".
        processed: The same for a FLAC file: high-passed, trimmed, at -23 LUFS.
        seconds: Duration of the original.
        voiced_seconds: Speech or song in it.
        assessment: What `enrollment.assess` said, JSON values only.
    """

    source_name: str
    original: Path | bytes
    original_suffix: str
    processed: Path | bytes
    seconds: float
    voiced_seconds: float
    assessment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordingRecord:
    """A kept recording; fields as in `NewRecording`, with files in the store."""

    voice_id: str
    source_name: str
    seconds: float
    voiced_seconds: float
    original: Path
    processed: Path
    assessment: Mapping[str, Any]


@dataclass(frozen=True)
class RenderRecord:
    """One finished conversion of a song.

    Attributes:
        id: Random, never changes.
        created: When it finished.
        source: The song.
        destination: The mix that was written.
        voice_id: The voice's id, which may be deleted by now, or None for a recording given by path.
        voice_name: Its name then.
        preset: Name of the preset.
        stems_folder: Where the stems lie, or None.
        options: How it was asked for, JSON values only.
        report: What rendering reported, JSON values only.
    """

    id: str
    created: float
    source: Path
    destination: Path
    voice_id: str | None
    voice_name: str
    preset: str
    stems_folder: Path | None
    options: Mapping[str, Any]
    report: Mapping[str, Any]


@dataclass(frozen=True)
class JobRecord:
    """A job of the queue, so that what waited or broke off is known after a restart.

    Attributes:
        id: Random, never changes.
        kind: What sort of job, such as "render" or "improve".
        title: For people.
        state: "waiting", "running", "done", "failed" or "cancelled".
        created: When it was queued.
        finished: When it ended, or None.
        parameters: What it needs to start again, JSON values only.
        error: The sentence it failed with; empty otherwise.
    """

    id: str
    kind: str
    title: str
    state: str
    created: float
    finished: float | None
    parameters: Mapping[str, Any]
    error: str


@dataclass(frozen=True)
class BackupRecord:
    """A copy of the database.

    Attributes:
        path: The file.
        created: When it was made.
        num_voices: Voices in it.
        reason: "daily", "before-restore" or "before-migration".
    """

    path: Path
    created: float
    num_voices: int
    reason: str
