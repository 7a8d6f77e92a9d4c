"""A song on the Convert page: its file, its waveform, what was made of it and what the user edited."""

import enum
import os
import shutil
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PySide6.QtCore import QObject, Signal

from autovoice_app.demo import demo_song
from autovoice_app.pitch_edits import PitchEdits
from engine.errors import AudioFileError
from engine.jobs import JobContext
from engine.pitch import F0Contour
from engine.signal import AudioReader, AudioWriter, FloatArray, PeakBuilder, PeakPyramid

if TYPE_CHECKING:
    from autovoice_app.tasks import EngineTask
    from engine.rendering import FoundPitch, RenderOptions
    from engine.store import Store
    from engine.store.records import RenderRecord, VoiceRecord

ORIGINAL, CONVERTED, CONVERTED_VOCALS = "original", "converted", "converted vocals"
VOCALS, ACCOMPANIMENT = "vocals", "accompaniment"
_PITCH_FILE = "pitch.npz"
_SHOWN_EVERY_S = 0.5
_LEFT_OVER_S = 86_400.0  # an unfinished conversion this old is not being worked on
KEPT_BYTES = 4_000_000_000  # renders beyond this are removed, oldest first


class State(enum.Enum):
    """Where a song stands; the value is what the list says."""

    NEW = "Not converted yet"
    WAITING = "Waiting"
    RUNNING = "Converting"
    DONE = "Converted"
    FAILED = "Failed"


@dataclass(frozen=True, eq=False)
class Rendering:
    """What a conversion made, as the window needs it.

    Attributes:
        folder: Holds all of it; kept in the data folder until pruned.
        files: Version -> file, apart from the original.
        peaks: Of the mix.
        source_f0: Pitch of the original vocals, or None when none was kept.
        transpose_semitones: The key that was used.
        semitones: [T] the edits that were sung, on source_f0's frames.
        voice_name: Whose voice.
        preset: How.
        report: What rendering reported.
    """

    folder: Path
    files: dict[str, Path]
    peaks: PeakPyramid
    source_f0: F0Contour | None
    transpose_semitones: float
    semitones: FloatArray
    voice_name: str
    preset: str
    report: dict[str, Any] = field(default_factory=dict)


