"""Make the bundled demo song, resources/demo/song.opus, from nothing but this file.

The tune and words are those of "Auld Lang Syne" (Scots folk melody, words by Robert Burns, 1788; public domain). The
voice is a source-filter synthesiser written here: harmonics of a gliding pitch and noise, both shaped by moving
formants. The band is a plucked string, a bass, a soft organ and a brush, all synthesised. Usage:

    python packaging/make_demo.py [--stems DIR]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import signal as filters

from engine.signal import AudioClip, Limiter, integrated_lufs, write_audio

RATE = 48000
BEAT_S = 60 / 92
LEAD_IN_BEATS = 4
CONTROL_S = 0.005
NUM_FORMANTS = 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Phone:
    """How one sound is made.

    Attributes:
        formants: Frequencies of the resonances, Hz.
        voiced: Level of the harmonics, 0 to 1.
        breath: Level of noise through the formants.
        hiss: Level of friction noise.
        hiss_hz: Centre of the friction noise.
        hiss_width_hz: Its width.
        seconds: Length when it is a consonant.
    """

    formants: tuple[float, float, float, float, float]
    voiced: float = 1.0
    breath: float = 0.02
    hiss: float = 0.0
    hiss_hz: float = 4000.0
    hiss_width_hz: float = 2000.0
    seconds: float = 0.07


VOWELS = {
    "a": Phone((730, 1150, 2450, 3300, 4000)),
    "A": Phone((620, 1000, 2500, 3300, 4000)),
    "e": Phone((510, 1850, 2500, 3400, 4100)),
    "i": Phone((310, 2150, 2850, 3500, 4200)),
    "I": Phone((400, 1900, 2600, 3500, 4200)),
    "o": Phone((470, 850, 2450, 3300, 4000)),
    "u": Phone((340, 950, 2300, 3300, 4000)),
    "@": Phone((520, 1350, 2450, 3300, 4000)),
}
CONSONANTS = {
    "l": Phone((360, 1150, 2700, 3400, 4000), voiced=0.45),
    "r": Phone((400, 1150, 1650, 3000, 3800), voiced=0.45),
    "w": Phone((310, 680, 2200, 3200, 3900), voiced=0.4),
    "m": Phone((260, 1000, 2200, 3200, 3900), voiced=0.22, seconds=0.08),
    "n": Phone((260, 1450, 2450, 3300, 4000), voiced=0.22, seconds=0.08),
    "N": Phone((260, 1900, 2600, 3300, 4000), voiced=0.2, seconds=0.09),
    "v": Phone((300, 1150, 2300, 3300, 4000), voiced=0.25, hiss=0.03, hiss_hz=6500, hiss_width_hz=4000),
    "f": Phone((350, 1150, 2300, 3300, 4000), voiced=0.0, hiss=0.05, hiss_hz=7000, hiss_width_hz=4500, seconds=0.1),
    "s": Phone((350, 1700, 2600, 3400, 4100), voiced=0.0, hiss=0.14, hiss_hz=7200, hiss_width_hz=2400, seconds=0.11),
    "S": Phone((350, 1700, 2500, 3300, 4100), voiced=0.0, hiss=0.16, hiss_hz=3600, hiss_width_hz=1600, seconds=0.12),
    "b": Phone((250, 900, 2200, 3300, 4000), voiced=0.06, seconds=0.06),
    "d": Phone((250, 1700, 2600, 3300, 4000), voiced=0.06, seconds=0.05),
    "g": Phone((250, 1900, 2300, 3300, 4000), voiced=0.06, seconds=0.06),
    "t": Phone((350, 1700, 2600, 3400, 4100), voiced=0.0, breath=0.0, seconds=0.06),
    "k": Phone((350, 1700, 2300, 3300, 4000), voiced=0.0, breath=0.0, seconds=0.06),
}
# What follows a stop's silence: a short burst.
BURSTS = {
    "b": Phone((400, 1000, 2200, 3300, 4000), voiced=0.4, hiss=0.03, hiss_hz=1000, hiss_width_hz=900, seconds=0.012),
    "d": Phone((350, 1700, 2600, 3300, 4000), voiced=0.4, hiss=0.06, hiss_hz=4200, hiss_width_hz=2500, seconds=0.012),
    "g": Phone((350, 1800, 2300, 3300, 4000), voiced=0.4, hiss=0.06, hiss_hz=2200, hiss_width_hz=1200, seconds=0.018),
    "t": Phone(
        (400, 1700, 2600, 3400, 4100),
        voiced=0.0,
        breath=0.1,
        hiss=0.16,
        hiss_hz=5200,
        hiss_width_hz=3000,
        seconds=0.035,
    ),
    "k": Phone(
        (500, 1700, 2300, 3300, 4000),
        voiced=0.0,
        breath=0.12,
        hiss=0.12,
        hiss_hz=2300,
        hiss_width_hz=1300,
        seconds=0.04,
    ),
}

# Onset consonants, vowels (a diphthong glides), coda consonants, MIDI note, beats. A tenor sings.
SONG = [
    ("S", "u", "d", 48, 1),
    ("", "Ao", "ld", 53, 1.5), ("", "@", "", 53, 0.5), ("kw", "eI", "n", 53, 1), ("t", "@", "ns", 57, 1),
    ("b", "i", "", 55, 1.5), ("f", "o", "", 53, 0.5), ("g", "A", "t", 55, 1), ("", "a", "nd", 57, 1),
    ("n", "e", "", 53, 1.5), ("v", "@", "r", 53, 0.5), ("br", "Ao", "t", 57, 1), ("t", "u", "", 60, 1),
    ("m", "aI", "nd", 62, 3), ("S", "u", "d", 62, 1),
    ("", "Ao", "ld", 60, 1.5), ("", "@", "", 57, 0.5), ("kw", "eI", "n", 57, 1), ("t", "@", "ns", 53, 1),
    ("b", "i", "", 55, 1.5), ("f", "o", "", 53, 0.5), ("g", "A", "t", 55, 1), ("", "a", "nd", 57, 1),
    ("d", "eI", "s", 53, 1.5), ("", "@", "v", 50, 0.5), ("", "Ao", "ld", 50, 1), ("l", "a", "N", 48, 1),
    ("s", "aI", "n", 53, 4),
]  # fmt: skip
# One chord a bar: bass note and three notes above.
CHORDS = [
    (41, (57, 60, 65)),
    (36, (55, 60, 64)),
    (41, (57, 60, 65)),
    (46, (58, 62, 65)),
    (41, (57, 60, 65)),
    (36, (55, 60, 64)),
    (38, (58, 62, 65)),
    (41, (57, 60, 65)),
]


def main() -> None:
    """Write the song, and its stems where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stems", type=Path, help="also write vocals.flac and accompaniment.flac here")
    options = parser.parse_args()
    vocals, accompaniment = sing(), play()
    num = max(vocals.shape[1], accompaniment.shape[1])
    vocals, accompaniment = (np.pad(stem, ((0, 0), (0, num - stem.shape[1]))) for stem in (vocals, accompaniment))
    gain = 10 ** ((-16.0 - integrated_lufs(AudioClip((vocals + accompaniment).astype(np.float32), RATE))) / 20)
    limiter = Limiter(RATE, -1.5)
    mixture = ((vocals + accompaniment) * gain).astype(np.float32)
    mixture = np.concatenate([limiter.push(mixture), limiter.flush()], axis=1)[:, limiter.latency_samples :]
    folder = Path(__file__).parents[1] / "resources" / "demo"
    write_audio(folder / "song.opus", AudioClip(mixture, RATE))
    if options.stems:
        options.stems.mkdir(parents=True, exist_ok=True)
        for name, stem in (("vocals", vocals), ("accompaniment", accompaniment)):
            write_audio(options.stems / f"{name}.flac", AudioClip((stem * gain).astype(np.float32), RATE))


