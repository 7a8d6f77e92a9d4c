"""The corpus as the training stages see it: rows of `manifest.csv`, checked once on reading."""

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import TrainingError

COLUMNS = ("path", "set", "speaker", "language", "seconds", "bandwidth_hz", "licence", "text")


@dataclass(frozen=True)
class Utterance:
    """One recording of one person.

    Attributes:
        path: The audio file.
        key: Its path below the corpus folder without the ending ("train/vctk/p239/p239_001"); names cached files.
        set_name: The data set it comes from.
        speaker: Who speaks, unique over all sets.
        language: ISO 639-1 code.
        seconds: Duration, s.
        bandwidth_hz: Highest frequency that the recording really holds, Hz.
        licence: Licence of the recording.
        text: What is said; empty where nobody wrote it down.
        speed: At which the recording is played.
    """

    path: Path
    key: str
    set_name: str
    speaker: str
    language: str
    seconds: float
    bandwidth_hz: float
    licence: str
    text: str
    speed: float = 1.0


def read_manifest(corpus: Path, split: str) -> list[Utterance]:
    """Read `corpus/split/manifest.csv`.

    Args:
        corpus: Folder with `train` and `dev` below it.
        split: "train" or "dev".

    Returns:
        The utterances in the order of the file.

    Raises:
        TrainingError: The manifest is missing, lacks a column, is empty, or a row is unusable: no number where one
            belongs, a path outside the folder, or a path that occurs twice.
    """
    folder = corpus / split
    manifest = folder / "manifest.csv"
    try:
        with manifest.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise TrainingError(f"{manifest} lacks the columns {', '.join(missing)}.", hint=f"Needed: {COLUMNS}.")
            utterances = [_utterance(folder, split, row, f"{manifest}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(
            f"The manifest {manifest} cannot be read: {error}.", hint="Name the corpus folder with --corpus."
        ) from error
    if not utterances:
        raise TrainingError(f"The manifest {manifest} has no rows.")
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.key in seen:
            raise TrainingError(f"{manifest} names {utterance.path} twice.", hint="Remove one of the rows.")
        seen.add(utterance.key)
    return utterances


def _utterance(folder: Path, split: str, row: dict[str, str], place: str) -> Utterance:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    path = Path(values["path"])
    if not values["path"] or path.is_absolute() or ".." in path.parts:
        raise TrainingError(f"{place}: the path '{path}' does not lie below {folder}.")
    try:
        seconds, bandwidth_hz = float(values["seconds"]), float(values["bandwidth_hz"])
    except ValueError as error:
        raise TrainingError(f"{place}: {error}.", hint="`seconds` and `bandwidth_hz` are numbers.") from error
    if not seconds > 0 or not bandwidth_hz > 0:
        raise TrainingError(f"{place}: seconds and bandwidth_hz must be above zero.")
    if not values["speaker"] or not values["set"]:
        raise TrainingError(f"{place}: set and speaker must be named.")
    return Utterance(
        path=folder / path,
        key=f"{split}/{path.with_suffix('').as_posix()}",
        set_name=values["set"],
        speaker=values["speaker"],
        language=values["language"],
        seconds=seconds,
        bandwidth_hz=bandwidth_hz,
        licence=values["licence"],
        text=values["text"],
    )


def with_speeds(utterances: Sequence[Utterance], speeds: Sequence[float]) -> list[Utterance]:
    """The utterances, and each speaker's once more at one of `speeds`: pitch and formants move, somebody else speaks.

    Which speed depends on the speaker's name alone. Source: Ko et al., "Audio augmentation for speech recognition",
    Interspeech 2015; Yamamoto et al., "Speaker augmentation and bandwidth extension for deep speaker embedding",
    Interspeech 2019.
    """
    if not speeds:
        return list(utterances)
    return [*utterances, *(_at_speed(u, speeds[zlib.crc32(u.speaker.encode()) % len(speeds)]) for u in utterances)]


def _at_speed(utterance: Utterance, speed: float) -> Utterance:
    return replace(
        utterance,
        key=f"{utterance.key}@{speed:g}",
        speaker=f"{utterance.speaker}@{speed:g}",
        seconds=utterance.seconds / speed,
        bandwidth_hz=utterance.bandwidth_hz * speed,
        speed=speed,
    )
