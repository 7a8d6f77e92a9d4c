import dataclasses
import json
import shutil
import sys
import threading
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from engine import models, rendering
from engine.conversion import embed_voice, load_converter
from engine.errors import AudioFileError, Cancelled, EngineBusyError, ModelError, OutOfMemoryError
from engine.jobs import JobContext
from engine.models import lease
from engine.pitch import F0Contour, estimate_f0
from engine.rendering import PRESETS, RenderOptions, Stems, render_song
from engine.signal import AudioClip, integrated_lufs, read_audio, resample, true_peak_dbtp, write_audio
from tests.clips import noise
from tests.fakes import voice_like

DEMO = Path(str(files("resources"))) / "demo" / "song.opus"
FAST = RenderOptions(preset="fast")
BARE = RenderOptions(preset="fast", separation="none")


@pytest.fixture(scope="module")
def voice():
    return embed_voice([AudioClip(voice_like(220.0, 6.0)[None], 48000)], name="Test voice")


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Four seconds of the demo at 44.1 kHz, the voice moved a little to the left."""
    clip = resample(read_audio(DEMO), 44100)
    samples = clip.samples[:, 4 * 44100 : 8 * 44100].copy()
    path = tmp_path_factory.mktemp("song") / "song 🎤 ca\u0301fe.flac"
    write_audio(path, AudioClip(samples, 44100))
    return path


@pytest.fixture(scope="module")
def rendered(song, voice, tmp_path_factory):
    """One balanced render of the song, shared by the tests that look at it."""
    folder = tmp_path_factory.mktemp("rendered")
    ctx = JobContext()
    options = RenderOptions(preset="balanced")
    result = render_song(song, folder / "mix.flac", voice, options, ctx, stems_folder=folder / "stems")
    return result, ctx


@pytest.fixture(scope="module")
def bare_voice(tmp_path_factory):
    """A mono voice of 2 s at 140 Hz with a pause of digital silence."""
    sound = voice_like(140.0, 2.4, 48000)
    sound[48000:57600] = 0
    path = tmp_path_factory.mktemp("bare") / "voice.wav"
    write_audio(path, AudioClip(sound[None], 48000))
    return path


def test_the_mix_is_as_long_wide_and_fast_as_the_song(song, rendered):
    result, _ = rendered
    source, mix = read_audio(song), read_audio(result.destination)
    assert (mix.sample_rate, mix.samples.shape) == (source.sample_rate, source.samples.shape)
    assert true_peak_dbtp(mix) <= -0.99
    assert result.mix_peaks.num_samples == result.source_peaks.num_samples == mix.num_samples
    assert sorted(path.name for path in result.destination.parent.iterdir()) == ["mix.flac", "stems"]


def test_the_stems_make_the_song_and_the_mix(song, rendered):
    result, _ = rendered
    stems = result.stems
    vocals, accompaniment, converted = (
        read_audio(path).samples for path in (stems.vocals, stems.accompaniment, stems.converted)
    )
    assert np.allclose(vocals + accompaniment, read_audio(song).samples, atol=1e-4)
    mix = read_audio(result.destination).samples
    quiet = np.abs(converted + accompaniment).max(axis=0) < 0.5  # where the limiter has nothing to do
    assert np.median(np.abs(mix - converted - accompaniment)[:, quiet]) < 1e-4
    assert not np.allclose(converted, vocals, atol=0.05)  # never a pass-through


def test_the_converted_voice_is_as_loud_as_the_original_and_sits_where_it_sat(rendered):
    result, _ = rendered
    vocals, converted = read_audio(result.stems.vocals), read_audio(result.stems.converted)
    assert integrated_lufs(converted) == pytest.approx(integrated_lufs(vocals), abs=0.6)
    assert result.stems.paths()


def test_the_converted_voice_follows_the_wanted_pitch(rendered):
    result, _ = rendered
    assert result.report["f0_rmse_cents"] < 40
    assert result.report["median_f0_converted_hz"] == pytest.approx(result.report["median_f0_wanted_hz"], rel=0.03)
    assert result.source_f0.num_frames == result.wanted_f0.num_frames == 401


def test_the_pitch_is_shown_while_the_voice_is_still_to_be_converted(bare_voice, voice, tmp_path):
    class Watching(JobContext):
        def show(self, interim):
            super().show(interim)
            shown.append((interim, set(self.stage_seconds)))

    shown, ctx = [], Watching()
    result = render_song(bare_voice, tmp_path / "out.wav", voice, dataclasses.replace(BARE, transpose=3.0), ctx)
    [(found, stages)] = shown
    assert ctx.progress.interim is found
    assert found.source_f0 is result.source_f0
    assert found.wanted_f0 is result.wanted_f0
    assert found.transpose_semitones == 3.0
    assert "Tracking the pitch" in stages
    assert not stages & {"Loading the voice models", "Converting the voice"}


def test_the_report_says_what_was_done(rendered):
    result, ctx = rendered
    report = json.loads(json.dumps(result.report, allow_nan=False))
    assert report["seconds"] == 4.0
    assert report["preset"] == "balanced"
    assert report["device"] == "cpu"
    assert report["real_time_factor"] == pytest.approx(report["total_seconds"] / 4, abs=0.01)
    assert {"Reading the song", "Tracking the pitch", "Converting the voice", "Mixing"} <= set(report["stage_seconds"])
    assert all(len(sha256) == 64 for sha256 in report["models"].values())
    assert len(report["models"]) >= 3
    assert report["transpose_semitones"] % 12 == 0
    for key in ("f0_rmse_hz", "f0_rmse_cents", "similarity", "mix_peak_dbtp", "mix_loudness_lufs"):
        assert isinstance(report[key], float), key
    assert ctx.progress.fraction == 1.0


def test_kept_stems_save_the_separation_and_edits_change_the_pitch(song, voice, rendered, tmp_path):
    first, _ = rendered
    edits = first.wanted_f0.transposed(3)
    options = dataclasses.replace(FAST, reuse_stems=first.stems.vocals.parent, f0_edits=edits)
    result = render_song(song, tmp_path / "edited.wav", voice, options, JobContext())
    assert "Separating vocals" not in result.report["stage_seconds"]
    assert result.report["median_f0_wanted_hz"] == pytest.approx(
        first.report["median_f0_wanted_hz"] * 2**0.25, rel=0.01
    )
    assert result.report["f0_rmse_cents"] < 60
    with pytest.raises(AudioFileError, match="does not belong"):
        render_song(DEMO, tmp_path / "no.wav", voice, options, JobContext())


def test_a_bare_voice_stays_mono_and_its_silence_silent(bare_voice, voice, tmp_path):
    result = render_song(bare_voice, tmp_path / "out.wav", voice, BARE, JobContext(), stems_folder=tmp_path / "stems")
    out = read_audio(result.destination)
    assert (out.num_channels, out.sample_rate, out.num_samples) == (1, 48000, round(2.4 * 48000))
    assert np.abs(out.samples[0, 50000:56000]).max() < 1e-3
    assert 6 <= result.report["transpose_semitones"] <= 10  # 140 to 220 Hz, in semitones when nothing accompanies
    assert result.stems.accompaniment is None
    assert estimate_f0(out).median_hz() == pytest.approx(220, rel=0.06)


def test_the_converted_voice_sits_where_the_original_sat(voice, tmp_path):
    sound = voice_like(180.0, 1.5, 44100)
    write_audio(tmp_path / "left.wav", AudioClip(np.stack([sound, 0.25 * sound]), 44100))
    out, _, _ = render_bad(tmp_path / "left.wav", voice, tmp_path)
    left, right = np.sqrt(np.square(out.samples).mean(axis=1))
    assert right / left == pytest.approx(0.25, abs=0.02)


def test_a_given_key_is_taken(bare_voice, voice, tmp_path):
    options = dataclasses.replace(BARE, transpose=-2.0)
    result = render_song(bare_voice, tmp_path / "out.ogg", voice, options, JobContext())
    assert result.report["transpose_semitones"] == -2
    assert result.report["median_f0_converted_hz"] == pytest.approx(140 * 2 ** (-2 / 12), rel=0.04)


def test_presets_differ():
    trackers = [preset.tracker for preset in PRESETS.values()]
    assert list(PRESETS) == ["fast", "balanced", "quality"]
    assert len(set(trackers)) == 3
    assert [preset.kind for preset in PRESETS.values()] == ["live", "studio", "studio"]


# --- Bad input -------------------------------------------------------------------------------------------------------


def render_bad(path, voice, folder, options=BARE):
    ctx = JobContext()
    result = render_song(path, folder / "out.wav", voice, options, ctx)
    return read_audio(result.destination), ctx.progress.notes, result


@pytest.mark.parametrize("name", ["empty.wav", "text.wav", "zero.wav", "missing.flac", "."])
def test_what_holds_no_sound_is_refused(voice, tmp_path, name):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound " * 1000)
    soundfile.write(tmp_path / "zero.wav", np.zeros((0, 2)), 44100)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(AudioFileError):
        render_song(tmp_path / name, out / "out.wav", voice, FAST, JobContext())
    assert not list(out.iterdir())


def test_silence_gives_silence_and_says_so(voice, tmp_path):
    write_audio(tmp_path / "silence.wav", AudioClip(np.zeros((2, 44100), np.float32), 44100))
    out, notes, result = render_bad(tmp_path / "silence.wav", voice, tmp_path, FAST)
    assert out.samples.shape == (2, 44100)
    assert not out.samples.any()
    assert "silent" in notes[0]
    assert result.report["similarity"] is None


def test_a_truncated_mp3_is_converted_as_far_as_it_goes(voice, tmp_path):
    write_audio(tmp_path / "whole.mp3", AudioClip(voice_like(150.0, 3.0, 44100)[None], 44100))
    data = (tmp_path / "whole.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(data[: len(data) // 2])
    out, _, _ = render_bad(tmp_path / "cut.mp3", voice, tmp_path)
    assert 1.0 < out.seconds < 2.0


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (192000, 2), (48000, 6)])
def test_unusual_rates_and_channel_counts(voice, tmp_path, rate, channels):
    sound = voice_like(150.0, 1.2, rate)
    write_audio(tmp_path / "in.wav", AudioClip(np.tile(sound, (channels, 1)), rate))
    out, notes, _ = render_bad(tmp_path / "in.wav", voice, tmp_path)
    assert (out.sample_rate, out.num_channels, out.num_samples) == (rate, min(channels, 2), round(1.2 * rate))
    assert np.abs(out.samples).max() > 0.01
    assert [note for note in notes if "6 channels were folded down to stereo" in note] == list(notes)
    assert bool(notes) == (channels > 2), "what is lost is said"


@pytest.mark.parametrize("scale", [1.0, 40.0, 32768.0])
def test_floats_that_are_none_or_pass_full_scale(voice, tmp_path, scale):
    sound = voice_like(150.0, 1.2, 44100, amplitude=1.0) * np.float32(scale)
    sound[1000:1010] = np.nan
    sound[2000] = np.inf
    soundfile.write(tmp_path / "in.wav", sound, 44100, subtype="FLOAT")
    out, notes, _ = render_bad(tmp_path / "in.wav", voice, tmp_path)
    assert np.isfinite(out.samples).all()
    assert 0.05 < np.abs(out.samples).max() <= 0.9
    assert "11 samples" in notes[0]
    assert any("turned down" in note for note in notes) == (scale > 2)


def test_noise_without_a_voice_is_no_failure(voice, tmp_path):
    write_audio(tmp_path / "noise.wav", noise(seconds=1, sample_rate=44100, channels=2))
    out, _, result = render_bad(tmp_path / "noise.wav", voice, tmp_path)
    assert np.isfinite(out.samples).all()
    assert result.report["transpose_semitones"] == 0


def test_the_song_itself_is_never_overwritten(bare_voice, voice, tmp_path):
    copy = tmp_path / "song.wav"
    shutil.copy(bare_voice, copy)
    (tmp_path / "link.wav").hardlink_to(copy)
    (tmp_path / "vocals.wav").hardlink_to(copy)
    before = copy.read_bytes()
    for destination, stems in (
        ("song.wav", None),
        ("link.wav", None),
        ("a.wav", "."),
        ("stems/vocals.wav", "stems"),
        ("Stems/Converted.WAV", "stems"),  # where capitals do not count, it would be the stem
    ):
        with pytest.raises(AudioFileError, match="overwritten|both"):
            render_song(
                copy, tmp_path / destination, voice, BARE, JobContext(), stems_folder=stems and tmp_path / stems
            )
    assert copy.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("limit", [1_000, 400_000, 1_000_000])
def test_a_full_disk_ends_in_one_sentence_and_leaves_nothing(song, voice, tmp_path, limit):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(AudioFileError, match="cannot be written"):
            render_song(song, tmp_path / "out.wav", voice, BARE, JobContext())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses even root")
def test_a_folder_that_takes_no_files_is_an_error(bare_voice, voice, tmp_path):
    for destination, stems in (("/proc/out.wav", None), (tmp_path / "missing" / "a.wav", None)):
        with pytest.raises(AudioFileError, match="cannot be written"):
            render_song(bare_voice, Path(destination), voice, BARE, JobContext(), stems_folder=stems)
    with pytest.raises(AudioFileError, match="cannot be written"):
        render_song(bare_voice, tmp_path / "out.wav", voice, BARE, JobContext(), stems_folder=Path("/proc/stems"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["Reading the song", "Tracking the pitch", "Converting the voice", "Mixing", "Done"])
def test_cancelling_at_any_stage_leaves_nothing(bare_voice, voice, tmp_path, stage):
    class StopsThere(JobContext):
        def checkpoint(self, name, fraction):
            if name == stage:
                self.cancel()
            super().checkpoint(name, fraction)

    with pytest.raises(Cancelled):
        render_song(bare_voice, tmp_path / "out.wav", voice, BARE, StopsThere(), stems_folder=tmp_path / "stems")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["missing", "altered", "truncated"])
def test_a_missing_or_damaged_model_is_told_and_nothing_written(bare_voice, voice, tmp_path, monkeypatch, damage):
    copies = tmp_path / "models"
    shutil.copytree(models.models_folder(), copies)
    for path in copies.glob("decoder*.safetensors"):
        if damage == "missing":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[-100] ^= 0xFF
            path.write_bytes(data if damage == "altered" else data[:1000])
    monkeypatch.setattr(models.registry, "models_folder", lambda: copies)
    load_converter.__globals__["_converter"].cache_clear()
    out = tmp_path / "out"
    out.mkdir()
    try:
        with pytest.raises(ModelError) as caught:
            render_song(bare_voice, out / "out.wav", voice, BARE, JobContext())
    finally:
        load_converter.__globals__["_converter"].cache_clear()
    assert "nstall" in caught.value.hint
    assert not list(out.iterdir())


def test_out_of_memory_on_the_gpu_ends_on_the_cpu_and_is_said(bare_voice, voice, tmp_path, monkeypatch):
    # The card is imagined: only the call that takes memory on it is made to fail, as torch fails it.
    asked = []
    real = rendering._Render._stream_conversion

    def stream_conversion(self, converter, source_f0, wanted_f0, segment_s, ctx):
        asked.append((converter.torch_device, segment_s))
        if converter.torch_device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        real(self, converter, source_f0, wanted_f0, segment_s, ctx)

    class OnCard:
        def __init__(self, converter, device):
            self._converter, self.torch_device = converter, device

        def __getattr__(self, name):
            return getattr(self._converter, name)

    cpu = load_converter("live", "cpu")
    monkeypatch.setattr(rendering._Render, "_stream_conversion", stream_conversion)
    monkeypatch.setattr("engine.conversion.converter.load_converter", lambda kind, device: OnCard(cpu, device))
    monkeypatch.setattr("engine.models.pick_torch_device", lambda wish: "cuda")
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    ctx = JobContext()
    result = render_song(bare_voice, tmp_path / "out.wav", voice, BARE, ctx)
    assert asked == [("cuda", 20.0), ("cuda", 5.0), ("cuda", 1.0), ("cpu", 20.0)]
    assert result.report["device"] == "cpu"
    assert any("CPU" in note for note in ctx.progress.notes)
    assert result.report["notes"] == list(ctx.progress.notes)

    monkeypatch.setattr(rendering._Render, "_stream_conversion", out_of_memory)
    with pytest.raises(OutOfMemoryError):
        render_song(bare_voice, tmp_path / "no.wav", voice, BARE, JobContext())


def out_of_memory(*_):
    raise MemoryError


def test_a_second_job_is_refused_while_the_models_are_taken(bare_voice, voice, tmp_path):
    taken, release = threading.Event(), threading.Event()

    def hold():
        with lease():
            taken.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(10)
    try:
        with pytest.raises(EngineBusyError):
            render_song(bare_voice, tmp_path / "out.wav", voice, BARE, JobContext())
    finally:
        release.set()
        thread.join()


def test_wrong_presets_and_endings_fail_before_any_work(bare_voice, voice, tmp_path):
    with pytest.raises(ValueError, match="preset"):
        render_song(bare_voice, tmp_path / "a.wav", voice, RenderOptions(preset="best"), JobContext())
    with pytest.raises(AudioFileError, match="end like"):
        render_song(bare_voice, tmp_path / "a.txt", voice, BARE, JobContext())


def test_edits_replace_the_contour_where_they_reach():
    wanted = F0Contour(np.array([100, 100, np.nan, 100], np.float32), np.ones(4, np.float32))
    edits = F0Contour(np.array([200, np.nan, 300], np.float32), np.ones(3, np.float32))
    edited = rendering._edited(wanted, edits).f0_hz
    assert np.array_equal(edited, np.array([200, np.nan, 300, 100], np.float32), equal_nan=True)
    assert Stems.in_folder(Path("x"), with_accompaniment=False).accompaniment is None
