"""Take the vocals out of a song of any length, in bounded memory.

The song is decoded twice: once for its level and exact length, once block by block into overlapping segments at the
network's rate; the vocals come back to the song's rate, and the accompaniment is the mixture minus the vocals. Nothing
but a few segments is ever in memory; the stems go to disk as 32-bit float WAV.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import models
from engine.errors import AudioFileError, ModelError
from engine.jobs import JobContext
from engine.models import MemoryLadder
from engine.separation.loading import EMBEDDED, Separator, build_separator, load_separator
from engine.separation.song import STAGE_READ, Song, channel_pairs, fold, unfold
from engine.separation.streaming import OverlapAdd
from engine.signal import AudioClip, AudioWriter, FloatArray, StreamingResampler

__all__ = ["EMBEDDED", "Separation", "Separator", "build_separator", "load_separator", "separate"]

STAGE_LOAD, STAGE_SEPARATE = "Loading the separator", "Separating vocals"
_SILENT_RMS = 1e-6
# Samples of the vocals are multiples of one over this, so that for sources of up to 24 bits the difference and the
# sum of the stems are exact in float32.
_GRID = np.float32(2.0**23)


@dataclass(frozen=True)
class Separation:
    """The stems of a song; their sum is the song.

    Attributes:
        vocals: 32-bit float WAV with the song's rate, channels and length.
        accompaniment: Likewise; the mixture minus the vocals.
        sample_rate: Hz.
        num_channels: C.
        num_samples: N.
        model: Name of the separator used.
        model_sha256: Of its file.
        torch_device: Where it ran at the end.
    """

    vocals: Path
    accompaniment: Path
    sample_rate: int
    num_channels: int
    num_samples: int
    model: str
    model_sha256: str
    torch_device: str

    @property
    def model_ids(self) -> dict[str, str]:
        """Name of the separator -> SHA-256 of its file, for reports."""
        return {self.model: self.model_sha256}

    @property
    def seconds(self) -> float:
        """Duration of the song, s."""
        return self.num_samples / self.sample_rate


def separate(
    source: Path | AudioClip,
    folder: Path,
    *,
    model: str = "embedded",
    torch_device: str = "auto",
    passes: int = 1,
    segment_s: float | None = None,
    ctx: JobContext | None = None,
) -> Separation:
    """Separate a song into `vocals.wav` and `accompaniment.wav`.

    Mono and stereo go through the network as they are. Of more channels, left and right of each row go as pairs, the
    centre by itself, and the low-frequency channel is accompaniment; so the lead stays where it sat.

    Args:
        source: A file, or a clip of any rate and channel count.
        folder: Where the stems go; made if missing.
        model: "embedded", the name of an installed separator, or a path to a model file.
        torch_device: "auto", "cpu", "cuda" or "mps".
        passes: How often each segment is separated, shifted against its frames; the mean is a little cleaner.
        segment_s: Longest segment, s; None for what the model likes best.
        ctx: Told of progress and fall-backs; cancelling leaves no file.

    Returns:
        Where the stems lie; vocals + accompaniment is the mixture sample by sample (exactly for sources of up to
        24 bits, otherwise to float32's rounding), without delay.

    Raises:
        AudioFileError: The source cannot be read or the stems cannot be written.
        ModelError: The model is missing, damaged or no separator.
        OutOfMemoryError: Not even the smallest segments on the CPU fit.
        EngineBusyError: Another job holds the models.
        Cancelled: The user stopped it.
    """
    ctx = ctx or JobContext()
    paths = folder / "vocals.wav", folder / "accompaniment.wav"
    if isinstance(source, Path) and any(path.exists() and path.samefile(source) for path in paths):
        raise AudioFileError(f"The stems would overwrite '{source.name}'.", hint="Choose another folder.")
    with models.lease():
        ctx.checkpoint(STAGE_READ, 0.0)
        song = Song(source)
        song.measure(ctx.part(0.0, 0.05))
        ctx.checkpoint(STAGE_LOAD, 0.05)
        separator = load_separator(model)
        segments_s = separator.segments_s
        if segment_s is not None:
            segments_s = (segment_s, *(s for s in segments_s if s < segment_s))
        ladder = MemoryLadder(models.pick_torch_device(torch_device), segments_s, ctx)
        with _Estimator(song, separator, ladder, passes, ctx.part(0.06, 1.0)) as estimator:
            _write_stems(song, paths, estimator)
    return Separation(
        vocals=paths[0],
        accompaniment=paths[1],
        sample_rate=song.sample_rate,
        num_channels=song.num_channels,
        num_samples=song.num_samples,
        model=separator.name,
        model_sha256=separator.sha256,
        torch_device=ladder.torch_device,
    )


def _write_stems(song: Song, paths: tuple[Path, Path], estimator: "_Estimator") -> None:
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"The folder '{folder}' cannot be made.", hint=str(error.strerror)) from error
    shape = song.sample_rate, song.num_channels
    kind: dict[str, Any] = {"float_samples": True, "num_samples_hint": song.num_samples}
    with AudioWriter(paths[0], *shape, **kind) as vocals, AudioWriter(paths[1], *shape, **kind) as accompaniment:
        for voice, rest in _stems(song, estimator):
            vocals.write(voice)
            accompaniment.write(rest)


def _stems(song: Song, estimator: "_Estimator") -> Iterator[tuple[FloatArray, FloatArray]]:
    """Vocals and accompaniment, [C, n] each at a time, as they get ready."""
    pairs = channel_pairs(song.num_channels)
    waiting = _Queue(song.num_channels)
    for rows in estimator.vocals(fold(block, pairs) for block in waiting.watch(song.blocks())):
        voice = unfold(rows, pairs, song.num_channels)
        voice = (np.round(voice * _GRID) / _GRID).astype(np.float32)
        mixture = waiting.take(voice.shape[1])
        voice = voice[:, : mixture.shape[1]]
        yield voice, mixture - voice
    rest = waiting.take(song.num_samples)  # a sample or two that resampling there and back left over
    if rest.shape[1]:
        yield np.zeros_like(rest), rest


class _Queue:
    """Keeps the mixture's samples until the vocals beside them are ready."""

    def __init__(self, num_channels: int) -> None:
        self._samples = np.zeros((num_channels, 0), np.float32)

    def watch(self, blocks: Iterator[FloatArray]) -> Iterator[FloatArray]:
        for block in blocks:
            self._samples = np.concatenate([self._samples, block], axis=1)
            yield block

    def take(self, num_samples: int) -> FloatArray:
        taken, self._samples = self._samples[:, :num_samples], self._samples[:, num_samples:]
        return taken


class _Estimator:
    """Runs the separator over the song's pairs of channels; a context manager.

    Every layer of the network first looks whether the job was cancelled, so that even a long segment stops soon.
    """

    def __init__(self, song: Song, separator: Separator, ladder: MemoryLadder, passes: int, ctx: JobContext) -> None:
        self._song, self._separator, self._ladder, self._ctx = song, separator, ladder, ctx
        # Shifts stay below the margin, so what they push over a segment's end is thrown away anyway.
        step = min(separator.alignment, separator.margin) if separator.alignment > 1 else separator.margin
        self._shifts = [step * index // passes for index in range(passes)]
        self._fraction = 0.0
        self._hooks = [
            module.register_forward_pre_hook(lambda _module, _inputs: self._tell())
            for module in separator.module.modules()
        ]

    def __enter__(self) -> "_Estimator":
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _tell(self) -> None:
        self._ctx.checkpoint(STAGE_SEPARATE, self._fraction)

    def vocals(self, blocks: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """The vocals of [2 * pairs, n] blocks, at the song's rate; silence needs no network."""
        if self._song.rms < _SILENT_RMS:
            yield from (np.zeros_like(block) for block in blocks)
            return
        song, separator = self._song, self._separator
        num_rows = 2 * len(channel_pairs(song.num_channels))
        gain = np.float32(separator.rms / song.rms)
        there = StreamingResampler(song.sample_rate, separator.sample_rate, num_rows)
        back = StreamingResampler(separator.sample_rate, song.sample_rate, num_rows)
        join = self._join(self._segment, num_rows, separator.segment_samples(self._ladder.segment_s))
        done = 0
        for block in blocks:
            yield back.push(join.push(there.push(block * gain))) / gain
            done += block.shape[1]
            self._fraction = done / song.num_samples
            self._tell()
        yield back.push(join.push(there.flush())) / gain
        yield back.push(join.flush()) / gain
        yield back.flush() / gain

    def _segment(self, rows: FloatArray) -> FloatArray:
        """Vocals of one segment, [2 * pairs, L], cut smaller when memory demands it."""
        return self._ladder.run(lambda torch_device, segment_s: self._attempt(rows, torch_device, segment_s))

    def _attempt(self, rows: FloatArray, torch_device: str, segment_s: float) -> FloatArray:
        segment = self._separator.segment_samples(segment_s)
        if rows.shape[1] <= segment:
            return self._infer(rows, torch_device)
        join = self._join(lambda part: self._infer(part, torch_device), len(rows), segment)
        return np.concatenate([join.push(rows), join.flush()], axis=1)

    def _join(self, estimate: Callable[[FloatArray], FloatArray], num_rows: int, segment: int) -> OverlapAdd:
        separator = self._separator
        return OverlapAdd(
            estimate,
            num_rows,
            segment=segment,
            margin=separator.margin,
            fade=separator.fade,
            alignment=separator.alignment,
        )

    def _infer(self, rows: FloatArray, torch_device: str) -> FloatArray:
        import torch

        self._tell()
        self._separator.module.to(torch_device)
        vocals = np.zeros_like(rows)
        with torch.inference_mode():
            for first in range(0, len(rows), 2):
                pair = torch.from_numpy(np.ascontiguousarray(rows[None, first : first + 2])).to(torch_device)
                for shift in self._shifts:
                    shifted = torch.nn.functional.pad(pair, (shift, 0))[..., : pair.shape[-1]]
                    estimate = self._separator.vocals(shifted)[0, :, shift:].float().cpu().numpy()
                    vocals[first : first + 2, : estimate.shape[1]] += estimate / len(self._shifts)
        if not np.isfinite(vocals).all():
            raise ModelError(
                f"The separator '{self._separator.name}' gave values that are not numbers.",
                hint="Its weights are damaged: install it again, or choose another.",
            )
        return vocals
