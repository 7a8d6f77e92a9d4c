"""Stage `align`: which phone is spoken in each 10 ms frame, by forced alignment of the transcripts.

PocketSphinx with its own US English model finds the words of the text in the recording, then the phones of the words.
Words that its dictionary lacks are pronounced by flite, where that program is installed. Frame-wise labels let the
content encoder learn from each frame at once; with connectionist temporal classification it learnt next to nothing
in the same time.
"""

import logging
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import TrainingError
from engine.phones import PHONES, SILENCE
from engine.training.cache import ArrayCache, AudioCache
from engine.training.config import Orders, build
from engine.training.manifest import Utterance, read_manifest

_log = logging.getLogger(__name__)

SAMPLE_RATE = 16000
FRAME_SAMPLES = 160  # labels lie at multiples of 10 ms, like the frames of engine.conversion.features
_ALIGNER_DELAY_FRAMES = 1  # PocketSphinx's frame f is centred at 10 f + 12.8 ms
_INDEX = {phone: index for index, phone in enumerate(PHONES)}
_FLITE_PHONES = {"ax": "AH", "axr": "ER", "el": "AH L", "em": "AH M", "en": "AH N", "pau": ""}


@dataclass(frozen=True)
class AlignConfig:
    """Settings of the stage.

    Attributes:
        sets: Data sets whose texts are aligned; all English ones.
        splits: Splits of the corpus.
        workers: Processes.
        worst_score: Utterances whose mean phone score per frame lies below are left out; the text or the accent is off.
    """

    sets: tuple[str, ...]
    splits: tuple[str, ...] = ("dev", "train")
    workers: int = 2
    worst_score: float = -60.0


def label_cache(cache: Path) -> ArrayCache:
    """Labels by utterance: uint8 [T], indices into PHONES, T = 1 + N // 160 at 16 kHz; [0] where alignment failed."""
    return ArrayCache(cache, "phones")


def words_of(text: str) -> list[str]:
    """The words of a transcript as the dictionary spells them: lower case, apostrophes kept, all else split."""
    plain = text.lower().replace("’", "'")
    return [word for word in (part.strip("'") for part in re.split(r"[^a-z0-9']+", plain)) if word]


class Aligner:
    """Finds the phones of known words in a recording."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(lm=None, loglevel="FATAL", samprate=SAMPLE_RATE, bestpath=False)

    def align(self, samples: npt.NDArray[np.int16], text: str, worst_score: float) -> npt.NDArray[np.uint8]:
        """Label each frame of a recording.

        Args:
            samples: [N] int16 at 16 kHz.
            text: What is said.
            worst_score: Least mean score per frame that counts as aligned.

        Returns:
            uint8 [1 + N // 160], or [0] where the text cannot be found in the recording.
        """
        words = words_of(text)
        empty = np.zeros(0, np.uint8)
        if not words or not all(self._pronounceable(word) for word in words):
            return empty
        audio = np.ascontiguousarray(samples).tobytes()
        try:
            self._decoder.set_align_text(" ".join(words))
            self._decode(audio)
            if self._decoder.hyp() is None:
                return empty
            self._decoder.set_alignment()
            self._decode(audio)
            alignment = self._decoder.get_alignment()
        except RuntimeError as error:
            _log.debug("not aligned: %s (%s)", text, error)
            return empty
        labels = np.full(1 + len(samples) // FRAME_SAMPLES, _INDEX[SILENCE], np.uint8)
        score = spoken = 0
        for phone in alignment.phones():
            index = _INDEX.get(phone.name, _INDEX[SILENCE])  # fillers such as +NSN+ are no speech
            start = phone.start + _ALIGNER_DELAY_FRAMES
            labels[start : start + phone.duration] = index
            if index != _INDEX[SILENCE]:
                score, spoken = score + phone.score, spoken + phone.duration
        return labels if spoken and score / spoken >= worst_score else empty

    def _decode(self, audio: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(audio, full_utt=True)
        self._decoder.end_utt()

    def _pronounceable(self, word: str) -> bool:
        if self._decoder.lookup_word(word) is not None:
            return True
        phones = _flite_phones(word)
        if phones:
            self._decoder.add_word(word, " ".join(phones), True)
        return bool(phones)


def _flite_phones(word: str) -> list[str]:
    if shutil.which("flite") is None:
        return []
    spoken = subprocess.run(["flite", "-t", word, "-ps", "none"], capture_output=True, text=True, check=False).stdout
    phones = " ".join(_FLITE_PHONES.get(phone, phone.upper()) for phone in spoken.split()).split()
    return phones if all(phone in _INDEX for phone in phones) else []


def run(settings: dict[str, Any], orders: Orders) -> None:
    """Align all utterances that have a text and no labels yet; always resumes, as the labels are the state.

    Raises:
        TrainingError: The manifest or a recording is unusable, or nothing could be aligned.
    """
    config = build(AlignConfig, settings)
    labels = label_cache(orders.cache)
    for split in config.splits:
        wanted = [u for u in read_manifest(orders.corpus, split) if u.text and u.set_name in config.sets]
        todo = [u for u in wanted if u.key not in labels]
        # Shuffled, so that training can begin on a fair sample while the rest is still being aligned.
        order = np.random.default_rng(0).permutation(len(todo))
        parts = [[todo[i] for i in order[start : start + 50]] for start in range(0, len(todo), 50)]
        with ProcessPoolExecutor(config.workers) as pool:
            for done, _ in enumerate(
                pool.map(_align_part, parts, [orders.cache] * len(parts), [config] * len(parts)), start=1
            ):
                _log.info("%s: %d of %d parts aligned", split, done, len(parts))
        aligned = [u for u in wanted if len(labels.read(u.key))]
        if not aligned:
            raise TrainingError(f"No utterance of the {split} split could be aligned.", hint="Check the sets' names.")
        hours = sum(u.seconds for u in aligned) / 3600
        _log.info("%s: %d of %d utterances aligned, %.2f h", split, len(aligned), len(wanted), hours)


_aligner: Aligner | None = None  # one a process: loading the acoustic model takes a second


def _align_part(utterances: Sequence[Utterance], cache: Path, config: AlignConfig) -> None:
    global _aligner
    _aligner = _aligner or Aligner()
    audio, labels = AudioCache(cache, SAMPLE_RATE), label_cache(cache)
    for utterance in utterances:
        labels.write(utterance.key, _aligner.align(audio.samples(utterance), utterance.text, config.worst_score))
