"""The corpus that benchmarks read: a manifest of utterances, with who says them and what they say."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import AutoVoiceError
from engine.signal import AudioClip, read_audio, resample


@dataclass(frozen=True)
class Utterance:
    """One row of a manifest.

    Attributes:
        path: The audio file.
        set_name: The set that it belongs to, such as "librispeech".
        speaker: Name of the speaker, unique over all sets; ends in "unlabelled" where nobody wrote it down.
        seconds: Duration.
        text: What is said, lower or mixed case; empty where nobody wrote it down.
    """

    path: Path
    set_name: str
    speaker: str
    seconds: float
    text: str

    def read(self, sample_rate: int | None = None, *, max_seconds: float | None = None) -> AudioClip:
        """Decode to mono, at the file's own rate or at `sample_rate`."""
        clip = read_audio(self.path, max_seconds=max_seconds).mono()
        return clip if sample_rate in (None, clip.sample_rate) else resample(clip, sample_rate)


def read_manifest(folder: Path) -> list[Utterance]:
    """Read `folder/manifest.csv`; the columns path, set, speaker and seconds are needed, text is welcome.

    Raises:
        AutoVoiceError: The file is missing or lacks a column.
    """
    path = folder / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Utterance(
                    folder / row["path"], row["set"], row["speaker"], float(row["seconds"]), row.get("text") or ""
                )
                for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise AutoVoiceError(
            f"The corpus has no readable manifest at {path}.", hint="Give the folder that holds train/ and dev/."
        ) from error
    except (KeyError, ValueError) as error:
        raise AutoVoiceError(
            f"The manifest {path} is malformed: {error}.", hint="It needs the columns path, set, speaker and seconds."
        ) from error


def by_speaker(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Group utterances by speaker, in order of appearance."""
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(utterance.speaker, []).append(utterance)
    return groups