class Song(QObject):
    """One entry of the queue."""

    changed = Signal()

    def __init__(self, path: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.path = path
        self.state = State.NEW
        self.duration_s = 0.0
        self.peaks: PeakPyramid | None = None
        self.reading: Reading | None = None
        self.error = ""
        self.task: EngineTask | None = None
        self.rendering: Rendering | None = None
        self.edits: PitchEdits | None = None
        self.found: FoundPitch | None = None
        self.place_s = 0.0

    @property
    def title(self) -> str:
        """What it is called on the page."""
        return title_of(self.path)

    @property
    def is_busy(self) -> bool:
        """Whether it waits for its conversion or is in it."""
        return self.state in (State.WAITING, State.RUNNING)

    @property
    def versions(self) -> dict[str, Path]:
        """What can be heard."""
        files = {} if self.peaks is None else {ORIGINAL: self.path}
        return {**files, **(self.rendering.files if self.rendering else {})}

    @property
    def has_new_edits(self) -> bool:
        """Whether the pitch was edited since it was last converted."""
        if self.edits is None or self.rendering is None:
            return False
        return not np.array_equal(self.edits.semitones, self.rendering.semitones)

    def show_waveform(self, peaks: PeakPyramid) -> None:
        """Take the waveform over from the file lane."""
        self.peaks, self.duration_s, self.reading = peaks, peaks.seconds, None
        self.changed.emit()

    def take(self, rendering: Rendering) -> None:
        """Take a finished conversion over; edits of the same pitch contour stay, with their undo."""
        self.rendering, self.state, self.error = rendering, State.DONE, ""
        if rendering.source_f0 is not None:
            self._take_contour(rendering.source_f0, rendering.semitones)
        self.changed.emit()

    def take_pitch(self, found: "FoundPitch") -> None:
        """Take the pitch of a conversion that still runs over; edits stay, as far as they fit."""
        edits = self.edits.semitones if self.edits is not None else None
        self.found = found
        self._take_contour(found.source_f0, edits)
        self.changed.emit()

    def _take_contour(self, contour: F0Contour, semitones: FloatArray | None) -> None:
        """Show another contour with these edits, or none; the one that is shown already keeps its own, with undo."""
        if self.edits is not None and np.array_equal(self.edits.source.f0_hz, contour.f0_hz, equal_nan=True):
            return
        self.edits = PitchEdits(contour, self)
        if semitones is not None:
            self.edits.restore(semitones)


@dataclass
class Reading:
    """A song's waveform while it is read: the file lane fills it, a timer of the page looks at it.

    Attributes:
        peaks: Of what was read so far; replaced whole.
        duration_s: As the file's header states it.
    """

    peaks: PeakPyramid | None = None
    duration_s: float = 0.0


def read(store: "Store", path: Path, reading: Reading, ctx: JobContext) -> tuple[PeakPyramid, Rendering | None]:
    """Draw a song's waveform, and find its last conversion again. Runs in the file lane.

    Args:
        store: Knows the conversions.
        path: The song.
        reading: Shows the waveform as it grows, twice a second.
        ctx: Progress and cancellation.

    Raises:
        AudioFileError: The file is missing, empty, without sound, or not decodable.
        Cancelled: The user took the song off the list.
    """
    with AudioReader(path) as reader:
        builder = PeakBuilder(reader.info.sample_rate)
        shown_at = time.monotonic()
        for block in reader.blocks(2**17):
            builder.push(block)
            ctx.checkpoint("Reading the waveform", builder.num_samples / max(reader.info.num_samples, 1))
            if time.monotonic() - shown_at > _SHOWN_EVERY_S:
                shown_at = time.monotonic()
                reading.duration_s, reading.peaks = reader.info.seconds, builder.finish()
    if not builder.num_samples:
        raise AudioFileError(f"“{path.name}” holds no sound.", hint="Export or download it again.")
    before = next((render for render in store.renders() if render.source == path), None)
    return builder.finish(), reopen(before, ctx) if before is not None else None


def convert(
    store: "Store",
    source: Path,
    folder: Path,
    voice: "VoiceRecord",
    options: "RenderOptions",
    semitones: FloatArray | None,
    ctx: JobContext,
) -> Rendering:
    """Convert one song into a new folder and note it in the history. Runs in the engine lane.

    Args:
        store: Gives the voice, takes the note.
        source: The song.
        folder: Made here; removed again after an error or cancellation.
        voice: Whose voice.
        options: As chosen.
        semitones: [T] the pitch edits in `options`, to be kept beside the result, or None.
        ctx: Progress and cancellation.

    Raises:
        AutoVoiceError: As `render_song` and `Store.load_voice` do.
        Cancelled: The user stopped it.
    """
    from engine.rendering import render_song

    ctx.checkpoint("Loading the voice", 0.0)
    voice_data = store.load_voice(voice, ctx.part(0.0, 0.02))
    try:
        folder.mkdir(parents=True)
        result = render_song(
            source, folder / "mix.wav", voice_data, options, ctx.part(0.02, 1.0), stems_folder=folder / "stems"
        )
        contour = result.source_f0
        if semitones is None or len(semitones) != contour.num_frames:
            semitones = np.zeros(contour.num_frames, np.float32)
        np.savez(folder / _PITCH_FILE, f0_hz=contour.f0_hz, periodicity=contour.periodicity, semitones=semitones)
        store.add_render(
            source,
            result.destination,
            voice=voice,
            preset=options.preset,
            stems_folder=folder / "stems",
            options={
                "transpose": options.transpose,
                "separation": options.separation,
                "reused_stems": options.reuse_stems is not None,
                "pitch_edited": bool(np.any(semitones)),
            },
            report=result.report,
        )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise AudioFileError(
            f"The result cannot be kept in “{folder.parent}”: {error.strerror}.",
            hint="Make room on the disk, or choose another data folder with AUTOVOICE_HOME.",
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Rendering(
        folder,
        _files_in(folder),
        result.mix_peaks,
        contour,
        float(result.report["transpose_semitones"]),
        semitones,
        voice.name,
        options.preset,
        result.report,
    )


def reopen(record: "RenderRecord", ctx: JobContext) -> Rendering | None:
    """Find an earlier conversion's files again; None when they were pruned or moved. Runs in the file lane."""
    folder = record.destination.parent
    files = _files_in(folder)
    if files.get(CONVERTED) != record.destination or not (folder / _PITCH_FILE).exists():
        return None
    with np.load(folder / _PITCH_FILE, allow_pickle=False) as kept:
        contour = F0Contour(kept["f0_hz"], kept["periodicity"])
        semitones = kept["semitones"]
    transpose = float(record.report.get("transpose_semitones", 0.0))
    peaks = PeakPyramid.from_file(record.destination, ctx)
    return Rendering(
        folder, files, peaks, contour, transpose, semitones, record.voice_name, record.preset, dict(record.report)
    )


def _files_in(folder: Path) -> dict[str, Path]:
    names = {
        CONVERTED: folder / "mix.wav",
        CONVERTED_VOCALS: folder / "stems" / "converted.wav",
        VOCALS: folder / "stems" / "vocals.wav",
        ACCOMPANIMENT: folder / "stems" / "accompaniment.wav",
    }
    return {key: path for key, path in names.items() if path.exists()}


def title_of(path: Path) -> str:
    """What a song is called."""
    return "Demo song" if path == demo_song() else path.stem


def new_folder(data_folder: Path) -> Path:
    """A folder, not made yet, for one conversion."""
    return data_folder / "renders" / uuid.uuid4().hex


def export(files: list[tuple[Path, Path]], ctx: JobContext) -> list[Path]:
    """Write copies of sounds in the formats that the destinations' endings name. Runs in the file lane.

    Args:
        files: (source, destination) pairs.
        ctx: Progress and cancellation.

    Returns:
        The destinations.

    Raises:
        AudioFileError: A source is gone, or a folder is read-only or full; files finished before that stay.
        Cancelled: The user stopped it.
    """
    for number, (source, destination) in enumerate(files):
        part = ctx.part(number / len(files), (number + 1) / len(files))
        if destination.exists() and os.path.samefile(source, destination):
            raise AudioFileError(f"“{destination.name}” cannot be written onto itself.", hint="Choose another folder.")
        with AudioReader(source) as reader:
            info = reader.info
            with AudioWriter(
                destination, info.sample_rate, info.num_channels, num_samples_hint=info.num_samples
            ) as writer:
                done = 0
                for block in reader.blocks(2**16):
                    writer.write(block)
                    done += block.shape[1]
                    part.checkpoint(f"Writing {destination.name}", done / max(info.num_samples, 1))
    return [destination for _, destination in files]


def prune(
    store: "Store", data_folder: Path, shown: Collection[str], ctx: JobContext, limit_bytes: int = KEPT_BYTES
) -> int:
    """Remove what a crash left, and the oldest kept conversions until the rest fits. Runs in the file lane.

    Args:
        store: Knows which conversion belongs to which song.
        data_folder: Whose "renders" folder is meant.
        shown: Songs on the list; their last conversions stay.
        ctx: Cancellation.
        limit_bytes: What may stay.

    Returns:
        How many were removed.
    """
    root = data_folder / "renders"
    if not root.is_dir():
        return 0
    last = {str(render.source): render.destination.parent for render in reversed(store.renders())}
    keep = {folder for source, folder in last.items() if source in shown}
    folders = sorted((f for f in root.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime, reverse=True)
    total = removed = 0
    for number, folder in enumerate(folders):
        ctx.checkpoint("Tidying up", number / len(folders))
        total += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        is_left_over = not (folder / "mix.wav").exists() and time.time() - folder.stat().st_mtime > _LEFT_OVER_S
        if is_left_over or (total > limit_bytes and folder not in keep):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed
