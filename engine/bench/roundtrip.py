"""Real devices without hardware: a private PulseAudio server, and delays between what goes in and what comes out.

Needs the programs `pulseaudio`, `pactl`, `pacat` and `parec`, and PortAudio with ALSA's PulseAudio plugin.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import AudioDeviceError
from engine.signal.clip import FloatArray

RATE = 48000
MICROPHONE = "PulseAudio: source: mic.monitor"
SPEAKERS = "PulseAudio: sink: speakers"
SINKS = ("mic", "speakers", "passed")
_CLOCK = "clock"  # the null sink that SINKS are the channels of, so that one recording holds them all in step
_PLACES = ("front-left", "front-right", "front-center")
_PLAYER_LATENCY_MS, _RECORDER_LATENCY_MS = 200, 250

# A plain sounddevice passthrough, the yardstick: in a process of its own, it says its xruns at the end. After an xrun
# PortAudio's full-duplex stream on PulseAudio asks without a pause whether it may go on, and would take a whole core
# from whatever runs beside it; so it is started again. What the start itself does to the streams counts for nobody.
_PASSTHROUGH = """
import sys, signal, threading, time, sounddevice as sd
xruns, counts_from = 0, float("inf")
def turn(indata, outdata, count, at, status):
    global xruns
    outdata[:] = indata
    xruns += bool(status) and time.monotonic() > counts_from
done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: done.set())
def begin(*_):
    global counts_from
    counts_from = time.monotonic()
signal.signal(signal.SIGUSR1, begin)
with sd.Stream(device="pulse", samplerate=48000, channels=1, blocksize=int(sys.argv[1]), latency="low",
               callback=turn) as stream:
    print("ready", flush=True)
    seen = 0
    while not done.wait(0.2):
        if xruns > seen:
            seen = xruns = seen + 1
            counts_from = float("inf")
            stream.stop()
            stream.start()
            counts_from = time.monotonic() + 1.0
print(xruns, flush=True)
"""


def _hurry(process: "subprocess.Popen[Any]") -> None:
    """Let a process run before others, where the system allows it: what is measured is not the machine's other work."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(process.pid, os.SCHED_RR, os.sched_param(3))


