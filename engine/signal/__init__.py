"""Audio as samples: files, rates, loudness and levels."""

from engine.signal.clip import AudioClip, FloatArray
from engine.signal.loudness import (
    Limiter,
    LoudnessMeter,
    TruePeakMeter,
    integrated_lufs,
    true_peak_dbtp,
)
from engine.signal.peaks import PeakBuilder, PeakPyramid
from engine.signal.rates import StreamingResampler, resample
from engine.signal.reading import READABLE_ENDINGS, AudioInfo, AudioReader, probe_audio, read_audio
from engine.signal.stereo import StereoPosition, to_stereo
from engine.signal.writing import (
    WRITABLE_ENDINGS,
    AudioWriter,
    cannot_write,
    check_writable_ending,
    publish,
    release_destination,
    remove_part_files,
    reserve_destination,
    working_folder,
    write_audio,
)

__all__ = [
    "READABLE_ENDINGS",
    "WRITABLE_ENDINGS",
    "AudioClip",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "FloatArray",
    "Limiter",
    "LoudnessMeter",
    "PeakBuilder",
    "PeakPyramid",
    "StereoPosition",
    "StreamingResampler",
    "TruePeakMeter",
    "cannot_write",
    "check_writable_ending",
    "integrated_lufs",
    "probe_audio",
    "publish",
    "read_audio",
    "release_destination",
    "remove_part_files",
    "resample",
    "reserve_destination",
    "to_stereo",
    "true_peak_dbtp",
    "working_folder",
    "write_audio",
]
