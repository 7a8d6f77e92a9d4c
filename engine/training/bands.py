"""Accompaniments without a singer: our own generated MIDI in many styles, played by fluidsynth with a sound font.

Songs with separate stems are scarce, so the separator also learns from bands that nobody recorded. Everything is
drawn from a seed: key, chords, tempo, drums, bass, chords' rhythm, arpeggios, lead instruments and their levels.
Human voices among the General MIDI programs (choir, "voice oohs", synth voice) are never used.
"""

import shutil
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import mido
import numpy as np

from engine.errors import AutoVoiceError

DRUM_CHANNEL = 9
TICKS = 480  # per quarter note

DRUMS = {
    "kick": 36, "stick": 37, "snare": 38, "clap": 39, "closed": 42, "pedal": 44, "open": 46, "crash": 49, "ride": 51,
    "shaker": 70, "toms": 45,
}  # fmt: skip

# Chords as degrees of the scale; a section repeats one of them.
PROGRESSIONS = (
    (0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (1, 4, 0, 0), (0, 3, 4, 3), (0, 2, 3, 4), (0, 6, 3, 0), (0, 0, 3, 4),
    (3, 4, 2, 5), (0, 5, 1, 4), (0, 3, 0, 4), (5, 4, 3, 4),
)  # fmt: skip
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10))

BASSES = range(32, 40)


@dataclass(frozen=True)
class Style:
    """What a kind of music has in common.

    Attributes:
        tempo_bpm: Slowest and fastest.
        beats: Quarter notes in a bar.
        swing: Share of a beat by which the off-beat comes late.
        drums: Key of the drum -> one character a sixteenth: '.' never, a digit that many tenths, 'x' always.
        bass: Rhythm of the bass in sixteenths; each bar draws one.
        comping: Programs that play the chords.
        leads: Programs that play melodies.
        comp_hits: Sixteenths at which the chords sound.
    """

    tempo_bpm: tuple[int, int]
    beats: int
    swing: float
    drums: dict[int, str]
    bass: tuple[tuple[int, ...], ...]
    comping: tuple[int, ...]
    leads: tuple[int, ...]
    comp_hits: tuple[tuple[int, ...], ...]


def _read_styles() -> dict[str, Style]:
    text = (files("engine.training") / "styles.toml").read_text(encoding="utf-8")
    return {
        name: Style(
            tempo_bpm=tuple(row["tempo_bpm"]),
            beats=row["beats"],
            swing=row["swing"],
            drums={DRUMS[instrument]: strokes for instrument, strokes in row["drums"].items()},
            bass=tuple(map(tuple, row["bass"])),
            comping=tuple(row["comping"]),
            leads=tuple(row["leads"]),
            comp_hits=tuple(map(tuple, row["comp_hits"])),
        )
        for name, row in tomllib.loads(text).items()
    }


STYLES: dict[str, Style] = _read_styles()


@dataclass(frozen=True)
class _Note:
    start: int
    end: int
    channel: int
    pitch: int
    velocity: int


class _Composer:
    def __init__(self, style: Style, rng: np.random.Generator) -> None:
        self.style, self.rng = style, rng
        self.root = int(rng.integers(36, 48))
        self.scale = SCALES[int(rng.integers(len(SCALES)))]
        self.sixteenth = TICKS // 4
        self.notes: list[_Note] = []

    def degree(self, step: int, base: int) -> int:
        octave, index = divmod(step, 7)
        return base + 12 * octave + self.scale[index]

    def add(self, bar: int, at: float, length: float, channel: int, pitch: int, velocity: float) -> None:
        late = self.style.swing * TICKS if at % 4 == 2 else 0.0
        start = int((bar * self.style.beats * 4 + at) * self.sixteenth + late + self.rng.normal(0, 4))
        level = int(np.clip(velocity + self.rng.normal(0, 6), 8, 127))
        end = max(start, 0) + max(30, int(length * self.sixteenth))
        self.notes.append(_Note(max(start, 0), end, channel, int(np.clip(pitch, 12, 108)), level))

    def drums(self, bar: int, level: float, *, fill: bool) -> None:
        for instrument, row in self.style.drums.items():
            for at, mark in enumerate(row[: self.style.beats * 4]):
                chance = 1.0 if mark == "x" else 0.0 if mark == "." else int(mark) / 10
                if self.rng.random() < chance:
                    self.add(bar, at, 1, DRUM_CHANNEL, instrument, level + (12 if at % 4 == 0 else 0))
        if fill and self.style.drums:
            for at in range(self.style.beats * 4 - 4, self.style.beats * 4):
                self.add(bar, at, 1, DRUM_CHANNEL, int(self.rng.choice([38, 41, 43, 45, 47, 48])), level + 5)

    def bass(self, bar: int, chord: int, level: float) -> None:
        hits = [h for h in self.style.bass[int(self.rng.integers(len(self.style.bass)))] if h < self.style.beats * 4]
        for hit, following in zip(hits, [*hits[1:], self.style.beats * 4], strict=True):
            step = chord + int(self.rng.choice([0, 0, 0, 0, 4, 2, 7]))
            self.add(bar, hit, (following - hit) * 0.9, 0, self.degree(step, self.root - 12), level)

    def chords(
        self, bar: int, chord: int, level: float, channel: int, hits: tuple[int, ...], *, arpeggio: bool
    ) -> None:
        steps = [chord, chord + 2, chord + 4] + ([chord + 6] if self.rng.random() < 0.25 else [])
        base = self.root + 12 + 12 * (channel % 2)
        total = self.style.beats * 4
        if arpeggio:
            for at in range(0, total, 2):
                self.add(bar, at, 3, channel, self.degree(steps[at // 2 % len(steps)], base), level)
            return
        hits = tuple(h for h in hits if h < total) or (0,)
        for hit, following in zip(hits, [*hits[1:], total], strict=True):
            for step in steps:
                self.add(bar, hit, (following - hit) * 0.92, channel, self.degree(step, base), level)

    def lead(self, bar: int, chord: int, level: float, channel: int, step: int) -> int:
        at = 0.0
        while at < self.style.beats * 4:
            length = float(self.rng.choice([1, 2, 2, 3, 4, 4, 6, 8]))
            if self.rng.random() < 0.8:
                step = int(np.clip(step + self.rng.integers(-2, 3), -3, 12))
                if at % 4 == 0 and self.rng.random() < 0.5:
                    step = chord % 7 + int(self.rng.choice([0, 2, 4]))
                self.add(bar, at, length * 0.95, channel, self.degree(step, self.root + 24), level)
            at += length
        return step


def compose(seed: int, *, seconds: float, style: str | None = None) -> mido.MidiFile:
    """Write one accompaniment.

    Args:
        seed: The same seed gives the same music.
        seconds: At least this long.
        style: A key of STYLES; None draws one.

    Returns:
        A MIDI file of one track, with drums and bass (where the style has them), chords, and often leads.
    """
    rng = np.random.default_rng(seed)
    chosen = STYLES[style or list(STYLES)[int(rng.integers(len(STYLES)))]]
    composer = _Composer(chosen, rng)
    tempo = float(rng.uniform(*chosen.tempo_bpm))
    bars = int(np.ceil(seconds * tempo / 60 / chosen.beats))
    programs = {0: int(rng.choice(BASSES))}
    comps = list(range(1, 2 + int(rng.integers(1, 4))))
    for channel in comps:
        programs[channel] = int(rng.choice(chosen.comping))
    leads = [6, 7][: int(rng.integers(0, 3))]
    for channel in leads:
        programs[channel] = int(rng.choice(chosen.leads))
    hits = {channel: chosen.comp_hits[int(rng.integers(len(chosen.comp_hits)))] for channel in comps}
    arpeggios = {channel for channel in comps if rng.random() < 0.3}
    step, active = 0, set(programs) | {DRUM_CHANNEL}
    progression = PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))]
    for bar in range(bars):
        if bar % 8 == 0:  # a new section: other chords, other players
            progression = PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))]
            active = {channel for channel in (*programs, DRUM_CHANNEL) if rng.random() < 0.8} or {comps[0]}
        chord = progression[bar % len(progression)]
        if DRUM_CHANNEL in active:
            composer.drums(bar, 80, fill=bar % 8 == 7 and rng.random() < 0.6)
        if 0 in active:
            composer.bass(bar, chord, 90)
        for channel in comps:
            if channel in active:
                composer.chords(bar, chord, 70, channel, hits[channel], arpeggio=channel in arpeggios)
        for channel in leads:
            if channel in active:
                step = composer.lead(bar, chord, 82, channel, step)
    return _midi_file(composer, tempo, programs, rng)


def _midi_file(composer: _Composer, tempo: float, programs: dict[int, int], rng: np.random.Generator) -> mido.MidiFile:
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    for channel in sorted({note.channel for note in composer.notes}):
        program = programs.get(channel, int(rng.choice([0, 0, 8, 16, 24, 25, 32, 40])))
        pan = 64 if channel in (0, DRUM_CHANNEL) else int(rng.integers(10, 118))
        track.append(mido.Message("program_change", channel=channel, program=program))
        for control, value in ((7, int(rng.integers(60, 118))), (10, pan), (91, int(rng.integers(0, 90)))):
            track.append(mido.Message("control_change", channel=channel, control=control, value=value))
    events = [(n.end, 0, n) for n in composer.notes] + [(n.start, 1, n) for n in composer.notes]
    now = 0
    for time, is_on, note in sorted(events, key=lambda event: event[:2]):
        kind, velocity = ("note_on", note.velocity) if is_on else ("note_off", 0)
        track.append(mido.Message(kind, channel=note.channel, note=note.pitch, velocity=velocity, time=time - now))
        now = time
    return mido.MidiFile(ticks_per_beat=TICKS, tracks=[track])


def play(midi: mido.MidiFile, destination: Path, sound_font: Path, *, sample_rate: int = 44_100) -> None:
    """Render a MIDI file to a 16-bit stereo WAV with the `fluidsynth` program.

    Raises:
        AutoVoiceError: fluidsynth or the sound font is missing, or it failed.
    """
    program = shutil.which("fluidsynth")
    if program is None or not sound_font.is_file():
        raise AutoVoiceError(
            "Bands cannot be rendered: fluidsynth or its sound font is missing.",
            hint="On Debian or Ubuntu: apt-get install fluidsynth fluid-soundfont-gm.",
        )
    with tempfile.TemporaryDirectory() as folder:
        score = Path(folder) / "score.mid"
        midi.save(score)
        command = [program, "-ni", "-q", "-g", "0.5", "-r", str(sample_rate), "-F", str(destination), str(sound_font)]
        done = subprocess.run([*command, str(score)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not destination.is_file():
        raise AutoVoiceError("fluidsynth could not render a band.", hint=done.stderr.strip()[-300:])
