"""`autovoice bench voice`: how well a model turns unseen speakers, speaking and singing, into each other.

Every speaker of the corpus's `dev` part is enrolled on 45 s. Held-out utterances are converted to other speakers, sung
clips to spoken voices. The same judges hear conversions, untouched recordings, resynthesis to the same speaker and a
WORLD-vocoder conversion as the floor.
"""

import argparse
import multiprocessing
import os
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from engine.bench.corpus import Utterance, by_speaker, read_manifest
from engine.bench.figures import Conversion, conversion_figures, judge_figures, recording_figures
from engine.bench.spectrogram import write_spectrograms
from engine.errors import AutoVoiceError
from engine.jobs import JobContext
from engine.signal import AudioClip, read_audio, resample, write_audio

ENROLMENT_S = 45.0
_SEED = 1
_LIVE_BLOCK = 960  # samples: 20 ms at 48 kHz
_SHORTEST_S, _LONGEST_S = 2.5, 9.0


@dataclass(frozen=True)
class Speaker:
    """A speaker of the corpus, split into what the program may hear and what is held out.

    Attributes:
        name: As in the manifest.
        enrolment: [1, N] of 45 s.
        held_out: Utterances of which nothing is in the enrolment, shortest first.
    """

    name: str
    enrolment: AudioClip
    held_out: tuple[Utterance, ...]


@dataclass(frozen=True)
class Source:
    """Something to convert.

    Attributes:
        name: For the report.
        clip: [1, N].
        speaker: Who speaks; the sung clips' reference is a speaker "singer".
        text: What is said, empty when unknown.
    """

    name: str
    clip: AudioClip
    speaker: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder with train/, dev/ and songs/")
    parser.add_argument(
        "--pairs", type=int, default=40, metavar="N", help="spoken conversions (and a third as many sung)"
    )
    parser.add_argument("--model", choices=("studio", "live"), default="studio")
    parser.add_argument("--improved", action="store_true", help="improve each voice first, as the Voices page offers")
    parser.add_argument("--worst", type=Path, metavar="DIR", help="where the worst clips go; default: beside --json")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where the speaker judge and what the judges say of recordings are kept",
    )


