"""Play files through an output device: streamed from disk, with seeking and switching that keep the place.

One thread reads ahead into a ring; the device callback only copies out of it. Everything heard lies on one time line in
the ring, so a switch to another file (original to converted, say) rewrites what has not been heard yet, cross-faded, at
exactly the sample where it takes over.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.devices.backend import AudioBackend, RawStream, StreamRequest
from engine.devices.choice import choose_device
from engine.errors import AudioDeviceError, AutoVoiceError
from engine.signal import AudioReader, FloatArray, StreamingResampler

_READ_AHEAD_S = 0.6
_FADE_S = 0.010
_FIRST_MARGIN_S = 0.030  # how far ahead of the callback a change is written; doubled when that came too late
_DEVICE_LATENCY_S = 0.06
_IDLE_S = 3.0  # after this long without playing the device is given back


@dataclass(frozen=True)
class PlaybackState:
    """What the player does; replaced whole.

    Attributes:
        path: The file that is loaded, or None.
        is_playing: Whether it sounds.
        duration_s: Of the file; 0 until it was opened.
        error: Why the last command failed, or None.
    """

    path: Path | None = None
    is_playing: bool = False
    duration_s: float = 0.0
    error: AutoVoiceError | None = None


class OutputPlayer:
    """Plays one file at a time. Commands return at once and may come from any thread.

    Args:
        devices: The machine's devices; one is opened when first needed and given back soon after playing.
        on_change: Called from the player's thread after `state` was replaced.
    """

    def __init__(self, devices: AudioBackend, on_change: Callable[[], None] = lambda: None) -> None:
        self._devices, self._on_change = devices, on_change
        self.volume = 1.0
        self.underflows = 0
        self._state = PlaybackState()
        self._device_id = ""
        self._ring = _TimeLine(2**16)
        self._audible = False
        self._stream: RawStream | None = None
        self._rate = 0
        self._source: _Source | None = None
        self._stopped_at_s = 0.0
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def state(self) -> PlaybackState:
        """What it does now."""
        return self._state

    @property
    def position_s(self) -> float:
        """The place in the file that the device was last given, s."""
        return self._ring.position_s if self._audible else self._stopped_at_s

    def load(self, path: Path, *, position_s: float | None = None) -> None:
        """Take another file.

        Args:
            path: Any readable kind.
            position_s: Where to go on; None keeps the place, and a sound that plays goes on playing.
        """
        self._tell(lambda: self._load(path, position_s))

    def play(self) -> None:
        """Play from the present place; from the start when the file had ended."""
        self._tell(self._play)

    def pause(self) -> None:
        """Fall silent and keep the place."""
        self._tell(self._pause)

    def seek(self, position_s: float) -> None:
        """Go elsewhere in the file, s; playing goes on from there."""
        self._tell(lambda: self._seek(position_s))

    def use_device(self, output_device: str) -> None:
        """Play through another device, by its id, from now on; "" is the default one."""
        self._tell(lambda: self._change_device(output_device))

    def unload(self) -> None:
        """Fall silent and let go of the file and the device."""
        self._tell(self._unload)

    def close(self) -> None:
        """Give the device back and end the thread; the player is of no use afterwards."""
        if self._thread is not None:
            self._closing = True
            self._commands.put(lambda: None)
            self._thread.join()

    # Everything below runs in the player's thread, apart from _on_block.

    def _tell(self, command: Callable[[], None]) -> None:
        if self._closing:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="autovoice-player")
            self._thread.start()
        self._commands.put(command)

    def _run(self) -> None:
        try:
            while not self._closing:
                wait_s = 0.02 if self._audible else (_IDLE_S if self._stream is not None else None)
                command = None
                try:
                    command = self._commands.get(timeout=wait_s)
                except queue.Empty:
                    if not self._audible:
                        self._close_stream()
                self._attempt(command)
        finally:
            self._unload()

    def _attempt(self, command: Callable[[], None] | None) -> None:
        try:
            if command is not None:
                command()
            if self._audible:
                self._read_ahead()
        except AutoVoiceError as error:
            self._silence()
            self._publish(is_playing=False, error=error)

    def _publish(self, **changes: Any) -> None:
        self._state = replace(self._state, **{"error": None, **changes})
        self._on_change()

    def _load(self, path: Path, position_s: float | None) -> None:
        new = _Source(path)
        old, self._source = self._source, new
        if old is not None:
            old.close()
        if self._audible:
            self._rewrite(position_s)
        else:
            wanted = self._stopped_at_s if position_s is None else position_s
            self._stopped_at_s = min(max(wanted, 0.0), new.duration_s)
        self._publish(path=path, duration_s=new.duration_s)

    def _play(self) -> None:
        if self._source is None or self._audible:
            return
        if self._stopped_at_s >= self._source.duration_s - 0.02:
            self._stopped_at_s = 0.0
        if self._stream is None:
            self._open_stream()
        self._ring.restart(self._rate, self._stopped_at_s)
        self._source.go_to(self._stopped_at_s, self._rate)
        self._read_ahead()
        self._audible = True
        self._publish(is_playing=True)

    def _pause(self) -> None:
        self._silence()
        self._publish(is_playing=False)

    def _silence(self) -> None:
        if self._audible:
            self._stopped_at_s = self._ring.position_s
            self._audible = False

    def _seek(self, position_s: float) -> None:
        if self._source is None:
            return
        position_s = min(max(position_s, 0.0), self._source.duration_s)
        if self._audible:
            self._rewrite(position_s)
        else:
            self._stopped_at_s = position_s
        self._publish()

    def _change_device(self, output_device: str) -> None:
        self._device_id = output_device
        was_audible = self._audible
        self._silence()
        self._close_stream()
        if was_audible:
            self._play()

    def _unload(self) -> None:
        self._silence()
        self._close_stream()
        if self._source is not None:
            self._source.close()
            self._source = None
        self._stopped_at_s = 0.0
        self._publish(path=None, is_playing=False, duration_s=0.0)

    def _open_stream(self) -> None:
        device = choose_device(self._devices.devices(), self._device_id or None, is_input=False)
        self._rate = device.default_sample_rate
        request = StreamRequest(None, device, self._rate, 0, output_channels=2, latency_s=_DEVICE_LATENCY_S)
        stream = self._devices.open(request, self._on_block)
        self._stream = stream
        stream.start()

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _rewrite(self, position_s: float | None) -> None:
        """Replace what lies ahead in the ring by the source, from a place (None: the place itself) on."""
        assert self._source is not None
        rate = self._rate
        margin = round(_FIRST_MARGIN_S * rate)
        while True:
            counter = min(self._ring.num_read + margin, self._ring.num_written)
            place_s = self._ring.position_at(counter) if position_s is None else position_s
            self._source.go_to(place_s, rate)
            block = self._source.read(round(_FADE_S * rate) * 4)
            if self._ring.rewrite(counter, block, place_s, round(_FADE_S * rate)) or counter == self._ring.num_written:
                break
            margin *= 2
        self._read_ahead()

    def _read_ahead(self) -> None:
        assert self._source is not None
        rate = self._rate
        if self._stream is not None and not self._stream.is_active:
            self._close_stream()
            raise AudioDeviceError(
                "The output device went away.", hint="Plug it in again or choose another in Settings, then press Play."
            )
        while self._ring.num_ready < min(_READ_AHEAD_S * rate, self._ring.capacity - 4096):
            self._ring.write(self._source.read(4096))
        if self._ring.position_s >= self._source.duration_s:
            self._stopped_at_s = self._source.duration_s
            self._audible = False
            self._publish(is_playing=False)

    def _on_block(self, _indata: FloatArray | None, outdata: FloatArray | None, _num_samples: int, _xrun: bool) -> None:
        """The device callback: copy, count, return."""
        assert outdata is not None
        if not self._audible:
            outdata.fill(0.0)
        elif self._ring.read_into(outdata):
            outdata *= self.volume
        else:
            outdata.fill(0.0)
            self.underflows += 1


class _TimeLine:
    """A ring of [capacity, 2] samples and the places in the file that they stand for.

    One thread writes, the callback reads; data are stored first, the counter last.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._samples = np.zeros((capacity, 2), np.float32)
        self.num_read = self.num_written = 0
        self._marks: list[tuple[int, float]] = [(0, 0.0)]  # from this counter on, the place is this many seconds
        self._rate = 1

    @property
    def num_ready(self) -> int:
        return self.num_written - self.num_read

    @property
    def position_s(self) -> float:
        return self.position_at(self.num_read)

    def position_at(self, counter: int) -> float:
        start, place_s = next((mark for mark in reversed(self._marks) if mark[0] <= counter), self._marks[0])
        return place_s + (counter - start) / self._rate

    def restart(self, sample_rate: int, place_s: float) -> None:
        self._rate = sample_rate
        self._marks = [(self.num_read, place_s)]
        self.num_written = self.num_read

    def write(self, samples: FloatArray) -> None:
        self._store(self.num_written, samples)
        self.num_written += len(samples)

    def rewrite(self, counter: int, samples: FloatArray, place_s: float, fade: int) -> bool:
        """Go on from `counter` with other samples, faded into; False when the callback got there first."""
        fade = min(fade, self.num_written - counter, len(samples))
        if fade > 0:
            ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)[:, None]
            old = self._samples[np.arange(counter, counter + fade) % self.capacity]
            samples = np.concatenate([old * (1.0 - ramp) + samples[:fade] * ramp, samples[fade:]])
        if self.num_read > counter:
            return False
        self._store(counter, samples)
        self._marks = [*[mark for mark in self._marks if mark[0] < counter][-2:], (counter, place_s)]
        self.num_written = counter + len(samples)
        return True

    def _store(self, counter: int, samples: FloatArray) -> None:
        start = counter % self.capacity
        first = min(len(samples), self.capacity - start)
        self._samples[start : start + first] = samples[:first]
        self._samples[: len(samples) - first] = samples[first:]

    def read_into(self, out: FloatArray) -> bool:
        """Take len(out) samples; False: too little ready, nothing read."""
        wanted = len(out)
        if self.num_written - self.num_read < wanted:
            return False
        start = self.num_read % self.capacity
        first = min(wanted, self.capacity - start)
        out[:first] = self._samples[start : start + first]
        if first < wanted:
            out[first:] = self._samples[: wanted - first]
        self.num_read += wanted
        return True