# --- The voice -------------------------------------------------------------------------------------------------------


def sing() -> Floats:
    """The lead voice with a little room around it, [2, N]."""
    score = _control_tracks()
    num_samples = round(len(score["f0"]) * CONTROL_S * RATE)
    dry = _harmonics(score, num_samples) + _noises(score, num_samples)
    dry *= 1.3 / np.abs(dry).max()
    return 0.5 * np.stack([dry, dry]) + 0.5 * _room(dry, seed=3, seconds=0.9, level=0.1)


def _control_tracks() -> dict[str, Floats]:
    """Every parameter of the voice at 200 Hz, smoothed as a mouth moves."""
    seconds = (LEAD_IN_BEATS + sum(note[4] for note in SONG)) * BEAT_S + 1.5
    num = round(seconds / CONTROL_S)
    tracks = {name: np.zeros(num) for name in ("f0", "voiced", "breath", "hiss", "hiss_hz", "hiss_width_hz")}
    formants = np.tile(np.array(VOWELS["@"].formants, np.float64), (num, 1)).T.copy()
    tracks["hiss_hz"] += 4000
    tracks["hiss_width_hz"] += 2000
    midi = np.zeros(num)
    beat = LEAD_IN_BEATS - 1.0  # the first syllable is an upbeat
    end = 0.0
    for onset, nucleus, coda, note, beats in SONG:
        start_s, end_s = beat * BEAT_S, (beat + beats) * BEAT_S
        phones = [*_consonants(onset), None, *_consonants(coda)]
        before = sum(phone.seconds for phone in _consonants(onset))
        after = sum(phone.seconds for phone in _consonants(coda))
        position = max(start_s - before, end)
        stop = end_s - after - 0.02
        for phone in phones:
            if phone is None:
                _put_vowel(tracks, formants, nucleus, position, stop)
                position = stop
            else:
                _put(tracks, formants, phone, position, position + phone.seconds)
                position += phone.seconds
        end = position
        midi[round(max(start_s - before, 0) / CONTROL_S) : round(end_s / CONTROL_S)] = note
        beat += beats
    _fill_forward(midi)
    tracks["f0"] = _pitch(midi)
    for name, width_s in (("voiced", 0.012), ("breath", 0.012), ("hiss", 0.008), ("hiss_hz", 0.01)):
        tracks[name] = _smooth(tracks[name], width_s)
    for i in range(NUM_FORMANTS):
        tracks[f"formant{i}"] = _smooth(formants[i], 0.022)
    return tracks