def run(options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    """Enrol, convert and judge; see the module's docstring.

    Raises:
        AutoVoiceError: The corpus lacks a part, a model is missing, or a judge's package is not installed.
    """
    if options.pairs < 1:
        raise AutoVoiceError("--pairs must be at least 1.")
    import torch

    from engine.bench import judges, speaker_judge
    from engine.conversion import embed_voice, load_converter

    judges.check_installed()
    cache = options.cache or Path(platformdirs.user_cache_dir("AutoVoice")) / "bench"
    speaker_judge.load_or_train(options.corpus, cache, ctx.part(0.0, 0.1))
    torch.set_num_threads(2)
    speakers = read_speakers(options.corpus / "dev")
    hearings = cache / f"hearings-{judges.versions()}"
    hearings.mkdir(parents=True, exist_ok=True)
    converter = load_converter(options.model, "cpu")
    voices, enrolment_s = {}, []
    for number, speaker in enumerate(speakers):
        ctx.checkpoint("Enrolling", 0.1 + 0.05 * number / len(speakers))
        started = time.monotonic()
        voices[speaker.name] = embed_voice([speaker.enrolment], name=speaker.name)
        enrolment_s.append(time.monotonic() - started)
    improved = _improve(voices, speakers, ctx.part(0.15, 0.2)) if options.improved else None
    bench = _VoiceBench(options.model, converter, voices, speakers, hearings)
    speech = choose_pairs(speakers, options.pairs, random.Random(_SEED))
    sung = choose_sung(options.corpus, [s.name for s in speakers], max(4, options.pairs // 3), random.Random(_SEED))
    speed = bench.measure_speed(speech, ctx.part(0.2, 0.3))
    pool = ProcessPoolExecutor(
        max_workers=2,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=judges.start_worker,
        initargs=(str(cache / f"speaker-judge-{speaker_judge.RECIPE}.safetensors"),),
    )
    try:
        figures = bench.judge(pool, speech, sung, ctx.part(0.3, 1.0))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    worst_folder = options.worst or (
        options.json.with_suffix("").with_name(options.json.stem + "-worst") if options.json else None
    )
    if worst_folder is not None:
        figures["worst"] = bench.save_worst(worst_folder)
    reference_db = high_band_reference(options.corpus / "train")
    return {
        "model": options.model,
        "model_ids": dict(converter.model_ids),
        "pairs": len(speech),
        "sung_clips": len(sung),
        "enrolment_s": round(float(np.median(enrolment_s)), 2),
        "improved": improved,
        "speed": speed,
        "vctk_high_band_db": reference_db,
        **figures,
    }


def _improve(voices: dict[str, Any], speakers: Sequence[Speaker], ctx: JobContext) -> dict[str, Any]:
    """Improve the voices in place; how many came out changed, and how long one took."""
    from engine.conversion.adaptation import improve_voice

    kept, seconds = 0, []
    for number, speaker in enumerate(speakers):
        started = time.monotonic()
        part = ctx.part(number / len(speakers), (number + 1) / len(speakers))
        outcome = improve_voice(voices[speaker.name], [speaker.enrolment], ctx=part)
        voices[speaker.name] = outcome.voice
        kept += outcome.kept
        seconds.append(time.monotonic() - started)
    return {"kept": kept, "voices": len(speakers), "seconds": round(float(np.median(seconds)), 1)}


def summarise(figures: Mapping[str, Any]) -> str:
    """The figures of the tables, one line each."""
    rows = table_rows(figures)
    width = max(len(label) for label, _value in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def table_rows(figures: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """What README and the cards show of a report."""
    from engine.bench.tables import voice_rows

    return voice_rows(figures)


def read_speakers(folder: Path) -> list[Speaker]:
    """Split each speaker of spoken recordings; the longest utterances enrol, the rest is held out.

    Raises:
        AutoVoiceError: Fewer than two speakers have enough.
    """
    speakers = []
    for name, utterances in by_speaker(read_manifest(folder)).items():
        if utterances[0].set_name == "producerspace":
            continue
        ordered = sorted(utterances, key=lambda u: -u.seconds)
        pieces, heard = [], 0.0
        while ordered and heard < ENROLMENT_S:
            clip = ordered.pop(0).read(max_seconds=min(20.0, ENROLMENT_S - heard))
            pieces.append(clip)
            heard += clip.seconds
        held_out = [u for u in reversed(ordered) if _SHORTEST_S <= u.seconds <= _LONGEST_S]
        if heard >= ENROLMENT_S - 0.1 and held_out:
            rate = pieces[0].sample_rate
            joined = np.concatenate([p.samples for p in pieces], axis=1)
            speakers.append(Speaker(name, AudioClip(joined, rate), tuple(held_out)))
    if len(speakers) < 2:
        raise AutoVoiceError(
            "The corpus's dev part needs two speakers of a minute each.", hint=f"Only {len(speakers)} fit in {folder}."
        )
    return speakers


def choose_pairs(speakers: Sequence[Speaker], count: int, rng: random.Random) -> list[tuple[Source, str]]:
    """(source, target speaker): ordered pairs at random, again and again, each time with another utterance.

    Where only some speakers' words are known, every second pair starts from one of them.
    """
    ordered = [(a, b) for a in speakers for b in speakers if a is not b]
    rng.shuffle(ordered)
    known = [pair for pair in ordered if pair[0].held_out[0].text]
    unknown = [pair for pair in ordered if not pair[0].held_out[0].text]
    used: dict[str, int] = {}
    chosen = []
    for number in range(count):
        pairs = (known, unknown)[number % 2] if known and unknown else ordered
        source, target = pairs[(number // 2 if pairs is not ordered else number) % len(pairs)]
        number_used = used.setdefault(source.name, rng.randrange(len(source.held_out)))
        utterance = source.held_out[number_used % len(source.held_out)]
        used[source.name] += 7 if len(source.held_out) % 7 else 1
        chosen.append((Source(utterance.path.stem, utterance.read(), source.name, utterance.text), target.name))
    return chosen


def choose_sung(corpus: Path, targets: Sequence[str], count: int, rng: random.Random) -> list[tuple[Source, str]]:
    """Dry sung clips of the manifest and loud 8 s stretches of the songs' vocals, each to the next spoken voice."""
    sources = [
        Source(u.path.stem, u.read(), "singer", "")
        for u in read_manifest(corpus / "dev")
        if u.set_name == "producerspace" and u.seconds >= _SHORTEST_S
    ]
    rng.shuffle(sources)
    stretches = []
    for path in sorted((corpus / "songs" / "dev").glob("*/vocals.opus")):
        stretches += _loud_stretches(path, 4)
    # Three dry clips for each stretch of a song, so that a small count holds both kinds.
    mixed: list[Source] = []
    while sources or stretches:
        mixed += [sources.pop(0) for _ in range(min(3, len(sources)))]
        mixed += [stretches.pop(0)] if stretches else []
    return [(source, targets[number % len(targets)]) for number, source in enumerate(mixed[:count])]


def high_band_reference(train: Path) -> float | None:
    """Median energy above 8 kHz of the vctk recordings, dB; None where the corpus has none."""
    from engine.bench.judges import high_band_db

    recordings = [u for u in read_manifest(train) if u.set_name == "vctk"][:30]
    levels = [level for u in recordings if (level := high_band_db(u.read())) is not None]
    return round(float(np.median(levels)), 2) if levels else None


def _loud_stretches(path: Path, count: int) -> list[Source]:
    """The loudest stretches of 8 s that do not overlap."""
    clip = read_audio(path).mono()
    size = 8 * clip.sample_rate
    starts = range(0, clip.num_samples - size + 1, size)
    power = {start: float(np.mean(clip.samples[0, start : start + size] ** 2)) for start in starts}
    best = sorted(sorted(starts, key=lambda s: -power[s])[:count])
    return [
        Source(f"{path.parent.name}-{s // clip.sample_rate}s", _cut(clip, s, size), f"song-{path.parent.name}", "")
        for s in best
    ]


def _cut(clip: AudioClip, start: int, size: int) -> AudioClip:
    return AudioClip(np.ascontiguousarray(clip.samples[:, start : start + size]), clip.sample_rate)


class _VoiceBench:
    """One model, the enrolled voices and all clips that were made of them."""

    def __init__(
        self, model: str, converter: Any, voices: Mapping[str, Any], speakers: Sequence[Speaker], hearings: Path
    ) -> None:
        self._model, self._converter, self._voices, self._hearings = model, converter, voices, hearings
        self._speakers = {speaker.name: speaker for speaker in speakers}
        self._conversions: list[Conversion] = []

    def measure_speed(self, pairs: Sequence[tuple[Source, str]], ctx: JobContext) -> dict[str, Any]:
        """Seconds of work per second of audio: wall clock, and processor time, which other programs disturb less."""
        import torch

        samples = np.concatenate(
            [p.clip.samples for p, _target in pairs if p.clip.sample_rate == pairs[0][0].clip.sample_rate], axis=1
        )
        rate = pairs[0][0].clip.sample_rate
        seconds = 10.0 if self._model == "live" else 20.0
        samples = np.resize(samples[0], int(seconds * rate))[None].astype(np.float32)
        clip = AudioClip(samples, rate)
        voice = self._voices[pairs[0][1]]
        threads = 1 if self._model == "live" else 2
        torch.set_num_threads(threads)
        walls, cpus = [], []
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        for turn in range(2):
            ctx.checkpoint("Measuring speed", turn / 2)
            wall, cpu = time.perf_counter(), time.process_time()
            self._convert(clip, voice, 0.0)
            walls.append((time.perf_counter() - wall) / seconds)
            cpus.append((time.process_time() - cpu) / seconds)
        torch.set_num_threads(1)  # from here on the judges need the other cores
        speed = {
            "threads": threads,
            "load": round(load, 1),
            "rtf_wall": round(min(walls), 4),
            "rtf_cpu": round(min(cpus), 4),
        }
        if self._model == "live":
            stream = self._converter.stream(voice)
            speed["latency_ms"] = round(1000.0 * stream.latency_samples / stream.sample_rate_in, 2)
        return speed

    def judge(
        self,
        pool: ProcessPoolExecutor,
        speech: Sequence[tuple[Source, str]],
        sung: Sequence[tuple[Source, str]],
        ctx: JobContext,
    ) -> dict[str, Any]:
        """Convert everything while the workers judge what is ready."""
        from engine.bench import judges

        enrolled = {s.name: pool.submit(judges.embed_speaker, s.enrolment) for s in self._speakers.values()}
        references = {name: pool.submit(judges.embed_speaker, clip) for name, clip in _singers(sung).items()}
        trials = [
            (speaker.name, pool.submit(judges.embed_speaker, utterance.read()))
            for speaker in self._speakers.values()
            for utterance in speaker.held_out[:8]
        ]
        sources = {source.name: source for source, _target in (*speech, *sung)}
        heard_sources = {
            name: pool.submit(judges.hear_recording, source.clip, source.text, self._hearings / f"{name}.npz")
            for name, source in sources.items()
        }
        work = [("speech", s, t) for s, t in speech] + [("sung", s, t) for s, t in sung]
        spoken = [s for s in sources.values() if s.speaker in self._speakers]
        work += [("resynthesis", source, source.speaker) for source in spoken[: max(4, len(speech) // 3)]]
        pending: list[tuple[Conversion, Future[judges.Hearing]]] = []
        for number, (kind, source, target) in enumerate(work):
            ctx.checkpoint("Converting", 0.4 * number / len(work))
            conversion, converted = self._make(kind, source, target)
            pending.append((conversion, pool.submit(judges.hear, converted, source.text if kind == "speech" else "")))
        for source, target in speech[: max(4, len(speech) // 3)]:
            path = self._hearings / f"world-{source.name}-{target}.npz"
            conversion = Conversion("world", source.name, source.speaker, target, source.clip, None, None, 0.0)
            enrolment = self._speakers[target].enrolment
            pending.append((conversion, pool.submit(judges.hear_world, source.clip, enrolment, path)))
        for number, (conversion, future) in enumerate(pending):
            while not future.done():
                ctx.checkpoint("Judging", 0.4 + 0.6 * number / len(pending))
                time.sleep(0.1)
            conversion.hearing = future.result()
            conversion.source_hearing = heard_sources[conversion.source_name].result()
            conversion.target_embedding = enrolled[conversion.target].result()
            source_speaker = conversion.source_speaker
            conversion.source_embedding = (enrolled | references)[source_speaker].result()
        self._conversions = [conversion for conversion, _future in pending]
        enrolled_now = {name: future.result() for name, future in enrolled.items()}
        accuracy = judge_figures([(name, future.result()) for name, future in trials], enrolled_now)
        thresholds = {name: accuracy[name]["threshold"] for name in ("independent", "ge2e")}
        figures: dict[str, Any] = {"speaker_judges": accuracy}
        for kind in ("speech", "sung", "resynthesis", "world"):
            figures[kind] = conversion_figures([c for c in self._conversions if c.kind == kind], thresholds)
        recordings = [(s.speaker, heard_sources[s.name].result()) for s in sources.values()]
        figures["recordings"] = recording_figures([r for r in recordings if r[0] in self._speakers], enrolled_now)
        figures["sung_recordings"] = recording_figures([r for r in recordings if r[0] not in self._speakers], {})
        return figures

    def save_worst(self, folder: Path) -> list[dict[str, Any]]:
        """Write source and converted audio of the worst clips with spectrograms, and say why each was chosen."""
        folder.mkdir(parents=True, exist_ok=True)
        saved: dict[str, dict[str, Any]] = {}
        ranks = {
            "speaker": lambda c: c.margin("independent"),
            "naturalness": lambda c: c.hearing.dnsmos,
            "voicing": lambda c: -c.voicing_errors,
            "pitch": lambda c: -(c.pitch.rmse_cents or 0.0),
        }
        for kind in ("speech", "sung"):
            for reason, rank in ranks.items():
                for conversion in sorted((c for c in self._conversions if c.kind == kind), key=rank)[:2]:
                    name = f"{kind}-{conversion.source_name}-to-{conversion.target}"
                    if conversion.converted is None:
                        continue
                    if name in saved:
                        saved[name]["reasons"].append(reason)
                        continue
                    write_audio(folder / f"{name}-source.flac", conversion.source)
                    write_audio(folder / f"{name}.flac", conversion.converted)
                    write_spectrograms(folder / f"{name}.png", [conversion.source, conversion.converted])
                    saved[name] = {"file": f"{name}.flac", "reasons": [reason], **conversion.summary()}
        return list(saved.values())

    def _make(self, kind: str, source: Source, target: str) -> tuple[Conversion, AudioClip]:
        from engine.pitch import estimate_f0

        f0 = estimate_f0(source.clip, tracker="swift")
        semitones = 0.0 if kind == "resynthesis" else self._transposition(f0, target, sung=kind == "sung")
        converted = self._convert(source.clip, self._voices[target], semitones, f0)
        wanted = f0.transposed(semitones)
        made = Conversion(kind, source.name, source.speaker, target, source.clip, converted, wanted, semitones)
        return made, converted

    def _transposition(self, contour: Any, target: str, *, sung: bool) -> float:
        """Semitones to the target's median; whole octaves for song, so that it stays in key."""
        median = contour.median_hz()
        if median is None or not np.isfinite(median):
            return 0.0
        semitones = 12.0 * np.log2(self._voices[target].median_f0_hz / median)
        return float(12.0 * np.round(semitones / 12.0) if sung else semitones)

    def _convert(self, clip: AudioClip, voice: Any, semitones: float, f0: Any = None) -> AudioClip:
        """The way a user hears it: the studio model over the whole clip, the live model in blocks of 20 ms.

        The live model follows the pitch itself; the studio model is given the contour, or tracks it when it is None.
        """
        from engine.pitch import estimate_f0

        if self._model == "studio":
            f0 = f0 or estimate_f0(clip, tracker="swift")
            converted: AudioClip = self._converter.convert(clip, voice, f0.transposed(semitones), source_f0=f0)
            return converted
        stream = self._converter.stream(voice)
        stream.transpose_semitones = semitones
        samples = resample(clip, stream.sample_rate_in).samples[0]
        blocks = [stream.push(samples[s : s + _LIVE_BLOCK]) for s in range(0, len(samples), _LIVE_BLOCK)]
        whole = np.concatenate([*blocks, stream.flush()])
        aligned = whole[stream.latency_samples : stream.latency_samples + len(samples)]
        return AudioClip(np.ascontiguousarray(aligned[None], np.float32), stream.sample_rate_out)


def _singers(sung: Sequence[tuple[Source, str]]) -> dict[str, AudioClip]:
    """Half a minute of each singer, from all their clips: who a sung source sounds like."""
    voices: dict[str, list[AudioClip]] = {}
    for source, _target in sung:
        voices.setdefault(source.speaker, []).append(source.clip)
    joined = {}
    for name, clips in voices.items():
        samples = np.concatenate([c.samples for c in clips if c.sample_rate == clips[0].sample_rate], axis=1)
        joined[name] = AudioClip(samples[:, : 30 * clips[0].sample_rate], clips[0].sample_rate)
    return joined
