"""From recordings to a voice in the store."""

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.enrollment.activity import Heard, hear
from engine.enrollment.assessment import NEEDED_VOICED_S, SILENCE_DBFS, WANTED_VOICED_S, Assessment, assess_heard
from engine.enrollment.processing import process
from engine.enrollment.speakers import PERHAPS_SEVERAL, SURELY_SEVERAL, unity
from engine.errors import AudioFileError, EnrollmentError
from engine.jobs import JobContext
from engine.models import lease
from engine.signal import READABLE_ENDINGS, AudioClip, read_audio, resample, write_audio
from engine.store import NewRecording, Store, VoiceRecord

MAX_FILE_S = 1200.0
MAX_TOTAL_S = 3600.0
_EMBEDDED_S = 180.0
_SHORTEST_PART_S = 0.8
_SPOKEN_SHARE = 0.8  # of a take that is being read; the rest is pauses


@dataclass(frozen=True)
class Take:
    """One recording offered for a voice.

    Attributes:
        name: What the user knows it by.
        clip: The sound as it was recorded.
        path: Its file, kept as it is; None for a take from the microphone.
        heard: Where the voice is in it.
        assessment: What it is worth.
    """

    name: str
    clip: AudioClip
    path: Path | None
    heard: Heard
    assessment: Assessment