class _Source:
    """A file as [N, 2] samples at the device's rate, followed by endless silence."""

    def __init__(self, path: Path) -> None:
        self._reader = AudioReader(path)
        self.duration_s = self._reader.info.num_samples / self._reader.info.sample_rate
        self._resampler: StreamingResampler | None = None
        self._pending = np.zeros((0, 2), np.float32)
        self._ended = False

    def go_to(self, position_s: float, sample_rate: int) -> None:
        """Read on from a place, s, at a rate, Hz."""
        rate = self._reader.info.sample_rate
        self._reader.seek(round(position_s * rate))
        self._resampler = None if rate == sample_rate else StreamingResampler(rate, sample_rate, 2)
        self._pending = np.zeros((0, 2), np.float32)
        self._ended = False

    def read(self, num_samples: int) -> FloatArray:
        """Exactly [num_samples, 2]."""
        while len(self._pending) < num_samples and not self._ended:
            block = self._reader.read(4096)
            self._ended = block.shape[1] == 0
            stereo = _stereo(block)
            if self._resampler is not None:
                stereo = self._resampler.flush() if self._ended else self._resampler.push(stereo)
            self._pending = np.concatenate([self._pending, stereo.T])
        samples, self._pending = self._pending[:num_samples], self._pending[num_samples:]
        if len(samples) < num_samples:
            samples = np.pad(samples, ((0, num_samples - len(samples)), (0, 0)))
        return samples

    def close(self) -> None:
        self._reader.close()


def _stereo(block: FloatArray) -> FloatArray:
    """[C, N] of any C as [2, N]: mono on both sides; of more than two, the even ones left, the odd ones right."""
    if block.shape[0] == 1:
        return np.repeat(block, 2, axis=0)
    if block.shape[0] == 2:
        return block
    return np.stack([block[0::2].mean(axis=0), block[1::2].mean(axis=0)])
