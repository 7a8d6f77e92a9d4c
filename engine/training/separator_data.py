"""Mixtures with known vocals for the separator: real stems, dry voices and generated bands, recombined without end.

`prepare_cache` decodes and renders everything once, as 16-bit arrays at 44.1 kHz outside the repository; `Mixtures`
draws examples from it. An example is a stretch of vocals (a song's stem, a dry singing or speaking voice, two voices,
or none) over a stretch of accompaniment (a song's stem, a generated band, or both), each at a speed, gain, equaliser
curve and stereo width of its own; dry voices also get compression, doubling, echo and reverberation. Speakers are made
to sing, too: see `engine.training.singing`.
"""

import csv
import logging
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
from scipy import fft

from engine.errors import TrainingError
from engine.signal import FloatArray, read_audio, resample
from engine.training.bands import STYLES, compose, play
from engine.training.singing import sing

log = logging.getLogger(__name__)

SAMPLE_RATE = 44_100
BLOCK = 4_410  # samples over which levels are measured
LEAD_IN = 66_150  # samples before an example, whose echoes reach into it
SILENCE_RMS = 0.003

Pcm = npt.NDArray[np.int16]
# Minutes of each set of the corpus that serve as dry voices, and whether they are sung.
VOICE_MINUTES = {
    "producerspace": 60, "vctk": 10, "nathalie": 10, "philipp": 10, "kerstin": 8, "ljspeech": 8, "librispeech": 25,
}  # fmt: skip
# Utterances that each speaker of these sets sings.
SUNG_UTTERANCES = {
    "librispeech": 1,
    "speechocean762": 1,
    "vctk": 20,
    "nathalie": 20,
    "philipp": 20,
    "kerstin": 20,
    "ljspeech": 20,
}
SUNG = "sung"