def find_recordings(paths: Iterable[Path]) -> list[Path]:
    """The audio files among some paths, folders searched whole, in order of name.

    Raises:
        AudioFileError: there is none, or a path does not exist.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
            found |= dict.fromkeys(one for one in inside if one.suffix.lower().lstrip(".") in READABLE_ENDINGS)
        elif path.exists():
            found[path] = None
        else:
            raise AudioFileError(f"{path.name} does not exist.", hint="Check the path.")
    if not found:
        raise AudioFileError("There is no audio file there.", hint=f"Readable: {', '.join(READABLE_ENDINGS)}.")
    return list(found)


def take_file(path: Path, *, ctx: JobContext | None = None) -> Take:
    """Read and judge one file as a part of a voice.

    Raises:
        AudioFileError: it cannot be read.
        EnrollmentError: it is too long.
    """
    clip = read_audio(path, max_seconds=MAX_FILE_S + 1.0)
    if clip.seconds > MAX_FILE_S:
        raise EnrollmentError(
            f"{path.name} is longer than {MAX_FILE_S / 60:.0f} minutes.",
            hint="Half a minute to five minutes is plenty.",
        )
    return _take(path.name, clip, path, ctx)


def take_clip(clip: AudioClip, name: str, *, ctx: JobContext | None = None) -> Take:
    """Judge one take from the microphone as a part of a voice."""
    return _take(name, clip, None, ctx)


def _take(name: str, clip: AudioClip, path: Path | None, ctx: JobContext | None) -> Take:
    ctx = ctx or JobContext()
    ctx.checkpoint("Listening for a voice", 0.0)
    heard = hear(clip)
    return Take(name, clip, path, heard, assess_heard(clip, heard, needed_s=_SHORTEST_PART_S, ctx=ctx))


def still_missing(
    takes: Sequence[Take], *, recording_s: float = 0.0, held_peak_dbfs: float | None = None, clipped: bool = False
) -> str:
    """What is missing for a good voice, in words; empty when nothing is.

    Args:
        takes: Judged so far.
        recording_s: Length of the take that is being recorded.
        held_peak_dbfs: Its highest sample of the last seconds, or None when nothing is being recorded.
        clipped: Whether it reached full scale.
    """
    usable = [take for take in takes if take.assessment.verdict != "refused"]
    missing_s = WANTED_VOICED_S - sum(take.assessment.voiced_s for take in usable) - _SPOKEN_SHARE * recording_s
    wishes = [f"{math.ceil(missing_s)} s more"] if missing_s > 0 else []
    if held_peak_dbfs is not None:
        if clipped or held_peak_dbfs > -1.0:
            wishes.append("a little further from the microphone")
        elif recording_s > 1.0 and held_peak_dbfs < -26.0:
            wishes.append("a little closer to the microphone")
    elif takes:
        last = takes[-1].assessment
        if last.clipped_fraction > 0.0005:
            wishes.append("a little further from the microphone")
        elif last.verdict != "refused" and last.loudness_lufs < -36.0:
            wishes.append("a little closer to the microphone")
        if last.verdict != "refused" and last.snr_db < 20.0:
            wishes.append("in a quieter room")
    return ", ".join(wishes)


@dataclass(frozen=True)
class RoomNoise:
    """How quiet a room is when nobody speaks.

    Attributes:
        level_dbfs: Its level.
        is_quiet: Quiet enough for a good voice.
        message: One sentence.
    """

    level_dbfs: float
    is_quiet: bool
    message: str


def judge_room(clip: AudioClip) -> RoomNoise:
    """Judge some seconds of a microphone while nobody speaks.

    Args:
        clip: Mono, as recorded.
    """
    samples = clip.mono().samples[0]
    hop = max(clip.sample_rate // 20, 1)
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    if not len(frames):
        return RoomNoise(SILENCE_DBFS, False, "The microphone gave no sound.")
    powers = np.mean(np.square(frames, dtype=np.float64), axis=1)
    level = max(10.0 * math.log10(float(np.median(powers)) + 1e-12), SILENCE_DBFS)
    if level <= -90.0:
        return RoomNoise(level, True, "No sound at all: make sure that the microphone is not muted.")
    if level < -55.0:
        return RoomNoise(level, True, "The room is quiet.")
    if level < -42.0:
        return RoomNoise(level, True, "There is some noise in the room; quieter is better.")
    return RoomNoise(level, False, "The room is noisy: close windows, stop fans, or come closer to the microphone.")


def check_takes(takes: Sequence[Take]) -> tuple[list[Take], tuple[str, ...]]:
    """Which takes make the voice, and the warnings that go with it.

    Raises:
        EnrollmentError: they are too little, or several people were heard; nothing can be made of them.
    """
    usable = [take for take in takes if take.assessment.verdict != "refused"]
    refused = [take for take in takes if take.assessment.verdict == "refused"]
    if any(take.assessment.speakers_suspected > 1 for take in refused):
        take = next(take for take in refused if take.assessment.speakers_suspected > 1)
        raise EnrollmentError(
            f"More than one person is heard in {take.name}.", hint="Use recordings of one person alone."
        )
    if not usable:
        if len(refused) == 1:
            raise EnrollmentError(refused[0].assessment.messages[0], hint=_hint(refused[0]))
        reasons = {take.assessment.messages[0] for take in refused}
        raise EnrollmentError("None of the recordings can be used.", hint=" ".join(sorted(reasons)))
    voiced_s = sum(take.assessment.voiced_s for take in usable)
    if voiced_s < NEEDED_VOICED_S:
        raise EnrollmentError(
            f"The recordings hold {voiced_s:.0f} s of voice; at least {NEEDED_VOICED_S:.0f} s are needed.",
            hint=f"Speak or sing for {WANTED_VOICED_S:.0f} s or longer.",
        )
    warnings: dict[str, None] = {}
    if voiced_s < WANTED_VOICED_S:
        warnings[f"Made from {voiced_s:.0f} s of voice; {WANTED_VOICED_S:.0f} s or more sound closer."] = None
    for take in usable:
        warnings |= dict.fromkeys(take.assessment.messages)
    warnings |= {f"{take.name} was left out: {take.assessment.messages[0]}": None for take in refused}
    return usable, tuple(warnings)


def enroll(
    store: Store,
    name: str,
    recordings: Sequence[Path | AudioClip | Take],
    *,
    consent: str,
    reduce_noise: bool = False,
    notes: str = "",
    ctx: JobContext | None = None,
) -> VoiceRecord:
    """Make a voice and save it.

    Args:
        store: Where it is kept.
        name: Its name.
        recordings: Files, clips from the microphone, or takes judged before.
        consent: Whose voice it is and that they agreed.
        reduce_noise: Lower steady background noise in the processed copies; the originals stay as they are.
        notes: The user's own.
        ctx: Progress and cancellation; nothing is stored when cancelled.

    Raises:
        EnrollmentError: too short, silent, distorted beyond use, or several people; nothing is stored.
        AudioFileError: a file cannot be read.
        StoreError: the name is taken, or the disk refuses.
        EngineBusyError: another job has the models.
    """
    from engine.conversion import embed_voice

    ctx = ctx or JobContext()
    name = store.check_name(name)
    takes = []
    for index, recording in enumerate(recordings):
        part = ctx.part(0.4 * index / len(recordings), 0.4 * (index + 1) / len(recordings))
        if isinstance(recording, Take):
            takes.append(recording)
        elif isinstance(recording, AudioClip):
            takes.append(take_clip(recording, f"take {index + 1}", ctx=part))
        else:
            takes.append(take_file(recording, ctx=part))
        if sum(take.clip.seconds for take in takes) > MAX_TOTAL_S:
            raise EnrollmentError(
                f"The recordings are longer than {MAX_TOTAL_S / 60:.0f} minutes together.",
                hint="One to five minutes are plenty.",
            )
    usable, warnings = check_takes(takes)
    processed = []
    for index, take in enumerate(usable):
        ctx.checkpoint("Preparing the recordings", 0.4 + 0.2 * index / len(usable))
        processed.append(process(take.clip, reduce_noise=reduce_noise, heard=take.heard))
    best = _best(usable, processed)
    with lease():
        if len(usable) > 1:
            warnings += _one_person(best)
        voice = embed_voice(best, name=name, ctx=ctx.part(0.6, 0.9))
    kept = []
    for index, (take, clip) in enumerate(zip(usable, processed, strict=True)):
        ctx.checkpoint("Saving", 0.9 + 0.05 * index / len(usable))
        kept.append(
            NewRecording(
                source_name=take.name,
                original=take.path if take.path is not None else as_flac(take.clip),
                original_suffix=take.path.suffix if take.path is not None else ".flac",
                processed=as_flac(clip),
                seconds=take.clip.seconds,
                voiced_seconds=take.assessment.voiced_s,
                assessment=take.assessment.as_json(),
            )
        )
    return store.add_voice(
        voice,
        consent=consent,
        recordings=kept,
        seconds=sum(take.assessment.voiced_s for take in usable),
        quality="poor" if warnings else "good",
        messages=warnings,
        notes=notes,
        ctx=ctx.part(0.95, 1.0),
    )


def as_flac(clip: AudioClip) -> bytes:
    """The bytes of a 24-bit FLAC file."""
    with tempfile.TemporaryDirectory(prefix="autovoice-") as folder:
        path = Path(folder) / "clip.flac"
        write_audio(path, clip)
        return path.read_bytes()


def _best(takes: Sequence[Take], processed: Sequence[AudioClip]) -> list[AudioClip]:
    """The cleanest clips, up to three minutes: more does not change a voice, only takes longer."""
    order = sorted(range(len(takes)), key=lambda index: -takes[index].assessment.snr_db)
    chosen, seconds = [], 0.0
    for index in order:
        clip, left = processed[index], _EMBEDDED_S - seconds
        if left < 1.0:
            break
        if clip.seconds > left:
            clip = AudioClip(clip.samples[:, : int(left * clip.sample_rate)], clip.sample_rate)
        if clip.num_samples:
            chosen.append(clip)
            seconds += clip.seconds
    return chosen


def _one_person(clips: Sequence[AudioClip]) -> tuple[str, ...]:
    """A warning when the takes may be of several people.

    Raises:
        EnrollmentError: they surely are.
    """
    rate = clips[0].sample_rate
    likeness = unity(AudioClip(np.concatenate([resample(clip, rate).samples for clip in clips], axis=1), rate))
    if likeness < SURELY_SEVERAL:
        raise EnrollmentError(
            "More than one person is heard in these recordings.", hint="Use recordings of one person alone."
        )
    return ("Perhaps more than one person is heard in these recordings.",) if likeness < PERHAPS_SEVERAL else ()


def _hint(take: Take) -> str:
    if take.assessment.voiced_s < NEEDED_VOICED_S:
        return f"Speak or sing for {WANTED_VOICED_S:.0f} s or longer, close to the microphone."
    return "Record again as the message says."