def _consonants(letters: str) -> list[Phone]:
    phones = []
    for letter in letters:
        phones.append(CONSONANTS[letter])
        if letter in BURSTS:
            phones.append(BURSTS[letter])
    return phones


def _put(tracks: dict[str, Floats], formants: Floats, phone: Phone, start_s: float, end_s: float) -> None:
    span = slice(round(start_s / CONTROL_S), round(end_s / CONTROL_S))
    for name in ("voiced", "breath", "hiss", "hiss_hz", "hiss_width_hz"):
        tracks[name][span] = getattr(phone, name)
    formants[:, span] = np.array(phone.formants)[:, None]


def _put_vowel(tracks: dict[str, Floats], formants: Floats, letters: str, start_s: float, end_s: float) -> None:
    first, last = VOWELS[letters[0]], VOWELS[letters[-1]]
    _put(tracks, formants, first, start_s, end_s)
    span = slice(round(start_s / CONTROL_S), round(end_s / CONTROL_S))
    num = span.stop - span.start
    glide = np.clip((np.arange(num) / max(num, 1) - 0.6) / 0.3, 0, 1)  # singers stay on the first vowel
    formants[:, span] += (np.array(last.formants) - np.array(first.formants))[:, None] * glide
    swell = np.interp(np.arange(num) / max(num, 1), [0, 0.15, 0.7, 1], [0.8, 1, 0.95, 0.7])
    tracks["voiced"][span] *= swell


def _pitch(midi: Floats) -> Floats:
    """Notes with glides of 60 ms, vibrato that sets in late, and a little drift."""
    times = np.arange(len(midi)) * CONTROL_S
    since_change = np.zeros(len(midi))
    for i in range(1, len(midi)):
        since_change[i] = 0.0 if midi[i] != midi[i - 1] else since_change[i - 1] + CONTROL_S
    depth = 0.32 * np.clip((since_change - 0.35) / 0.4, 0, 1)
    vibrato = depth * np.sin(2 * np.pi * 5.4 * times)
    drift = 0.06 * _smooth(np.random.default_rng(7).standard_normal(len(midi)), 0.15) / 0.15
    return np.asarray(440 * 2 ** ((_smooth(midi, 0.03) + vibrato + 0.2 * drift - 69) / 12))