def prepare_cache(corpus: Path, cache: Path, sound_font: Path, *, num_bands: int, band_seconds: float) -> None:
    """Decode the corpus's songs and voices and render bands into a folder; what is there already stays.

    Args:
        corpus: The corpus's folder, with songs/ and train/; recordings that its manifest names may be missing.
        cache: Where the arrays go: `songs/SET-NAME-STEM.npy` [2, N], `voices/SET.npy` [1, N], `bands/NUMBER.npy`
            [2, N], all int16.
        sound_font: A General MIDI sound font.
        num_bands: Pieces to render; piece k has seed k.
        band_seconds: Least length of each.
    """
    for stem in sorted(corpus.glob("songs/*/*/*.opus")):
        target = cache / "songs" / f"{stem.parent.parent.name}-{stem.parent.name}-{stem.stem}.npy"
        if not target.exists():
            _save(target, _pcm(resample(read_audio(stem), SAMPLE_RATE).samples))
    with (corpus / "train" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, minutes in VOICE_MINUTES.items():
        target = cache / "voices" / f"{name}.npy"
        there = [row for row in rows if row["set"] == name and (corpus / "train" / row["path"]).is_file()]
        if there and not target.exists():
            _save(target, _read_voices(there, corpus / "train", minutes))
    target = cache / "voices" / f"{SUNG}.npy"
    if not target.exists():
        phrases = [sung_phrase(row, corpus / "train") for row in to_sing(rows, corpus / "train")]
        if sung := [phrase for phrase in phrases if phrase is not None]:
            _save(target, np.concatenate(sung, axis=1))
    styles = list(STYLES)
    for seed in range(num_bands):
        target = cache / "bands" / f"{seed:04d}.npy"
        if not target.exists():
            with tempfile.TemporaryDirectory() as folder:
                wav = Path(folder) / "band.wav"
                play(compose(seed, seconds=band_seconds, style=styles[seed % len(styles)]), wav, sound_font)
                _save(target, _pcm(read_audio(wav).samples))
            log.info("rendered band %d of %d", seed + 1, num_bands)


def to_sing(rows: list[dict[str, str]], folder: Path) -> list[dict[str, str]]:
    """Rows of the manifest whose speakers shall sing them: of each speaker the longest utterances below 15 s."""
    by_speaker: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["set"] in SUNG_UTTERANCES and float(row["seconds"]) < 15 and (folder / row["path"]).is_file():
            by_speaker.setdefault((row["set"], row["speaker"]), []).append(row)
    return [
        row
        for (name, _speaker), theirs in sorted(by_speaker.items())
        for row in sorted(theirs, key=lambda row: -float(row["seconds"]))[: SUNG_UTTERANCES[name]]
    ]


def sung_phrase(row: dict[str, str], folder: Path) -> Pcm | None:
    """A row's utterance, sung and at the usual loudness; the same whenever it is made."""
    rng = np.random.default_rng(zlib.crc32(row["path"].encode()))
    phrase = sing(read_audio(folder / row["path"]).mono(), rng, bandwidth_hz=float(row["bandwidth_hz"]))
    return None if phrase is None else _at_usual_level(resample(phrase, SAMPLE_RATE).samples)


def _read_voices(rows: list[dict[str, str]], folder: Path, minutes: float) -> Pcm:
    """Utterances spread evenly over the set, one after another, each at the same loudness."""
    total = sum(float(row["seconds"]) for row in rows)
    step = max(1, int(total / (minutes * 60)))
    pieces = []
    for row in rows[::step]:
        clip = read_audio(folder / row["path"]).mono()
        pieces.append(_at_usual_level(resample(clip, SAMPLE_RATE).samples))
    return np.concatenate(pieces, axis=1)


def _at_usual_level(samples: FloatArray) -> Pcm:
    samples = samples * np.float32(0.08 / max(_active_rms(samples), 1e-4))
    return _pcm(samples * np.float32(min(1.0, 0.98 / max(float(np.abs(samples).max()), 1e-4))))


def _pcm(samples: FloatArray) -> Pcm:
    return np.clip(np.round(samples * 32767), -32768, 32767).astype(np.int16)


def _save(target: Path, array: Pcm) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.npy")
    np.save(temporary, array)
    os.replace(temporary, target)


def _active_rms(samples: FloatArray) -> float:
    """RMS of the blocks that are not silent; 0 when all are."""
    levels = np.sqrt(_block_power(samples))
    active = levels[levels > SILENCE_RMS]
    return float(np.sqrt((active**2).mean())) if len(active) else 0.0


def _block_power(samples: FloatArray) -> FloatArray:
    whole = samples.shape[1] // BLOCK * BLOCK
    if whole == 0:
        return np.array([float((samples**2).mean())], dtype=np.float32)
    return np.asarray((samples[:, :whole].reshape(len(samples), -1, BLOCK) ** 2).mean(axis=(0, 2)), dtype=np.float32)


@dataclass(frozen=True)
class Track:
    """One array of the cache with the blocks in which something sounds."""

    pcm: Pcm
    active: npt.NDArray[np.bool_]

    @classmethod
    def load(cls, path: Path, num_samples: int | None = None) -> "Track":
        """Map a cached array, or its first samples, and measure it."""
        pcm = np.load(path, mmap_mode="r")[:, :num_samples]
        blocks = pcm.shape[1] // BLOCK
        power = np.zeros(blocks)
        for start in range(0, blocks, 512):
            part = pcm[:, start * BLOCK : min(start + 512, blocks) * BLOCK].astype(np.float32) / 32767
            power[start : start + 512] = _block_power(part)
        return cls(pcm, power > SILENCE_RMS**2)

    @property
    def num_samples(self) -> int:
        """Samples per channel."""
        return int(self.pcm.shape[1])

    def cut(self, start: int, num_samples: int) -> FloatArray:
        """A stretch as float32 [2, num_samples]; zeros beyond either end; mono is doubled."""
        first, last = max(start, 0), min(start + num_samples, self.num_samples)
        cut = np.zeros((2, num_samples), dtype=np.float32)
        if last > first:
            cut[:, first - start : last - start] = self.pcm[:, first:last].astype(np.float32) / 32767
        return cut

    def active_start(self, rng: np.random.Generator, num_samples: int, share: float) -> int:
        """A random start from which at least `share` of the stretch sounds, or the best of eight draws."""
        wanted = max(1, num_samples // BLOCK)
        best, best_share = 0, -1.0
        for _ in range(8):
            start = int(rng.integers(0, max(1, self.num_samples - num_samples)))
            found = float(self.active[start // BLOCK : start // BLOCK + wanted].mean()) if len(self.active) else 0.0
            if found >= share:
                return start
            if found > best_share:
                best, best_share = start, found
        return best


def held_out_song(cache: Path, name: str, *, from_s: float) -> tuple[FloatArray, FloatArray]:
    """Vocals and accompaniment, [2, N] float32 each, of a song of the train split, from some second on.

    Raises:
        TrainingError: The cache does not hold it.
    """
    stems = []
    for stem in ("vocals", "accompaniment"):
        path = cache / "songs" / f"train-{name}-{stem}.npy"
        if not path.exists():
            raise TrainingError(f"There is no song '{name}' to hold out.", hint=f"Expected {path}.")
        pcm = np.load(path, mmap_mode="r")[:, int(from_s * SAMPLE_RATE) :]
        stems.append(np.asarray(pcm, dtype=np.float32) / np.float32(32767))
    return stems[0], stems[1]


class Mixtures:
    """Draws examples without end.

    Args:
        cache: Folder that `prepare_cache` filled.
        seconds: Length of an example.
        held_out: Songs that are not used.
        used_until_s: Of these, the stretch that is used all the same, s.

    Raises:
        TrainingError: The folder lacks songs, voices or bands.
    """

    def __init__(
        self, cache: Path, *, seconds: float, held_out: tuple[str, ...] = (), used_until_s: float = 0.0
    ) -> None:
        self.num_samples = int(seconds * SAMPLE_RATE)
        lengths: dict[str, int | None] = {}
        for path in sorted((cache / "songs").glob("train-*-vocals.npy")):
            name = path.name.removesuffix("-vocals.npy")
            lengths[name] = int(used_until_s * SAMPLE_RATE) if name.removeprefix("train-") in held_out else None
        self._songs = [
            (
                Track.load(cache / "songs" / f"{name}-vocals.npy", length),
                Track.load(cache / "songs" / f"{name}-accompaniment.npy", length),
            )
            for name, length in lengths.items()
            if length != 0
        ]
        self._voices = {path.stem: Track.load(path) for path in sorted((cache / "voices").glob("[!.]*.npy"))}
        self._bands = [Track.load(path) for path in sorted((cache / "bands").glob("[!.]*.npy"))]
        if not (self._songs and self._voices and self._bands):
            raise TrainingError(f"{cache} lacks songs, voices or bands.", hint="Run the stage with the whole corpus.")

    def example(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Mixture and vocals, each [2, num_samples] float32; the mixture's RMS scatters around 0.1."""
        while True:
            vocals, accompaniment = self._stems(rng)
            if rng.random() < 0.5:
                vocals, accompaniment = vocals[::-1], accompaniment[::-1]
            mixture = vocals + accompaniment
            rms = float(np.sqrt((mixture**2).mean()))
            if rms > 1e-3:  # two silent stretches are no example
                gain = np.float32(0.1 * 10 ** (rng.uniform(-10, 5) / 20) / rms)
                return np.ascontiguousarray(mixture * gain), np.ascontiguousarray(vocals * gain)

    def _stems(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        draw = rng.random()
        if draw < 0.18:
            return self._aligned(rng)
        accompaniment = self._accompaniment(rng)
        if draw >= 0.94:
            return np.zeros_like(accompaniment), accompaniment
        if draw < 0.32:
            vocals = self._song_vocals(rng)
        elif draw < 0.62:
            vocals = self._choir(rng)
        else:
            vocals = self._voice(rng)
        if draw < 0.62 and rng.random() < 0.3:
            vocals = vocals + self._voice(rng) * np.float32(rng.uniform(0.2, 0.9))
        return _at_level(vocals, _active_rms(accompaniment), rng.normal(0, 6)), accompaniment

    def _aligned(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Both stems of one song at the same time, played at another speed."""
        vocals, accompaniment = self._songs[int(rng.integers(len(self._songs)))]
        speed = _draw_speed(rng)
        start = vocals.active_start(rng, int(self.num_samples * speed), 0.4)
        gains = 10 ** (rng.normal(0, 3, size=2) / 20)
        return (
            _equalise(self._cut(vocals, start, speed), rng, 4) * np.float32(gains[0]),
            _widened(_equalise(self._cut(accompaniment, start, speed), rng, 4), _draw_width(rng))
            * np.float32(gains[1]),
        )

    def _song_vocals(self, rng: np.random.Generator) -> FloatArray:
        vocals, _ = self._songs[int(rng.integers(len(self._songs)))]
        speed = _draw_speed(rng)
        return _equalise(self._cut(vocals, vocals.active_start(rng, self.num_samples, 0.5), speed), rng, 6)

    def _accompaniment(self, rng: np.random.Generator) -> FloatArray:
        total = np.zeros((2, self.num_samples), dtype=np.float32)
        draw = rng.random()
        if draw < 0.55:
            _, track = self._songs[int(rng.integers(len(self._songs)))]
            total = total + self._played(track, rng)
        if draw > 0.45:
            total = total + self._played(self._bands[int(rng.integers(len(self._bands)))], rng)
        return total

    def _played(self, track: Track, rng: np.random.Generator) -> FloatArray:
        start = track.active_start(rng, self.num_samples, 0.5)
        samples = _equalise(self._cut(track, start, _draw_speed(rng)), rng, 6)
        return _widened(_at_level(samples, 0.08, rng.normal(0, 3)), _draw_width(rng))

    def _voice(self, rng: np.random.Generator) -> FloatArray:
        """A dry voice as a producer might treat it."""
        track, length = self._sung_track(rng, spoken=0.25), self.num_samples + LEAD_IN
        start = track.active_start(rng, self.num_samples, 0.6) - LEAD_IN
        voice = _cut_at_speed(track, start, length, _draw_speed(rng))[0]
        if rng.random() < 0.6:
            voice = _compressed(voice, float(rng.uniform(0.2, 0.7)))
        pan = float(np.clip(rng.normal(0, 0.25), -0.9, 0.9))
        stereo = np.stack([voice * np.float32(np.sqrt(1 - pan)), voice * np.float32(np.sqrt(1 + pan))])
        if rng.random() < 0.25:  # a second take to one side and another, a little late and out of tune
            for side in (0, 1):
                double = _cut_at_speed(track, start + int(rng.integers(-1500, 1500)), length, rng.normal(1, 0.004))[0]
                stereo[side] += double * np.float32(rng.uniform(0.3, 1.0))
        return _reverberated(_equalise(stereo, rng, 6), rng)[:, LEAD_IN:]

    def _sung_track(self, rng: np.random.Generator, *, spoken: float = 0.0) -> Track:
        """Dry singing, by singers or by speakers; in a share of draws plain speech."""
        draw = rng.random()
        names = sorted(self._voices)
        wanted = "producerspace" if draw < 0.4 else SUNG
        if draw > 1 - spoken or wanted not in self._voices:
            wanted = str(rng.choice(names))
        return self._voices[wanted]

    def _choir(self, rng: np.random.Generator) -> FloatArray:
        """One sung phrase in several parts, an interval apart and spread wide: backing vocals."""
        track = self._sung_track(rng)
        if rng.random() < 0.2:
            track, _ = self._songs[int(rng.integers(len(self._songs)))]
        length = self.num_samples + LEAD_IN
        start = track.active_start(rng, self.num_samples, 0.6) - LEAD_IN
        stereo = np.zeros((2, length), dtype=np.float32)
        root = float(rng.uniform(0.8, 1.15))
        for part in range(int(rng.integers(2, 6))):
            interval = float(rng.choice([0, 0, 0, 3, 4, 5, 7, 12, -5, -12])) if part else 0.0
            speed = float(np.clip(root * 2 ** (interval / 12) * rng.normal(1, 0.003), 0.5, 2.1))
            voice = _cut_at_speed(track, start + int(rng.normal(0, 800)), length, speed).mean(axis=0)
            pan = float(rng.uniform(-0.95, 0.95))
            gain = 10 ** (rng.uniform(-6, 0) / 20)
            stereo += np.array([[np.sqrt(1 - pan)], [np.sqrt(1 + pan)]], np.float32) * voice * np.float32(gain)
        return _reverberated(_equalise(stereo, rng, 6), rng)[:, LEAD_IN:]

    def _cut(self, track: Track, start: int, speed: float) -> FloatArray:
        return _cut_at_speed(track, start, self.num_samples, speed)


def _draw_speed(rng: np.random.Generator) -> float:
    """Playing speed, which shifts pitch along; unchanged every third time."""
    return 1.0 if rng.random() < 0.33 else float(rng.uniform(0.84, 1.19))


def _draw_width(rng: np.random.Generator) -> float:
    """Factor on a band's side: every third band is nearly mono, as many mixes' drums and basses are."""
    return float(rng.uniform(0.0, 0.15) if rng.random() < 0.33 else rng.uniform(0.3, 1.5))


def _cut_at_speed(track: Track, start: int, num_samples: int, speed: float) -> FloatArray:
    if abs(speed - 1) < 1e-6:
        return track.cut(start, num_samples)
    source = track.cut(start, int(num_samples * speed) + 64)
    played = soxr.resample(np.ascontiguousarray(source.T), speed, 1.0, quality="LQ").T
    out = np.zeros((2, num_samples), dtype=np.float32)
    take = min(num_samples, played.shape[1])
    out[:, :take] = played[:, :take]
    return out


def _at_level(samples: FloatArray, reference_rms: float, level_db: float) -> FloatArray:
    rms = _active_rms(samples)
    if rms < 1e-4:
        return samples
    return samples * np.float32(max(reference_rms, 0.02) * 10 ** (float(np.clip(level_db, -18, 18)) / 20) / rms)


def _widened(stereo: FloatArray, width: float) -> FloatArray:
    mid, side = (stereo[0] + stereo[1]) / 2, (stereo[0] - stereo[1]) / 2 * np.float32(width)
    return np.stack([mid + side, mid - side])


def _equalise(stereo: FloatArray, rng: np.random.Generator, spread_db: float) -> FloatArray:
    """Apply a smooth random curve over the octaves, without delay."""
    size = stereo.shape[1]
    knots = rng.normal(0, spread_db / 2, size=9)
    knots[0] += rng.choice([0.0, 0.0, -18.0])  # rumble filter
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, 20) / 40)
    curve = np.interp(octaves, np.arange(9), knots).astype(np.float32)
    if rng.random() < 0.2:
        curve[frequencies > rng.uniform(10_000, 17_000)] = -80
    spectrum = fft.rfft(stereo, fft.next_fast_len(size, real=True))
    gains = np.interp(np.linspace(0, 1, spectrum.shape[1]), np.linspace(0, 1, len(curve)), 10 ** (curve / 20))
    return np.asarray(fft.irfft(spectrum * gains.astype(np.float32))[:, :size], dtype=np.float32)


def _compressed(voice: FloatArray, strength: float) -> FloatArray:
    """Bring blocks of 20 ms nearer to one level."""
    size = 882
    blocks = voice[: len(voice) // size * size].reshape(-1, size)
    level = np.sqrt((blocks**2).mean(axis=1) + 1e-7)
    level = np.convolve(level, np.ones(9) / 9, mode="same")
    gain = np.clip((0.1 / np.maximum(level, 0.02)) ** strength, 0.2, 4)
    curve = np.interp(np.arange(len(voice)), (np.arange(len(gain)) + 0.5) * size, gain)
    return (voice * curve).astype(np.float32)


def _reverberated(stereo: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Add a room of decaying noise, and every third time an echo."""
    size = stereo.shape[1]
    wet = np.zeros((2, size), dtype=np.float32)
    if rng.random() < 0.8:
        decay_s, delay = float(np.exp(rng.uniform(np.log(0.15), np.log(2.5)))), int(rng.uniform(0, 0.04) * SAMPLE_RATE)
        length = min(int(decay_s * SAMPLE_RATE), LEAD_IN)
        times = np.arange(length) / SAMPLE_RATE
        room = rng.standard_normal((2, length), dtype=np.float32) * np.exp(-6.9 * times / decay_s)
        room[1] = room[0] * 0.3 + room[1] * 0.7 if rng.random() < 0.5 else room[1]
        room *= 10 ** (rng.uniform(-24, -5) / 20) / np.sqrt((room**2).sum(axis=1, keepdims=True))
        wet[:, delay : delay + length] += room[:, : size - delay].astype(np.float32)
    if rng.random() < 0.33:
        delay, gain = int(rng.uniform(0.08, 0.5) * SAMPLE_RATE), rng.uniform(0.1, 0.5)
        side = int(rng.integers(2))
        for repeat in range(1, 4):
            if repeat * delay < size:
                wet[(side + repeat) % 2, repeat * delay] += gain**repeat
                wet[(side + repeat + 1) % 2, repeat * delay] += 0.5 * gain**repeat
    if not wet.any():
        return stereo
    padded = fft.next_fast_len(size + LEAD_IN, real=True)
    spectrum = fft.rfft(stereo, padded) * fft.rfft(wet[:, :LEAD_IN], padded)
    return np.asarray(stereo + fft.irfft(spectrum, padded)[:, :size], dtype=np.float32)
