"""From a song to the same song in another voice: the order of the steps, through files, in bounded memory."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.errors import AudioFileError
from engine.jobs import JobContext
from engine.pitch import F0Contour, auto_transpose_semitones, estimate_f0_of_file
from engine.signal import (
    AudioClip,
    AudioReader,
    AudioWriter,
    FloatArray,
    Limiter,
    LoudnessMeter,
    PeakBuilder,
    PeakPyramid,
    StereoPosition,
    StreamingResampler,
    TruePeakMeter,
    cannot_write,
    check_writable_ending,
    publish,
    to_stereo,
    working_folder,
)

if TYPE_CHECKING:
    from engine.conversion import Voice

CEILING_DBTP = -1.0
_BLOCK = 2**16
_HANDS = 5
_SILENT = 1e-5  # a peak below -100 dBFS
_TOO_LOUD = 2.0  # floats that pass full scale by more than 6 dB are turned down before anything listens to them
_MAX_GAIN_DB = 12.0
_LISTENING_S = 60.0  # how much of the result the likeness to the voice is measured on


@dataclass(frozen=True)
class Preset:
    """What is spent on a song.

    Attributes:
        name: As the command line and the settings know it.
        tracker: Of `pitch.TRACKERS`.
        kind: Which models convert.
        separation_passes: How often the separation runs, each time shifted; the mean is a little cleaner.
        summary: What it does, one sentence.
    """

    name: str
    tracker: str
    kind: Literal["studio", "live"]
    separation_passes: int
    summary: str


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("fast", "swift", "live", 1, "The live models and one pitch tracker: for trying a voice out."),
        Preset(
            "balanced",
            "swift+crepe-tiny",
            "studio",
            1,
            "The studio models; a second pitch tracker is heard where the first is in doubt.",
        ),
        Preset(
            "quality",
            "swift+crepe-full",
            "studio",
            2,
            "As balanced, with the largest pitch tracker for what those two disagree on, and two passes of separation.",
        ),
    )
}


@dataclass(frozen=True, eq=False)
class RenderOptions:
    """How a song is rendered.

    Attributes:
        preset: Of PRESETS.
        transpose: Semitones, or "auto": with accompaniment by the octaves, and for a bare voice by the semitones,
            that bring the median pitch nearest to the voice's. The accompaniment keeps its key, so any other interval
            would be out of tune with it.
        separation: "auto" for the embedded model, "none" when the source is a bare voice, or a model's name.
        torch_device: "auto", "cpu", "cuda" or "mps".
        formant_semitones: Moves the converted voice's formants.
        consonants: How far unvoiced sounds stay the source's own, 0 to 1; None leaves it to the converter.
        f0_edits: The wanted contour as the user drew it, already transposed; unvoiced where NaN. Takes the place of
            the tracked one from its first to its last frame.
        reuse_stems: Folder of an earlier render's stems of this very source, which saves the separation.
        vocals_gain_db: Level of the converted voice against the original one.
    """

    preset: str = "balanced"
    transpose: Literal["auto"] | float = "auto"
    separation: str = "auto"
    torch_device: str = "auto"
    formant_semitones: float = 0.0
    consonants: float | None = None
    f0_edits: F0Contour | None = None
    reuse_stems: Path | None = None
    vocals_gain_db: float = 0.0


@dataclass(frozen=True)
class Stems:
    """Files of one render, stereo float wav at the song's rate, all of the song's length.

    Attributes:
        vocals: The original voice.
        converted: The converted voice, where and as loud as the original.
        accompaniment: Everything else; None for a bare voice.
    """

    vocals: Path
    converted: Path
    accompaniment: Path | None

    @classmethod
    def in_folder(cls, folder: Path, *, with_accompaniment: bool = True) -> "Stems":
        """Where a folder keeps them."""
        accompaniment = folder / "accompaniment.wav" if with_accompaniment else None
        return cls(folder / "vocals.wav", folder / "converted.wav", accompaniment)

    def paths(self) -> list[Path]:
        """The files that there are."""
        return [path for path in (self.vocals, self.converted, self.accompaniment) if path is not None]


@dataclass(frozen=True, eq=False)
class FoundPitch:
    """What a render shows through its JobContext as soon as it is known, long before the mix is done.

    Attributes:
        source_f0: The original voice's pitch.
        wanted_f0: What the converted voice is going to sing.
        transpose_semitones: How far the one lies above the other, edits aside.
    """

    source_f0: F0Contour
    wanted_f0: F0Contour
    transpose_semitones: float


@dataclass(frozen=True, eq=False)
class RenderResult:
    """What a render gives back.

    Attributes:
        destination: The mix.
        report: What was done and measured, JSON values only; docs/report.md explains its keys.
        stems: Kept stems, or None.
        source_peaks: Of the song.
        vocals_peaks: Of the original voice.
        mix_peaks: Of the result.
        source_f0: The original voice's pitch.
        wanted_f0: What the converted voice was to sing.
        converted_f0: What it does sing, as the fast tracker hears it.
    """

    destination: Path
    report: dict[str, Any]
    stems: Stems | None
    source_peaks: PeakPyramid
    vocals_peaks: PeakPyramid
    mix_peaks: PeakPyramid
    source_f0: F0Contour
    wanted_f0: F0Contour
    converted_f0: F0Contour


def render_song(
    source: Path,
    destination: Path,
    voice: "Voice",
    options: RenderOptions,
    ctx: JobContext,
    *,
    stems_folder: Path | None = None,
) -> RenderResult:
    """Render a song in another voice.

    The mix has the source's rate and channels (surround comes out as stereo), its true peak stays below -1 dBTP.
    Everything passes through files beside the destination, so memory does not grow with the length of the song except
    for contours, peaks and 16 kHz mono. A failed or cancelled render leaves no file.

    Args:
        source: Song or bare voice, any readable kind.
        destination: The mix; its ending picks the kind. Its folder must exist.
        voice: Who sings in it.
        options: Preset, key and the like.
        ctx: Progress and cancellation; shows the FoundPitch before the conversion begins.
        stems_folder: Also keep the stems here; made if missing.

    Raises:
        AudioFileError: The source cannot be read, the destination cannot be written, or is the source itself.
        ModelError: A model is absent or damaged.
        OutOfMemoryError: It does not fit, even on the CPU in small segments.
        EngineBusyError: Another job holds the models.
        ValueError: No such preset.
        Cancelled: The job was stopped.
    """
    if options.preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {options.preset!r}")
    source, destination = Path(source), Path(destination)
    check_writable_ending(destination)
    _refuse_overwriting(source, destination, stems_folder)
    from engine.models import lease

    with lease(), working_folder(destination.parent) as work, ThreadPoolExecutor(_HANDS) as hands:
        return _Render(source, destination, voice, options, ctx, work, stems_folder, hands).run()


class _Render:
    """One render; each step reads the files of the steps before."""

    def __init__(
        self,
        source: Path,
        destination: Path,
        voice: "Voice",
        options: RenderOptions,
        ctx: JobContext,
        work: Path,
        stems_folder: Path | None,
        hands: ThreadPoolExecutor,
    ) -> None:
        self._hands = hands
        self._source, self._destination, self._voice, self._options = source, destination, voice, options
        self._ctx, self._work, self._stems_folder = ctx, work, stems_folder
        self._preset = PRESETS[options.preset]
        self._seconds_before = ctx.stage_seconds
        self._models: dict[str, str] = {}
        self._torch_device = "cpu"
        self._with_accompaniment = options.separation != "none"
        self._stems = Stems.in_folder(work, with_accompaniment=self._with_accompaniment)
        self._converted_lufs = -np.inf

    def run(self) -> RenderResult:
        ctx = self._ctx
        ctx.checkpoint("Reading the song", 0.0)
        source_peaks, peak = self._decode(ctx.part(0.0, 0.04))
        if peak < _SILENT:
            ctx.note("The song is silent, so there was nothing to convert.")
        vocals_lufs, vocals_peaks, position = self._find_vocals(peak < _SILENT, ctx.part(0.04, 0.5))
        source_f0 = self._track(ctx.part(0.5, 0.6))
        wanted_f0, transpose = self._wanted(source_f0)
        ctx.show(FoundPitch(source_f0, wanted_f0, transpose))
        if vocals_lufs > -np.inf:
            self._convert(source_f0, wanted_f0, ctx)
        gain_db = self._gain_db(vocals_lufs)
        mix_peaks, loudness = self._mix(position, gain_db, ctx.part(0.87, 0.95))
        converted_f0, figures = self._listen(wanted_f0, ctx.part(0.95, 1.0))
        ctx.checkpoint("Done", 1.0)  # the last chance to stop: from here on there are files
        stems = self._publish()
        report = {
            **self._report_of_the_job(source_peaks.seconds, transpose, gain_db, source_f0, wanted_f0, converted_f0),
            **figures,
            **loudness,
        }
        return RenderResult(
            self._destination,
            report,
            stems,
            source_peaks,
            vocals_peaks,
            mix_peaks,
            source_f0,
            wanted_f0,
            converted_f0,
        )

    # --- Source to stems ---

    @property
    def _mixture(self) -> Path:
        return self._stems.vocals if not self._with_accompaniment else self._work / "mixture.wav"

    def _decode(self, ctx: JobContext) -> tuple[PeakPyramid, float]:
        with AudioReader(self._source) as reader, _read_ahead(reader.blocks(_BLOCK)) as blocks:
            info = reader.info
            self._rate, self._num_channels = info.sample_rate, info.num_channels
            peaks = PeakBuilder(info.sample_rate)
            peak = 0.0
            with AudioWriter(
                self._mixture, self._rate, 2, float_samples=True, num_samples_hint=info.num_samples
            ) as writer:
                for block in blocks:
                    stereo = to_stereo(block)
                    self._at_once((writer.write, stereo), (peaks.push, stereo))
                    peak = max(peak, float(np.abs(stereo).max()))
                    ctx.checkpoint("Reading the song", peaks.num_samples / max(info.num_samples, 1))
            repaired = reader.num_repaired
        if not peaks.num_samples:
            raise AudioFileError(f"“{self._source.name}” holds no sound.", hint="Export or download it again.")
        self._num_samples = peaks.num_samples
        if repaired:
            self._ctx.note(f"{repaired} samples of the song were not numbers and were taken as silence.")
        if self._num_channels > 2:
            self._ctx.note(f"The song's {self._num_channels} channels were folded down to stereo.")
        if peak > _TOO_LOUD:
            self._ctx.note(f"The song passes full scale by {20 * np.log10(peak):.0f} dB and was turned down.")
            self._scale(self._mixture, 1 / peak, ctx)
        return peaks.finish(), peak

    def _scale(self, path: Path, factor: float, ctx: JobContext) -> None:
        with self._writer(path) as writer:
            for block, _ in self._blocks(path, ctx, "Reading the song"):
                writer.write(block * np.float32(factor))

    def _find_vocals(self, is_silent: bool, ctx: JobContext) -> tuple[float, PeakPyramid, StereoPosition]:
        if self._options.reuse_stems is not None:
            self._reuse(Stems.in_folder(self._options.reuse_stems, with_accompaniment=self._with_accompaniment))
        elif self._with_accompaniment and is_silent:
            shutil.copyfile(self._mixture, self._stems.vocals)
            os.replace(self._mixture, self._work / "accompaniment.wav")
        elif self._with_accompaniment:
            self._separate(ctx.part(0.0, 0.95))
        ctx = ctx.part(0.95, 1.0)
        meter, peaks = LoudnessMeter(self._rate, 2), PeakBuilder(self._rate)

        def listened() -> Iterator[FloatArray]:
            for block, _ in self._blocks(self._stems.vocals, ctx.part(0.0, 0.5), "Reading the vocals"):
                self._at_once((meter.push, block), (peaks.push, block))
                yield block

        position = StereoPosition.from_blocks(listened(), self._rate)
        with AudioWriter(self._lead, self._rate, 1, float_samples=True, num_samples_hint=self._num_samples) as writer:
            for block, start in self._blocks(self._stems.vocals, ctx.part(0.5, 1.0), "Reading the vocals"):
                writer.write(position.fold(block, start))
        return meter.integrated(), peaks.finish(), position

    @property
    def _lead(self) -> Path:
        return self._work / "lead.wav"

    def _separate(self, ctx: JobContext) -> None:
        from engine.separation import separate

        model = "embedded" if self._options.separation == "auto" else self._options.separation
        separation = separate(
            self._mixture,
            self._work,
            model=model,
            torch_device=self._options.torch_device,
            passes=self._preset.separation_passes,
            ctx=ctx,
        )
        self._mixture.unlink()
        self._models[separation.model] = separation.model_sha256
        self._torch_device = separation.torch_device
        os.replace(separation.vocals, self._stems.vocals)
        os.replace(separation.accompaniment, self._work / "accompaniment.wav")

    def _reuse(self, stems: Stems) -> None:
        paths = [stems.vocals] if stems.accompaniment is None else [stems.vocals, stems.accompaniment]
        for path in paths:
            with AudioReader(path) as reader:
                info = reader.info
            if (info.sample_rate, info.num_channels, info.num_samples) != (self._rate, 2, self._num_samples):
                raise AudioFileError(
                    f"The stem “{path}” does not belong to this song.", hint="Convert without kept stems."
                )
            shutil.copyfile(path, self._work / path.name)

    # --- Pitch and conversion ---

    def _track(self, ctx: JobContext) -> F0Contour:
        return estimate_f0_of_file(self._lead, tracker=self._preset.tracker, ctx=ctx)

    def _wanted(self, source_f0: F0Contour) -> tuple[F0Contour, float]:
        options = self._options
        if options.transpose == "auto":
            semitones = auto_transpose_semitones(
                source_f0, self._voice.median_f0_hz, with_accompaniment=self._with_accompaniment
            )
        else:
            semitones = float(options.transpose)
        wanted = source_f0.transposed(semitones)
        if options.f0_edits is not None:
            wanted = _edited(wanted, options.f0_edits)
        return wanted, semitones

    def _convert(self, source_f0: F0Contour, wanted_f0: F0Contour, ctx: JobContext) -> None:
        from engine.conversion import load_converter
        from engine.models import pick_torch_device, run_with_fallback

        ctx.checkpoint("Loading the voice models", 0.6)
        self._torch_device = pick_torch_device(self._options.torch_device)

        def work(torch_device: str, segment_s: float) -> None:
            converter = load_converter(self._preset.kind, torch_device)
            self._models |= converter.model_ids
            self._torch_device = torch_device
            self._stream_conversion(converter, source_f0, wanted_f0, segment_s, ctx.part(0.62, 0.87))

        # A card takes long segments for the price of short ones; a processor's caches do not.
        segments_s = (5.0, 1.0) if self._torch_device == "cpu" else (20.0, 5.0, 1.0)
        run_with_fallback(work, torch_device=self._torch_device, segments_s=segments_s, ctx=ctx)

    def _stream_conversion(
        self, converter: Any, source_f0: F0Contour, wanted_f0: F0Contour, segment_s: float, ctx: JobContext
    ) -> None:
        settings = {} if self._options.consonants is None else {"consonants": self._options.consonants}
        rate = converter.sample_rate
        to_model, to_song = StreamingResampler(self._rate, rate, 1), StreamingResampler(rate, self._rate, 1)
        meter = LoudnessMeter(self._rate, 1)
        num_read = written = 0

        def checkpoint(stage: str) -> None:
            ctx.checkpoint(stage, (0.3 * num_read + 0.7 * written) / self._num_samples)

        def heard() -> Iterator[FloatArray]:
            nonlocal num_read
            with AudioReader(self._lead) as reader:
                for block in reader.blocks(max(round(segment_s * self._rate), 1)):
                    checkpoint("Listening to the voice")
                    num_read += block.shape[1]
                    yield to_model.push(block)[0]
            yield to_model.flush()[0]
            checkpoint("Converting the voice")

        with AudioWriter(self._dry, self._rate, 1, float_samples=True, num_samples_hint=self._num_samples) as writer:

            def put(samples: FloatArray) -> None:
                nonlocal written
                samples = samples[:, : self._num_samples - written]
                written += samples.shape[1]
                writer.write(samples)
                meter.push(samples * np.float32(np.sqrt(2.0)))  # the power that it has once it is placed

            for block in converter.convert_blocks(
                heard(),
                self._voice,
                wanted_f0,
                source_f0=source_f0,
                formant_semitones=self._options.formant_semitones,
                **settings,
            ):
                put(to_song.push(block[None]))
                checkpoint("Converting the voice")
            put(to_song.flush())
            put(np.zeros((1, self._num_samples - written), np.float32))
        self._converted_lufs = meter.integrated()

    @property
    def _dry(self) -> Path:
        return self._work / "dry.wav"

    # --- Converted voice to mix ---

    def _gain_db(self, vocals_lufs: float) -> float:
        """What makes the converted voice as loud as the original, and as much more as is asked for."""
        gain_db = 0.0
        if np.isfinite(self._converted_lufs) and np.isfinite(vocals_lufs):
            gain_db = float(np.clip(vocals_lufs - self._converted_lufs, -_MAX_GAIN_DB, _MAX_GAIN_DB))
        return gain_db + self._options.vocals_gain_db

    @property
    def _mixed(self) -> Path:
        return self._work / f"mix{self._destination.suffix}"

    def _mix(self, position: StereoPosition, gain_db: float, ctx: JobContext) -> tuple[PeakPyramid, dict[str, Any]]:
        """Put the converted voice where the original was, and mix it with everything else."""
        channels = min(self._num_channels, 2)
        limiter = Limiter(self._rate, CEILING_DBTP, 2)
        meter, true_peak, peaks = LoudnessMeter(self._rate, channels), TruePeakMeter(channels), PeakBuilder(self._rate)
        late, left = limiter.latency_samples, self._num_samples

        def put(placed: FloatArray, block: FloatArray) -> None:
            nonlocal late, left
            dropped = min(late, block.shape[1])
            block = block[:, dropped:][:, :left]
            late, left = late - dropped, left - block.shape[1]
            if channels == 1:
                block = block.mean(axis=0, keepdims=True, dtype=np.float32)
            self._at_once(
                (stem.write, placed),
                (writer.write, block),
                (meter.push, block),
                (true_peak.push, block),
                (peaks.push, block),
            )

        with (
            contextlib.ExitStack() as open_files,
            self._writer(self._stems.converted) as stem,
            AudioWriter(self._mixed, self._rate, channels, num_samples_hint=self._num_samples) as writer,
        ):
            accompaniment = (
                open_files.enter_context(AudioReader(self._stems.accompaniment)) if self._stems.accompaniment else None
            )
            for placed in self._placed(position, gain_db, ctx):
                mixed = placed if accompaniment is None else placed + accompaniment.read(placed.shape[1])
                put(placed, limiter.push(mixed))
            put(np.zeros((2, 0), np.float32), limiter.flush())
        return peaks.finish(), {
            "mix_peak_dbtp": _finite(true_peak.dbtp),
            "mix_loudness_lufs": _finite(meter.integrated()),
        }

    def _placed(self, position: StereoPosition, gain_db: float, ctx: JobContext) -> Iterator[FloatArray]:
        if not self._dry.exists():
            for block, _ in self._blocks(self._stems.vocals, ctx, "Mixing"):
                yield np.zeros_like(block)
            return
        factor = np.float32(10 ** (gain_db / 20))
        for block, start in self._blocks(self._dry, ctx, "Mixing"):
            yield position.place(block * factor, start)

    # --- The result ---

    def _listen(self, wanted_f0: F0Contour, ctx: JobContext) -> tuple[F0Contour, dict[str, Any]]:
        from engine.quality import compare_f0

        measured = estimate_f0_of_file(self._stems.converted, tracker="swift", ctx=ctx.part(0.0, 0.7))
        ctx.checkpoint("Measuring the result", 0.7)
        pitch = compare_f0(wanted_f0, measured)
        likeness = None
        if self._dry.exists() and wanted_f0.voiced.sum() > 50:
            from engine.conversion import similarity

            likeness = float(similarity(self._voiced_clip(wanted_f0), self._voice))
        return measured, {
            "f0_rmse_hz": _finite(pitch.rmse_hz),
            "f0_rmse_cents": _finite(pitch.rmse_cents),
            "f0_median_cents": _finite(pitch.median_cents),
            "f0_correlation": _finite(pitch.correlation),
            "f0_slips": _finite(pitch.slips),
            "voicing_errors": _finite(pitch.voicing_errors),
            "similarity": _finite(likeness),
        }

    def _voiced_clip(self, f0: F0Contour) -> AudioClip:
        """Up to a minute of the converted voice, from the middle of what is sung."""
        middle = float(np.median(np.flatnonzero(f0.voiced))) * f0.hop_s
        with AudioReader(self._dry) as reader:
            reader.seek(round(max(middle - _LISTENING_S / 2, 0) * self._rate))
            return AudioClip(reader.read(round(_LISTENING_S * self._rate)), self._rate)

    def _publish(self) -> Stems | None:
        """Move the finished files to where they belong, the mix last."""
        kept = None
        if self._stems_folder is not None:
            kept = Stems.in_folder(self._stems_folder, with_accompaniment=self._with_accompaniment)
            try:
                self._stems_folder.mkdir(parents=True, exist_ok=True)
                with working_folder(self._stems_folder) as near:  # it may lie on another disk
                    for made in self._stems.paths():
                        shutil.move(made, near / made.name)
                    for path in kept.paths():
                        os.replace(near / path.name, path)
            except OSError as error:
                raise cannot_write(self._stems_folder, error) from error
        publish(self._mixed, self._destination)
        return kept

    def _report_of_the_job(
        self,
        seconds: float,
        transpose: float,
        gain_db: float,
        source_f0: F0Contour,
        wanted_f0: F0Contour,
        converted_f0: F0Contour,
    ) -> dict[str, Any]:
        spent = {
            stage: round(total - self._seconds_before.get(stage, 0.0), 3)
            for stage, total in self._ctx.stage_seconds.items()
            if stage != "Done" and total > self._seconds_before.get(stage, 0.0)
        }
        return {
            "format": 1,
            "source": str(self._source),
            "destination": str(self._destination),
            "voice": self._voice.name,
            "seconds": round(seconds, 3),
            "sample_rate": self._rate,
            "channels": min(self._num_channels, 2),
            "stage_seconds": spent,
            "total_seconds": round(sum(spent.values()), 3),
            "real_time_factor": round(sum(spent.values()) / seconds, 4),
            "device": self._torch_device,
            "preset": self._preset.name,
            "separation": self._options.separation,
            "pitch_tracker": self._preset.tracker,
            "models": self._models,
            "transpose_semitones": transpose,
            "formant_semitones": self._options.formant_semitones,
            "median_f0_source_hz": _finite(source_f0.median_hz()),
            "median_f0_wanted_hz": _finite(wanted_f0.median_hz()),
            "median_f0_converted_hz": _finite(converted_f0.median_hz()),
            "voiced_seconds": round(float(source_f0.voiced.sum()) * source_f0.hop_s, 2),
            "vocals_gain_db": round(gain_db, 2),
            "notes": list(self._ctx.progress.notes),
        }

    # --- Files ---

    def _at_once(self, *work: tuple[Callable[[FloatArray], object], FloatArray]) -> None:
        """Give blocks to those who take them, each in a thread of its own."""
        given = [self._hands.submit(take, block) for take, block in work]
        wait(given)
        for each in given:
            each.result()

    def _writer(self, path: Path) -> AudioWriter:
        return AudioWriter(path, self._rate, 2, float_samples=True, num_samples_hint=self._num_samples)

    def _blocks(self, path: Path, ctx: JobContext, stage: str) -> Iterator[tuple[FloatArray, int]]:
        with AudioReader(path) as reader, _read_ahead(reader.blocks(_BLOCK)) as blocks:
            done = 0
            for block in blocks:
                yield block, done
                done += block.shape[1]
                ctx.checkpoint(stage, done / self._num_samples)


@contextlib.contextmanager
def _read_ahead(blocks: Iterator[FloatArray]) -> Iterator[Iterator[FloatArray]]:
    """The same blocks, each read by a thread while the one before is worked on."""
    with ThreadPoolExecutor(1) as pool:

        def coming() -> Iterator[FloatArray]:
            following = pool.submit(next, blocks, None)
            while (block := following.result()) is not None:
                following = pool.submit(next, blocks, None)
                yield block

        yield coming()


def _refuse_overwriting(source: Path, destination: Path, stems_folder: Path | None) -> None:
    written = [destination]
    if stems_folder is not None:
        written += Stems.in_folder(stems_folder).paths()
    for path in written:
        if path.exists() and source.exists() and path.samefile(source):
            raise AudioFileError(
                f"“{path}” is the song itself and would be overwritten.", hint="Choose another name or folder."
            )
    # Whatever the file system makes of capitals.
    same_but_for_case = [str(path.absolute()).casefold() for path in written]
    if same_but_for_case[0] in same_but_for_case[1:]:
        raise AudioFileError(
            f"“{destination}” would be both the mix and a stem.", hint="Choose another name or folder for the mix."
        )


def _edited(wanted: F0Contour, edits: F0Contour) -> F0Contour:
    """The wanted contour with the edited frames in the place of its own."""
    num = min(wanted.num_frames, edits.num_frames)
    f0_hz = wanted.f0_hz.copy()
    f0_hz[:num] = edits.f0_hz[:num] if edits.hop_s == wanted.hop_s else edits.at(wanted.times_s[:num])
    return dataclasses.replace(wanted, f0_hz=f0_hz)


def _finite(value: float | None) -> float | None:
    return round(float(value), 4) if value is not None and np.isfinite(value) else None
