import os
import subprocess
import sys

import numpy as np
import pyloudnorm
import pytest
import soundfile

from engine.errors import AudioFileError, Cancelled
from engine.jobs import JobContext
from engine.signal import (
    AudioClip,
    AudioReader,
    AudioWriter,
    Limiter,
    LoudnessMeter,
    PeakPyramid,
    StereoPosition,
    StreamingResampler,
    integrated_lufs,
    probe_audio,
    read_audio,
    release_destination,
    remove_part_files,
    resample,
    reserve_destination,
    to_stereo,
    true_peak_dbtp,
    working_folder,
    write_audio,
)
from tests.clips import noise, sweep, tone


@pytest.mark.parametrize(
    ("ending", "rate", "channels", "tolerance"),
    [
        ("wav", 44100, 2, 1e-6),
        ("wav", 192000, 1, 1e-6),
        ("wav", 8000, 6, 1e-6),
        ("flac", 48000, 2, 1e-6),
        ("ogg", 44100, 2, 0.03),
        ("opus", 48000, 2, 0.03),
        ("mp3", 44100, 2, 0.03),
        ("m4a", 44100, 2, 0.03),
    ],
)
def test_written_audio_reads_back(tmp_path, ending, rate, channels, tolerance):
    clip = sweep(200, 800, 1.3, rate)
    samples = np.stack([clip.samples[0] * (1 - 0.15 * c) for c in range(channels)])
    path = tmp_path / f"out.{ending}"
    write_audio(path, AudioClip(samples, rate))
    back = read_audio(path)
    assert (back.sample_rate, back.num_channels) == (rate, channels)
    assert back.num_samples == pytest.approx(clip.num_samples, abs=0 if tolerance < 1e-3 else 2100)
    num = min(back.num_samples, clip.num_samples)
    middle = slice(2000, num - 2000)  # codecs smear the edges; a shift in time would show everywhere
    assert np.sqrt(np.mean((back.samples[:, middle] - samples[:, middle]) ** 2)) < tolerance
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["opus", "mp3", "m4a"])
def test_a_rate_the_kind_does_not_know_is_raised_to_one_it_does(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    write_audio(path, tone(440, 1, 37800, channels=2))
    assert probe_audio(path).sample_rate in (44100, 48000)
    assert read_audio(path).seconds == pytest.approx(1, abs=0.06)


def test_wav_of_floats_keeps_what_passes_full_scale(tmp_path):
    clip = tone(level=3.0)
    write_audio(tmp_path / "stem.wav", clip, float_samples=True)
    assert np.array_equal(read_audio(tmp_path / "stem.wav").samples, clip.samples)


def test_wav_expected_beyond_four_gigabytes_is_rf64(tmp_path):
    path = tmp_path / "long.wav"
    with AudioWriter(path, 48000, 2, num_samples_hint=10**9) as writer:
        writer.write(tone(seconds=0.1, sample_rate=48000, channels=2).samples)
    assert path.read_bytes()[:4] == b"RF64"
    assert read_audio(path).num_samples == 4800


def test_reading_starts_where_seek_says(tmp_path):
    clip = sweep(seconds=2, sample_rate=44100)
    for ending in ("flac", "m4a"):
        path = tmp_path / f"a.{ending}"
        write_audio(path, clip)
        whole = read_audio(path).samples
        with AudioReader(path) as reader:
            reader.seek(30000)
            assert np.allclose(reader.read(500), whole[:, 30000:30500], atol=1e-4)
            reader.seek(10**7)
            assert reader.read(10).shape == (1, 0)


@pytest.mark.parametrize("name", ["with space.wav", "emoji 🎤.flac", "cafe\u0301 ÄÖ 日本.ogg", "no'quote\".mp3"])
def test_any_file_name_works(tmp_path, name):
    write_audio(tmp_path / name, tone(seconds=0.5, sample_rate=44100))
    assert read_audio(tmp_path / name).seconds == pytest.approx(0.5, abs=0.05)


def bad_files(folder):
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("These are words, not samples.\n" * 200)
    (folder / "noise.mp3").write_bytes(bytes(range(7, 200)) * 40)
    soundfile.write(folder / "zero.wav", np.zeros((0, 2)), 44100)
    soundfile.write(folder / "zero.flac", np.zeros((0, 2)), 44100)
    (folder / "folder.wav").mkdir()
    write_audio(folder / "whole.m4a", tone(seconds=1, sample_rate=44100))
    (folder / "headless.m4a").write_bytes((folder / "whole.m4a").read_bytes()[:3000])
    return ["empty.wav", "text.wav", "noise.mp3", "zero.wav", "zero.flac", "folder.wav", "headless.m4a", "missing.wav"]


def test_files_without_sound_are_refused_in_one_sentence(tmp_path):
    for name in bad_files(tmp_path):
        with pytest.raises(AudioFileError) as caught:
            read_audio(tmp_path / name)
        assert caught.value.message.count(". ") == 0, name
        assert caught.value.hint, name


@pytest.mark.parametrize("ending", ["mp3", "ogg", "flac", "wav"])
def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path, ending):
    clip = noise(seconds=4, sample_rate=44100, channels=2)
    write_audio(tmp_path / f"whole.{ending}", clip)
    data = (tmp_path / f"whole.{ending}").read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(data[: len(data) * 6 // 10])
    assert 1.5 < read_audio(path).seconds < 3.2


def test_numbers_that_are_none_become_silence(tmp_path):
    samples = tone(seconds=0.5).samples.T.copy()
    samples[100:200] = np.nan
    samples[300] = np.inf
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    with AudioReader(tmp_path / "nan.wav") as reader:
        read = reader.read(8000)
    assert np.isfinite(read).all()
    assert not read[0, 100:200].any()
    assert reader.num_repaired == 101


def test_a_writer_that_fails_or_is_cancelled_leaves_nothing(tmp_path):
    path = tmp_path / "out.wav"

    def write_and_fail():
        with AudioWriter(path, 16000, 1) as writer:
            writer.write(tone().samples)
            raise Cancelled

    with pytest.raises(Cancelled):
        write_and_fail()
    assert not list(tmp_path.iterdir())
    writer = AudioWriter(path, 16000, 1)
    remove_part_files()
    assert not list(tmp_path.iterdir())
    writer.discard()


def test_two_writers_of_one_file_both_write_it_whole(tmp_path):
    path = tmp_path / "out.wav"
    first, second = AudioWriter(path, 16000, 1), AudioWriter(path, 16000, 1)
    first.write(tone(220).samples)
    second.write(tone(440, 2).samples)
    second.close()
    assert read_audio(path).seconds == 2
    first.close()
    assert read_audio(path).seconds == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_endings_and_folders_that_refuse_are_errors(tmp_path):
    (tmp_path / "taken.wav").mkdir()
    (tmp_path / "file").touch()
    for path in ("out.xyz", "out", "missing/out.wav", "taken.wav", "file/out.wav", "/proc/out.wav", "/dev/null/x.wav"):
        with pytest.raises(AudioFileError):
            write_audio(tmp_path / path, tone())


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, ending):
    # A limit on the size of files makes the very write calls fail that a full disk makes fail.
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(AudioFileError, match="cannot be written"):
            write_audio(tmp_path / f"out.{ending}", noise(seconds=6, sample_rate=44100, channels=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("in_rate", "out_rate"), [(44100, 16000), (16000, 48000), (192000, 44100), (8000, 8000)])
@pytest.mark.parametrize("block", [1, 7, 480, 5000])
def test_resampling_a_stream_equals_resampling_the_clip(in_rate, out_rate, block):
    clip = noise(1, 0.12, in_rate, channels=2)
    stream = StreamingResampler(in_rate, out_rate, 2)
    parts = [stream.push(clip.samples[:, i : i + block]) for i in range(0, clip.num_samples, block)]
    joined = np.concatenate([*parts, stream.flush()], axis=1)
    whole = resample(clip, out_rate).samples
    assert joined.shape == whole.shape
    assert np.allclose(joined, whole, atol=1e-4)


def test_resampling_keeps_time():
    clip = AudioClip(np.zeros((1, 44100), np.float32), 44100)
    clip.samples[0, 22050] = 1
    assert np.argmax(resample(clip, 16000).samples) == 8000


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_loudness_agrees_with_pyloudnorm(rate):
    clip = noise(3, 5, rate, channels=2)
    clip.samples[:, : 2 * rate] *= 0.01  # gated out
    expected = pyloudnorm.Meter(rate).integrated_loudness(clip.samples.T.astype(np.float64))
    assert integrated_lufs(clip) == pytest.approx(expected, abs=0.05)


def test_loudness_of_the_standards_test_tone_and_of_silence():
    assert integrated_lufs(tone(997, 5, 48000, level=1.0)) == pytest.approx(-3.01, abs=0.1)
    assert integrated_lufs(tone(997, 0.05, 48000, level=1.0)) == pytest.approx(-3.01, abs=0.7)
    assert integrated_lufs(AudioClip(np.zeros((2, 48000), np.float32), 48000)) == -np.inf
    meter = LoudnessMeter(48000, 1)
    assert meter.integrated() == -np.inf


def test_true_peak_sees_between_the_samples():
    # A quarter-rate sine at 45 degrees: samples reach 0.707 of the true peak.
    wave = 0.5 * np.sin(np.pi / 2 * np.arange(4000) + np.pi / 4) * np.hanning(4000)
    assert true_peak_dbtp(AudioClip(wave.astype(np.float32)[None], 44100)) == pytest.approx(-6.02, abs=0.1)


@pytest.mark.parametrize("block", [1, 7, 480, 30000])
def test_limiter_holds_the_ceiling_whatever_the_blocks(block):
    clip = noise(5, 0.2 if block == 1 else 1.5, 44100, channels=2, level=0.2)
    clip.samples[:, 3000:5000] *= 8
    limiter = Limiter(44100, -1.0)
    parts = [limiter.push(clip.samples[:, i : i + block]) for i in range(0, clip.num_samples, block)]
    out = np.concatenate([*parts, limiter.flush()], axis=1)[:, limiter.latency_samples :]
    assert out.shape == clip.samples.shape
    assert true_peak_dbtp(AudioClip(out, 44100)) <= -1.0
    assert true_peak_dbtp(AudioClip(out, 44100)) > -1.6  # and no lower than it must
    quiet = clip.samples[:, :2000] * 0.1
    limiter = Limiter(44100, -1.0)
    same = np.concatenate([limiter.push(quiet), limiter.flush()], axis=1)[:, limiter.latency_samples :]
    assert np.array_equal(same, quiet)


def test_limiting_in_blocks_equals_limiting_at_once():
    clip = noise(6, 0.5, 44100, channels=2, level=0.6)
    whole = Limiter(44100).push(clip.samples)
    for block in (7, 128, 511):
        limiter = Limiter(44100)
        parts = [limiter.push(clip.samples[:, i : i + block]) for i in range(0, clip.num_samples, block)]
        assert np.allclose(np.concatenate(parts, axis=1), whole, atol=1e-6)


def test_peak_pyramid_shows_every_peak_at_every_zoom(tmp_path):
    clip = noise(2, 30, 16000, channels=2, level=0.05)
    clip.samples[1, 200_000] = 0.9
    path = tmp_path / "a.wav"
    write_audio(path, clip)
    pyramid = PeakPyramid.from_file(path, JobContext())
    in_blocks = PeakPyramid.from_blocks(np.array_split(clip.samples, 37, axis=1), 16000)
    assert pyramid.seconds == 30
    for start, end, columns in [(0, 30, 700), (12, 13, 200), (12.4, 12.6, 40), (-5, 60, 300)]:
        mins, maxs = pyramid.levels(start, end, columns)
        assert mins.shape == maxs.shape == (columns,)
        column = int((12.5 - start) / (end - start) * columns)
        assert maxs[max(column - 1, 0) : column + 2].max() == pytest.approx(0.9, abs=1e-6)
        assert np.allclose(in_blocks.levels(start, end, columns), (mins, maxs), atol=1e-6)
    mins, maxs = pyramid.levels(-5, 60, 650)
    assert not maxs[:50].any()
    assert not maxs[351:].any()
    assert (maxs[51:349] > 0).all()


def test_peak_pyramid_can_be_stopped(tmp_path):
    write_audio(tmp_path / "a.wav", tone(seconds=2))
    ctx = JobContext()
    ctx.cancel()
    with pytest.raises(Cancelled):
        PeakPyramid.from_file(tmp_path / "a.wav", ctx)


def test_signal_does_not_import_torch_or_scipy_needlessly():
    code = "import sys, engine.signal; assert 'torch' not in sys.modules and 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd(), timeout=60)


@pytest.mark.parametrize(("left", "right"), [(1.0, 1.0), (1.0, 0.0), (0.3, 0.9), (1.0, -0.8)])
def test_a_voice_is_taken_out_and_put_back_where_it_was(left, right):
    voice = sweep(seconds=3, sample_rate=16000).samples
    stereo = np.concatenate([voice * left, voice * right]).astype(np.float32)
    blocks = np.array_split(stereo, 7, axis=1)
    position = StereoPosition.from_blocks(blocks, 16000)
    starts = np.cumsum([0, *(block.shape[1] for block in blocks)])
    folded = [position.fold(block, start) for block, start in zip(blocks, starts, strict=False)]
    placed = [position.place(block, start) for block, start in zip(folded, starts, strict=False)]
    assert np.allclose(np.concatenate(placed, axis=1), stereo, atol=0.01)
    if left == right:
        assert np.allclose(np.concatenate(folded, axis=1), voice, atol=1e-6)


def test_a_voice_that_walks_is_followed_and_silence_keeps_its_place():
    voice = noise(seconds=8, sample_rate=8000).samples
    pan = np.repeat([0.0, 1.0], 32000)
    stereo = np.concatenate([voice * (1 - pan), voice * pan]).astype(np.float32)
    stereo[:, 60000:] = 0
    position = StereoPosition.from_blocks([stereo], 8000)
    ones = np.ones((1, 64000), np.float32)
    placed = position.place(ones, 0)
    assert placed[0, 8000] > 1.3 > 0.2 > placed[1, 8000]
    assert placed[1, 56000] > 1.3 > 0.2 > placed[0, 56000]
    assert placed[1, 62000] > 1.0
    silence = StereoPosition.from_blocks([np.zeros((2, 1000), np.float32)], 8000)
    assert np.array_equal(silence.place(ones[:, :10], 0), np.ones((2, 10)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 8])
def test_any_number_of_channels_becomes_two(channels):
    block = noise(seconds=0.1, channels=channels).samples
    stereo = to_stereo(block)
    assert stereo.shape == (2, block.shape[1])
    assert stereo.dtype == np.float32


def test_names_are_reserved_and_given_back(tmp_path):
    first = reserve_destination(tmp_path, "song - voice", "wav")
    second = reserve_destination(tmp_path, "song - voice", "wav")
    assert (first.name, second.name) == ("song - voice.wav", "song - voice 2.wav")
    write_audio(first, tone())
    release_destination(first)
    release_destination(second)
    assert [path.name for path in tmp_path.iterdir()] == ["song - voice.wav"]
    with pytest.raises(AudioFileError):
        reserve_destination(tmp_path / "missing", "a", "wav")


def test_working_folders_go_away_whatever_happens(tmp_path):
    def fail():
        with working_folder(tmp_path) as folder:
            write_audio(folder / "a.wav", tone())
            raise Cancelled

    with pytest.raises(Cancelled):
        fail()
    assert not list(tmp_path.iterdir())
    with pytest.raises(AudioFileError), working_folder(tmp_path / "missing"):
        pass


def test_after_leaving_for_good_no_new_file_is_begun(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.errors import Cancelled\nfrom engine.signal import *\n"
        "folder = Path(sys.argv[1])\nopen_writer = AudioWriter(folder / 'a.wav', 16000, 1)\n"
        "remove_part_files(for_good=True)\n"
        "try:\n    AudioWriter(folder / 'b.wav', 16000, 1)\nexcept Cancelled:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n"
    assert not list(tmp_path.iterdir())
