"""What a recording is worth for making a voice: measured in figures, told in words."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine.enrollment.activity import FRAME_S, Heard, hear, runs, take_regions
from engine.enrollment.speakers import PERHAPS_SEVERAL, SURELY_SEVERAL, unity
from engine.jobs import JobContext
from engine.signal import AudioClip, FloatArray, integrated_lufs

Verdict = Literal["good", "poor", "refused"]

NEEDED_VOICED_S = 10.0  # less makes no voice
WANTED_VOICED_S = 25.0  # less makes one with a warning
SILENCE_DBFS = -96.0

_SHORTEST_VOICED_S = 0.8
_POOR_SNR_DB, _REFUSED_SNR_DB = 20.0, 6.0
_POOR_CLIPPED, _REFUSED_CLIPPED = 0.002, 0.03
_QUIET_LUFS = -42.0
_POOR_BANDWIDTH_HZ = 6500.0
_PURE, _TONAL = 0.75, 0.2  # see Heard.purity and _tonality


@dataclass(frozen=True)
class Assessment:
    """What was found in one recording.

    Attributes:
        seconds: Its duration.
        voiced_s: Speech or song in it, s.
        clipped_fraction: Share of the voice's samples that were cut off at one level, 0 to 1.
        noise_floor_dbfs: Mean level between the words; -96 for digital silence.
        snr_db: Level of the voice over that floor.
        loudness_lufs: Integrated loudness of the voice (BS.1770).
        bandwidth_hz: Highest frequency that the voice reaches.
        f0_median_hz: Median pitch; 0 when there is none.
        f0_range_hz: 5th and 95th percentile of the pitch; zeros when there is none.
        music_suspected: Instruments are heard between the words or beside the voice.
        speakers_suspected: 2 when different voices seem to be heard, else 1 (0 without any voice).
        verdict: "good", "poor" (usable, with a warning) or "refused".
        messages: The reasons, one sentence each; the worst first. Empty when good.
    """

    seconds: float
    voiced_s: float
    clipped_fraction: float
    noise_floor_dbfs: float
    snr_db: float
    loudness_lufs: float
    bandwidth_hz: float
    f0_median_hz: float
    f0_range_hz: tuple[float, float]
    music_suspected: bool
    speakers_suspected: int
    verdict: Verdict
    messages: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {**asdict(self), "f0_range_hz": list(self.f0_range_hz), "messages": list(self.messages)}


def assess(clip: AudioClip, *, needed_s: float = NEEDED_VOICED_S, ctx: JobContext | None = None) -> Assessment:
    """Judge a recording before anything is made of it.

    Args:
        clip: Any rate and channel count, as recorded.
        needed_s: Seconds of voice below which it is refused as too short; less when it is one of several.
        ctx: Progress and cancellation.
    """
    ctx = ctx or JobContext()
    ctx.checkpoint("Listening for a voice", 0.0)
    return assess_heard(clip, hear(clip), needed_s=needed_s, ctx=ctx)


def assess_heard(
    clip: AudioClip, heard: Heard, *, needed_s: float = NEEDED_VOICED_S, ctx: JobContext | None = None
) -> Assessment:
    """As `assess`, with what `hear` gave for the clip."""
    ctx = ctx or JobContext()
    mono, probability, regions = heard.mono, heard.probability, heard.regions
    voiced_s = sum(end - start for start, end in regions) * FRAME_S
    levels = _frame_levels(mono)
    active = _mask(regions, len(levels))
    noise_dbfs, snr_db = _noise(levels, active, probability)
    peak = float(np.abs(clip.samples).max(initial=0.0))
    ctx.checkpoint("Measuring the recording", 0.3)
    if voiced_s < _SHORTEST_VOICED_S or peak < 1e-4:
        silent = peak < 1e-3 or float(levels.max(initial=SILENCE_DBFS)) < -60.0
        said = "The recording is silent." if silent else "No voice is heard in the recording."
        return _without_voice(clip, voiced_s, noise_dbfs, (said,))
    voice = take_regions(mono, regions)
    f0 = _pitch(heard.f0_hz)
    ctx.checkpoint("Measuring the recording", 0.6)
    spectrum = _mean_spectrum(voice)
    pauses = _pauses(mono, probability)
    loudness = integrated_lufs(voice)
    clipped = _clipped_fraction(take_regions(clip.mono(), regions))
    bandwidth = _bandwidth(spectrum, _mean_spectrum(pauses) if pauses else None, mono.sample_rate)
    music = _has_music(clip, heard.purity, pauses, noise_dbfs)
    ctx.checkpoint("Counting the speakers", 0.8)
    one_person = unity(voice)
    verdict, messages = _judge(
        voiced_s=voiced_s,
        needed_s=needed_s,
        clipped=clipped,
        snr_db=snr_db,
        loudness=loudness,
        bandwidth=bandwidth,
        has_pitch=f0[0] > 0,
        music=music,
        one_person=one_person,
    )
    ctx.checkpoint("Counting the speakers", 1.0)
    return Assessment(
        seconds=clip.seconds,
        voiced_s=round(voiced_s, 2),
        clipped_fraction=round(clipped, 5),
        noise_floor_dbfs=round(noise_dbfs, 1),
        snr_db=round(snr_db, 1),
        loudness_lufs=round(max(loudness, SILENCE_DBFS), 1),
        bandwidth_hz=round(bandwidth),
        f0_median_hz=round(f0[0], 1),
        f0_range_hz=(round(f0[1], 1), round(f0[2], 1)),
        music_suspected=music,
        speakers_suspected=2 if one_person < PERHAPS_SEVERAL else 1,
        verdict=verdict,
        messages=messages,
    )


def _frame_levels(mono: AudioClip) -> FloatArray:
    hop = FRAME_S * mono.sample_rate
    starts = (np.arange(int(mono.num_samples / hop) + 1) * hop).astype(np.int64)
    starts = starts[starts < mono.num_samples]
    if not len(starts):
        return np.zeros(0, dtype=np.float32)
    sums = np.add.reduceat(np.square(mono.samples[0], dtype=np.float64), starts)
    lengths = np.diff(np.append(starts, mono.num_samples))
    return np.maximum(10.0 * np.log10(sums / lengths + 1e-12), SILENCE_DBFS).astype(np.float32)


def _mask(regions: list[tuple[int, int]], length: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(length, dtype=bool)
    for start, end in regions:
        mask[start:end] = True
    return mask


def _noise(levels: FloatArray, active: npt.NDArray[np.bool_], probability: FloatArray) -> tuple[float, float]:
    """Noise floor in dBFS and the voice's level over it in dB."""
    if not len(levels):
        return SILENCE_DBFS, 0.0
    length = min(len(levels), len(probability))
    quiet = levels[:length][(probability[:length] < 0.2) & ~active[:length]]
    # A recording without pauses: its quietest frames are the best guess.
    floor = float(np.median(quiet)) if len(quiet) * FRAME_S >= 0.3 else float(np.percentile(levels, 3))
    if not active.any():
        return floor, 0.0
    power = float(np.mean(10.0 ** (levels[active].astype(np.float64) / 10.0)))
    return floor, 10.0 * float(np.log10(max(power, 1e-12))) - floor