def _harmonics(score: dict[str, Floats], num_samples: int) -> Floats:
    """Sines at the multiples of the pitch, weighted by the glottis's slope and the formants."""
    control = np.arange(len(score["f0"])) * CONTROL_S * RATE
    at = np.arange(num_samples)
    phase = 2 * np.pi * np.cumsum(np.interp(at, control, score["f0"])) / RATE
    rng = np.random.default_rng(5)
    shimmer = 1 + 0.05 * _smooth(rng.standard_normal(len(control)), 0.01)
    wave = np.zeros(num_samples)
    for k in range(1, int(12000 / score["f0"].min())):
        hz = score["f0"] * k
        level = _response(hz, score) * score["voiced"] * shimmer * np.clip((14000 - hz) / 3000, 0, 1)
        level /= k * (1 + (hz / 3000) ** 2) ** 0.35  # the glottis's slope and the lips' in one
        wave += np.interp(at, control, level) * np.sin(k * phase + 0.3 * k)
    return wave


def _noises(score: dict[str, Floats], num_samples: int) -> Floats:
    """Breath through the formants and friction noise, white noise filtered in frames of 20 ms."""
    size, hop = 1024, round(CONTROL_S * RATE)
    window = np.hanning(size)
    rng = np.random.default_rng(11)
    hz = np.fft.rfftfreq(size, 1 / RATE)
    out = np.zeros(num_samples + 2 * size)
    for t in range(len(score["f0"])):
        breath = score["breath"][t] * (0.3 + score["voiced"][t])
        if breath + score["hiss"][t] < 1e-4:
            continue
        here = {name: track[t] for name, track in score.items()}
        shape = breath * np.minimum(_response(hz, here), 8.0) * (hz > 80)
        shape = shape + 2.0 * score["hiss"][t] * np.exp(-(((hz - here["hiss_hz"]) / here["hiss_width_hz"]) ** 2))
        start = t * hop
        if start + size > len(out):
            break
        out[start : start + size] += np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * shape) * window
    return 0.45 * out[size // 2 :][:num_samples]


def _response(hz: Floats, score: dict[str, Floats]) -> Floats:
    """Magnitude at hz of the vocal tract: five resonators in a row, each passing low frequencies unchanged."""
    total = np.ones(np.broadcast(hz, score["formant0"]).shape)
    for i in range(NUM_FORMANTS):
        centre = score[f"formant{i}"]
        width = 45 + 0.028 * centre + 10 * i
        share = hz / centre
        total = total / np.hypot(1 - share**2, share * width / centre)
    # What the resonances above the fifth would add, and the leaks past them.
    return np.asarray(total * (1 + np.square(hz / 4500)) ** 1.6 + 0.15)


# --- The band --------------------------------------------------------------------------------------------------------


def play() -> Floats:
    """Plucked string, bass, organ and brush, [2, N]."""
    num_beats = LEAD_IN_BEATS + 4 * len(CHORDS) + 4
    out = np.zeros((2, round((num_beats * BEAT_S + 3) * RATE)))
    rng = np.random.default_rng(1)
    bars = [CHORDS[0], *CHORDS, CHORDS[-1]]
    for bar, (bass, notes) in enumerate(bars):
        start = bar * 4 * BEAT_S
        last = bar == len(bars) - 1
        for step in range(1 if last else 8):
            note = (bass + 12, *notes, notes[1] + 12)[(0, 2, 3, 4, 2, 3, 4, 3)[step]]
            _add(out, _pluck(note, 2.2, rng), start + step * BEAT_S / 2, (0.42, 0.24))
        for step in (0,) if last else (0, 2):
            _add(out, _bass(bass, (4 if last else 2) * BEAT_S), start + step * BEAT_S, (0.3, 0.3))
        for i, note in enumerate(notes):
            _add(out, _organ(note, 4 * BEAT_S), start, ((0.05, 0.11), (0.08, 0.08), (0.11, 0.05))[i])
        for step in range(0 if last else 4):
            _add(out, _brush(0.16 if step % 2 else 0.08, rng), start + step * BEAT_S, (0.06, 0.1))
    return out + _room(out.mean(axis=0), seed=9, seconds=0.8, level=0.05)


def _pluck(note: int, seconds: float, rng: np.random.Generator) -> Floats:
    """Karplus and Strong's string: noise in a loop that a mean of neighbours damps."""
    period = RATE / (440 * 2 ** ((note - 69) / 12)) - 0.5
    length = int(period)
    excitation = np.zeros(round(seconds * RATE))
    excitation[:length] = filters.lfilter([0.3], [1, -0.7], rng.uniform(-1, 1, length))
    share = period - length
    loop = np.zeros(length + 3)
    loop[0] = 1.0
    loop[length : length + 3] -= 0.996 * np.convolve([1 - share, share], [0.5, 0.5])
    return np.asarray(filters.lfilter([1.0], loop, excitation)) * _fade(round(seconds * RATE), 0.001, 0.2)


def _bass(note: int, seconds: float) -> Floats:
    times = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((note - 69) / 12)
    wave = sum(np.sin(2 * np.pi * k * hz * times) * np.exp(-times * (1 + k)) / k for k in range(1, 7))
    return np.asarray(wave) * _fade(len(times), 0.006, 0.05)


def _organ(note: int, seconds: float) -> Floats:
    times = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((note - 69) / 12)
    levels = (1.0, 0.5, 0.25, 0.16, 0.1)
    wave = sum(level * np.sin(2 * np.pi * k * hz * (1 + 0.0007 * (-1) ** k) * times)
               for k, level in enumerate(levels, 1))  # fmt: skip
    return np.asarray(wave) * _fade(len(times), 0.25, 0.3)


def _brush(seconds: float, rng: np.random.Generator) -> Floats:
    noise = rng.standard_normal(round(0.25 * RATE))
    sections = filters.butter(2, [2500, 9000], "bandpass", fs=RATE, output="sos")
    return np.asarray(filters.sosfilt(sections, noise)) * np.exp(-np.arange(len(noise)) / (seconds * 0.3 * RATE))


# --- Helpers ---------------------------------------------------------------------------------------------------------


def _add(out: Floats, wave: Floats, start_s: float, gains: tuple[float, float]) -> None:
    start = round(start_s * RATE)
    wave = wave[: out.shape[1] - start]
    for channel, gain in enumerate(gains):
        out[channel, start : start + len(wave)] += gain * wave


def _room(dry: Floats, *, seed: int, seconds: float, level: float) -> Floats:
    """Two decaying noises as a room's answer left and right, [2, N]."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    tails = rng.standard_normal((2, len(times))) * np.exp(-times * 6.9 / seconds)
    tails[:, : round(0.012 * RATE)] = 0
    sections = filters.butter(1, [200, 5000], "bandpass", fs=RATE, output="sos")
    tails = filters.sosfilt(sections, tails, axis=1)
    tails *= level / np.sqrt(np.square(tails).sum(axis=1, keepdims=True))
    return np.stack([filters.fftconvolve(dry, tail)[: len(dry)] for tail in tails])


def _fade(num: int, in_s: float, out_s: float) -> Floats:
    times = np.arange(num) / RATE
    return np.clip(times / in_s, 0, 1) * np.clip((num / RATE - times) / out_s, 0, 1)


def _smooth(track: Floats, width_s: float) -> Floats:
    size = max(round(2 * width_s / CONTROL_S), 1) | 1
    kernel = np.hanning(size + 2)[1:-1]
    padded = np.pad(track, size // 2, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _fill_forward(midi: Floats) -> None:
    known = np.flatnonzero(midi)
    for i in range(len(midi)):
        if midi[i] == 0:
            midi[i] = midi[known[0]] if i < known[0] else midi[i - 1]


if __name__ == "__main__":
    main()
