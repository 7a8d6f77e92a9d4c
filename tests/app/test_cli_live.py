import json
import shutil

import pytest

from autovoice_app.cli import main
from engine.bench.roundtrip import MICROPHONE, SPEAKERS, Listener, PrivatePulse
from engine.conversion import embed_voice
from engine.devices import system_devices
from engine.signal import probe_audio, resample
from engine.store import Store, default_data_folder
from tests.synthetic_speech import speak


@pytest.fixture(scope="module")
def spoken():
    return speak("masetinalokiremoSutefa.zilanemu.", f0_hz=200.0, seed=1)[0]


@pytest.fixture(scope="module")
def voice(spoken):
    return embed_voice([spoken], name="Nova")


@pytest.fixture
def stored(own_data_folder, voice):
    with Store(default_data_folder()) as store:
        store.add_voice(voice, consent="generated", seconds=4.0)


@pytest.fixture
def server():
    with PrivatePulse() as server:
        system_devices().devices(refresh=True)
        yield server


@pytest.mark.parametrize(
    "words",
    [["--block", "3"], ["--transpose", "13"], ["--input-channel", "0"], ["--seconds", "0"], ["--gate", "loud"], []],
)
def test_wrong_arguments_end_with_usage(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["live", *(["--voice", "Nova"] if words else []), *words])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_unknown_voice_is_a_sentence(capsys):
    assert main(["live", "--voice", "Nobody"]) == 1
    assert "Nobody" in capsys.readouterr().err


def test_bench_live_reports_delay_load_and_silence(stored, tmp_path, capsys):
    report = tmp_path / "live.json"
    assert (
        main(["bench", "live", "--voice", "Nova", "--seconds", "1", "--block", "20", "--quiet", "--json", str(report)])
        == 0
    )
    figures = json.loads(report.read_text())["figures"]
    assert figures["silence_dbfs"] < -60
    assert 20 < figures["latency_ms"]["algorithmic"] < 60
    assert figures["as_fast_as_possible"]["rtf_median"] > 0
    assert "real-time factor" in capsys.readouterr().out


@pytest.mark.audio_device
@pytest.mark.skipif(shutil.which("pulseaudio") is None, reason="PulseAudio is not installed")
def test_devices_and_live_on_real_devices(server, stored, spoken, tmp_path, capsys):
    assert main(["devices", "--json"]) == 0
    devices = json.loads(capsys.readouterr().out)
    assert {SPEAKERS, MICROPHONE} <= {device["id"] for device in devices}
    assert all(device["sample_rates"] for device in devices)
    assert main(["devices"]) == 0
    assert SPEAKERS in capsys.readouterr().out
    talk, dry = tmp_path / "talk.flac", tmp_path / "talk-dry.flac"
    listener = Listener(resample(spoken, 48000).samples[0], tmp_path)
    try:
        code = main(
            ["live", "--voice", "Nova", "--input", "mic.monitor", "--output", SPEAKERS, "--monitor", "sink: passed",
             "--block", "20", "--seconds", "2", "--record", str(talk), "--stats", str(tmp_path / "stats.json")]
        )  # fmt: skip
    finally:
        listener.close()
    assert code == 0
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["block_ms"] == 20
    assert stats["blocks"] >= 40
    assert stats["latency_ms"]["sum"] == pytest.approx(
        sum(value for name, value in stats["latency_ms"].items() if name != "sum"), abs=0.1
    )
    assert probe_audio(talk).num_samples == probe_audio(dry).num_samples > 48000
    assert "xruns" in capsys.readouterr().out