def _pauses(mono: AudioClip, probability: FloatArray) -> AudioClip | None:
    """Stretches of at least 0.2 s where surely nobody speaks, or None when they are shorter than 0.5 s together."""
    # One frame off at both ends: breath and reverberation.
    regions = [(start + 1, end - 1) for start, end in runs(probability < 0.1) if (end - start) * FRAME_S >= 0.2]
    clip = take_regions(mono, regions)
    return clip if clip.seconds >= 0.5 else None


def _pitch(f0_hz: FloatArray) -> tuple[float, float, float]:
    if len(f0_hz) < 20:
        return 0.0, 0.0, 0.0
    low, median, high = np.percentile(f0_hz, [5, 50, 95])
    return float(median), float(low), float(high)


def _clipped_fraction(voice: AudioClip) -> float:
    """Share of samples that pile up at the top, at whatever level the cut was; a voice left whole has next to none."""
    samples = np.abs(voice.samples[0])
    peak = float(samples.max(initial=0.0))
    if peak <= 0.0:
        return 0.0
    top = samples >= 0.99 * peak
    # Lone samples near the peak are its tip; a cut is flat over several.
    flat = top[:-2] & top[1:-1] & top[2:]
    return float(np.mean(flat)) if len(flat) else 0.0


def _mean_spectrum(clip: AudioClip) -> FloatArray:
    """Mean power per 2048 bins, dB."""
    from scipy import signal

    size = min(4096, clip.num_samples)
    _, power = signal.welch(clip.samples[0], clip.sample_rate, nperseg=size, nfft=4096)
    return (10.0 * np.log10(power + 1e-16)).astype(np.float32)