class PrivatePulse:
    """A sound server with null sinks of its own; while it runs, this process's environment names it."""

    def __init__(self) -> None:
        if shutil.which("pulseaudio") is None:
            raise AudioDeviceError("PulseAudio is not installed.", hint="On Debian and Ubuntu: apt install pulseaudio.")
        self.folder = Path(tempfile.mkdtemp(prefix="autovoice-pulse-"))
        self.environment = {
            "XDG_RUNTIME_DIR": str(self.folder),
            "PULSE_RUNTIME_PATH": str(self.folder / "pulse"),
            "PULSE_SERVER": f"unix:{self.folder / 'native'}",
            "PULSE_COOKIE": str(self.folder / "cookie"),
        }
        self._before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        self._server = subprocess.Popen(
            ["pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "-n", "--use-pid-file=no", "--disable-shm=yes",
             "-L", f"module-native-protocol-unix socket={self.folder / 'native'} auth-anonymous=1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _hurry(self._server)
        deadline = time.monotonic() + 20
        while self._pactl("info", check=False).returncode:
            if time.monotonic() > deadline:
                self.close()
                raise AudioDeviceError("PulseAudio did not start.", hint="Try `pulseaudio -n` in a terminal.")
            time.sleep(0.05)
        self._pactl("load-module", "module-null-sink", f"sink_name={_CLOCK}", f"rate={RATE}", f"channels={len(SINKS)}",
                    f"channel_map={','.join(_PLACES)}")  # fmt: skip
        self._modules = {name: self._load(name) for name in SINKS}

    def __enter__(self) -> "PrivatePulse":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def unplug(self, name: str) -> None:
        """Take one of SINKS away."""
        self._pactl("unload-module", self._modules.pop(name))

    def plug_in(self, name: str) -> None:
        """Bring it back."""
        self._modules[name] = self._load(name)

    def close(self) -> None:
        """End the server and forget its environment."""
        self._server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.wait(5)
        self._server.kill()
        self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _load(self, name: str) -> str:
        place = _PLACES[SINKS.index(name)]
        return self._pactl(
            "load-module", "module-remap-sink", f"sink_name={name}", f"master={_CLOCK}", "channels=1",
            "channel_map=mono", f"master_channel_map={place}", "remix=no",
        ).stdout.strip()  # fmt: skip

    def _pactl(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["pactl", *words], capture_output=True, text=True, check=check, timeout=20)


class Passthrough:
    """A plain passthrough of "mic" to "passed" in a process of its own.

    Args:
        block_samples: Of its one full-duplex stream.
    """

    def __init__(self, block_samples: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PASSTHROUGH, str(block_samples)],
            env={**os.environ, "PULSE_SOURCE": "mic.monitor", "PULSE_SINK": "passed"},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        if sys.platform.startswith("linux"):
            with contextlib.suppress(
                OSError
            ):  # not real-time: it runs in a circle after an xrun, and would block others
                os.setpriority(os.PRIO_PROCESS, self._process.pid, -15)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        time.sleep(1.0)  # its first second is full of xruns; they do not count
        self._process.send_signal(signal.SIGUSR1)

    def close(self) -> int:
        """End it; how many of its callbacks reported an xrun."""
        self._process.send_signal(signal.SIGTERM)
        answer = self._process.communicate(timeout=20)[0]
        return int(answer.strip() or 0)


class Listener:
    """Plays samples into "mic" while recording what all SINKS carry, by the sound server's own tools.

    Start it before what is measured, because streams that come and go make the server stumble. All sinks are recorded
    as the channels of one stream: three recordings would begin apart by as much as three programs take to start.

    Args:
        samples: [N] at 48 kHz, played after two seconds of silence, over and over until `close`.
        folder: For the files; the recording takes 17 MB a minute.
    """

    SILENCE_S = 2.0

    def __init__(self, samples: FloatArray, folder: Path) -> None:
        self._file = folder / "heard.raw"
        form = ["--raw", "--format=s16le", f"--rate={RATE}"]
        places = [f"--channels={len(SINKS)}", f"--channel-map={','.join(_PLACES)}"]
        self._recorder = subprocess.Popen(
            ["parec", f"--device={_CLOCK}.monitor", *form, *places, f"--latency-msec={_RECORDER_LATENCY_MS}",
             str(self._file)]
        )  # fmt: skip
        silence, played = folder / "silence.raw", folder / "played.raw"
        np.zeros(round(self.SILENCE_S * RATE), dtype="<i2").tofile(silence)
        np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tofile(played)
        player = " ".join(["pacat --playback --device=mic --channels=1", *form, f"--latency-msec={_PLAYER_LATENCY_MS}"])
        # In a process group of its own, so that the whole pipe can be ended.
        self._player = subprocess.Popen(
            ["sh", "-c", f"(cat '{silence}'; while cat '{played}'; do :; done) | {player}"], start_new_session=True
        )
        for process in (self._recorder, self._player):
            _hurry(process)
        time.sleep(self.SILENCE_S)

    @property
    def seconds(self) -> float:
        """Length recorded so far."""
        return (self._file.stat().st_size if self._file.exists() else 0) / 2 / len(SINKS) / RATE

    def wait(self, seconds: float) -> None:
        """Sleep until so much more is recorded."""
        end = self.seconds + seconds
        while self.seconds < end:
            if self._player.poll() is not None:
                raise AudioDeviceError("The sound server's player ended.", hint="Is pacat installed?")
            time.sleep(0.05)

    def heard(self, seconds: float) -> dict[str, FloatArray]:
        """The last so many seconds that each sink carried, [N]."""
        end = int(self.seconds * RATE)
        start = max(0, end - round(seconds * RATE))
        count, offset = (end - start) * len(SINKS), 2 * start * len(SINKS)
        table = np.fromfile(self._file, "<i2", count=count, offset=offset).reshape(-1, len(SINKS))
        return {name: table[:, place].astype(np.float32) / np.float32(32768) for place, name in enumerate(SINKS)}

    def close(self) -> None:
        """End playing and recording."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._player.pid, signal.SIGTERM)
        self._player.wait(10)
        self._recorder.terminate()
        self._recorder.wait(10)


def delay_ms(played: FloatArray, heard: FloatArray, *, start_s: float, seconds: float, most_ms: float = 700.0) -> float:
    """How long after `played` [N] `heard` [N] follows, both at 48 kHz, judged from a stretch of `played`.

    Args:
        played: The earlier signal.
        heard: The later one; -200 ms to `most_ms` are searched.
        start_s: Where the stretch begins.
        seconds: How long it is.
        most_ms: Longest delay.

    Returns:
        The delay of the highest correlation; NaN where there is nothing to correlate.
    """
    lead = round(0.2 * RATE)
    first = max(round(start_s * RATE), lead)
    part = played[first : first + round(seconds * RATE)]
    area = heard[first - lead : first + len(part) + round(most_ms * RATE / 1000)]
    if not part.any() or not area.any():
        return float("nan")
    size = 1 << (len(part) + len(area)).bit_length()
    spectrum = np.fft.rfft(area, size) * np.conj(np.fft.rfft(part, size))
    spectrum /= np.abs(spectrum) + 1e-3 * np.abs(spectrum).max()  # whitened: a sharp peak, also for voices
    correlation = np.fft.irfft(spectrum, size)[: max(1, len(area) - len(part) + 1)]
    return 1000 * (int(np.argmax(np.abs(correlation))) - lead) / RATE