def _bandwidth(voice: FloatArray, pauses: FloatArray | None, sample_rate: int) -> float:
    kernel = np.ones(9) / 9
    smooth = np.convolve(voice, kernel, mode="same")
    threshold = np.full(len(smooth), float(smooth.max()) - 68.0)
    if pauses is not None:
        threshold = np.maximum(threshold, np.convolve(pauses, kernel, mode="same") + 3.0)
    above = np.flatnonzero(smooth > threshold)
    return float(above[-1]) * sample_rate / 4096 if len(above) else 0.0


def _has_music(clip: AudioClip, purity: float, pauses: AudioClip | None, noise_dbfs: float) -> bool:
    if clip.num_channels == 2:
        middle, side = clip.samples.mean(axis=0), (clip.samples[0] - clip.samples[1]) / 2
        width = float(np.mean(np.square(side))) / (float(np.mean(np.square(middle))) + 1e-12)
        # One silent channel gives 1; a voice in the middle gives next to 0; a mix lies between.
        if 0.02 < width < 0.8 and noise_dbfs > -55.0:
            return True
    # Steady noise spreads over the spectrum beside the voice as music does, but between the words it has no peaks.
    return purity < _PURE and noise_dbfs > -75.0 and (pauses is None or _tonality(pauses) > _TONAL)


def _tonality(clip: AudioClip) -> float:
    """Share of the power from 100 Hz to 4 kHz that stands in narrow peaks: noise has little, chords have much."""
    from scipy import ndimage, signal

    rate = clip.sample_rate
    size = 1 << int(np.ceil(np.log2(rate * 0.08)))
    _, _, spectrum = signal.stft(clip.samples[0], rate, nperseg=size, noverlap=size // 2, boundary=None)
    power = np.square(np.abs(spectrum))[int(100 * size / rate) : int(4000 * size / rate)]
    floor = 4.0 * ndimage.median_filter(power, size=(31, 1))
    return float(np.where(power > floor, power - floor, 0.0).sum() / (power.sum() + 1e-16))


def _without_voice(clip: AudioClip, voiced_s: float, noise_dbfs: float, messages: tuple[str, ...]) -> Assessment:
    return Assessment(
        seconds=clip.seconds,
        voiced_s=round(voiced_s, 2),
        clipped_fraction=0.0,
        noise_floor_dbfs=round(noise_dbfs, 1),
        snr_db=0.0,
        loudness_lufs=SILENCE_DBFS,
        bandwidth_hz=0.0,
        f0_median_hz=0.0,
        f0_range_hz=(0.0, 0.0),
        music_suspected=False,
        speakers_suspected=0,
        verdict="refused",
        messages=messages,
    )


def _judge(
    *,
    voiced_s: float,
    needed_s: float,
    clipped: float,
    snr_db: float,
    loudness: float,
    bandwidth: float,
    has_pitch: bool,
    music: bool,
    one_person: float,
) -> tuple[Verdict, tuple[str, ...]]:
    refused, poor = [], []
    if clipped > _REFUSED_CLIPPED:
        refused.append(f"It is distorted beyond use: {clipped:.0%} of it is cut off. Lower the input level.")
    elif clipped > _POOR_CLIPPED:
        poor.append("It is a little distorted: loud parts are cut off. A lower input level would help.")
    if snr_db < _REFUSED_SNR_DB:
        refused.append("The voice hardly rises above the noise.")
    elif snr_db < _POOR_SNR_DB:
        poor.append(f"It is noisy: the voice is only {snr_db:.0f} dB above the background.")
    if voiced_s < needed_s:
        refused.append(f"It holds {voiced_s:.0f} s of voice; at least {needed_s:.0f} s are needed.")
    if one_person < SURELY_SEVERAL:
        refused.append("More than one person is heard; a voice needs one person alone.")
    elif one_person < PERHAPS_SEVERAL:
        poor.append("Perhaps more than one person is heard; a voice needs one person alone.")
    if not has_pitch:
        refused.append("No pitch is heard; whispering is not enough to make a voice.")
    if music and clipped <= _POOR_CLIPPED:
        poor.append("Music is heard beside the voice; a bare voice works better.")
    if loudness < _QUIET_LUFS:
        poor.append("It is very quiet; come closer to the microphone.")
    if bandwidth < _POOR_BANDWIDTH_HZ:
        poor.append(f"It sounds like a telephone: nothing above {bandwidth / 1000:.1f} kHz.")
    if refused:
        return "refused", (*refused, *poor)
    return ("poor" if poor else "good"), tuple(poor)
