"""A live session: one thread that takes blocks from the microphone, converts them and hands them to the loudspeaker."""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.devices import AudioBackend, DeviceWatch, choose_device, to_dbfs
from engine.errors import AudioDeviceError, AutoVoiceError
from engine.live.chain import LiveChain
from engine.live.history import LiveHistory
from engine.live.link import (
    MOST_MEASURED_MARGIN_S,
    MOST_PATIENCE,
    START_MARGIN_S,
    InputLink,
    OutputLink,
    Stumbles,
)
from engine.live.measuring import NEARLY_TOO_SLOW_SHARE, BlockMeasurement, BlockTimes, measure_blocks, warm_up
from engine.live.options import (
    SAMPLE_RATE,
    LatencyParts,
    LiveCounts,
    LiveOptions,
    LiveSettings,
    LiveSnapshot,
    LiveState,
    VoiceStream,
)
from engine.live.priority import client_threads, hurried_thread, raise_priority
from engine.live.recording import LiveRecorder
from engine.models import lease, one_torch_thread
from engine.signal.clip import FloatArray

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
_POLL_S = 0.0008
_SNAPSHOT_S = 0.030
_SETTLE_S = 1.0
_RETRY_S = 0.5


@dataclass(frozen=True, eq=False)
class LiveVoice:
    """A voice and what automatic transposition needs of it.

    Attributes:
        voice: As the conversion stream takes it.
        median_f0_hz: NaN when unknown.
    """

    voice: Any
    median_f0_hz: float


StreamFactory = Callable[[Any], VoiceStream]


class LiveSession:
    """Runs from `start` to `stop`; every other call may come from any thread at any time.

    While it runs it holds the models' lease, so that renders wait. A device that goes away pauses the session, which
    goes on by itself when the device returns.

    Args:
        backend: The system of devices.
        make_stream: Gives the conversion stream for a voice; called in the live thread, may load models.
        voice: To begin with.
        options: What is fixed while live.
        settings: What may change.
    """

    def __init__(
        self,
        backend: AudioBackend,
        make_stream: StreamFactory,
        voice: LiveVoice,
        options: LiveOptions | None = None,
        settings: LiveSettings | None = None,
    ) -> None:
        self._backend, self._make_stream = backend, make_stream
        self.options = options or LiveOptions()
        self._settings = settings or LiveSettings()
        self._voice = voice
        self._wanted_recording: Path | None = self.options.record
        self._recorder: LiveRecorder | None = None
        self._closing: list[LiveRecorder] = []
        self._notice: AutoVoiceError | None = None
        self._snapshot = LiveSnapshot()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.history = LiveHistory()
        self.times = BlockTimes()
        self.measurements: tuple[BlockMeasurement, ...] = ()

    @property
    def settings(self) -> LiveSettings:
        """What may change while running; replace it whole."""
        return self._settings

    @settings.setter
    def settings(self, settings: LiveSettings) -> None:
        self._settings = settings

    @property
    def voice(self) -> LiveVoice:
        """Who speaks; a new one takes over at the next block without a click."""
        return self._voice

    @voice.setter
    def voice(self, voice: LiveVoice) -> None:
        self._voice = voice

    @property
    def snapshot(self) -> LiveSnapshot:
        """The latest state, frozen."""
        return self._snapshot

    @property
    def is_running(self) -> bool:
        """Whether the live thread runs, be it starting, live or paused."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin in a thread of its own and return at once; `snapshot` tells how it goes."""
        if self.is_running:
            return
        self._stopping.clear()
        self._snapshot = LiveSnapshot(LiveState.STARTING, "Loading the models.")
        self._thread = threading.Thread(target=self._run, name="live")
        self._thread.start()

    def request_stop(self) -> None:
        """Ask it to stop and return at once; `is_running` turns False within a few blocks."""
        self._stopping.set()

    def stop(self) -> None:
        """Stop and wait; a recording is finished first."""
        self.request_stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def start_recording(self, path: Path) -> None:
        """Record from now on to a FLAC file, the dry voice beside it."""
        self._notice = None
        self._wanted_recording = path

    def stop_recording(self) -> None:
        """Finish the recording."""
        self._wanted_recording = None

    def _run(self) -> None:
        try:
            with lease(), _undisturbed():
                stream = self._make_stream(self._voice.voice)
                with one_torch_thread(), hurried_thread():
                    self._convert(stream)
            if self._snapshot.state is not LiveState.FAILED:
                self._snapshot = replace(self._snapshot, state=LiveState.STOPPED, message="", hint="")
        except AutoVoiceError as error:
            self._snapshot = LiveSnapshot(LiveState.FAILED, error.message, error.hint, error, notice=self._notice)
        except Exception as error:
            # The snapshot must not go on saying "live"; the thread's own hook reports the bug.
            self._snapshot = LiveSnapshot(LiveState.FAILED, "Live mode stopped because of a program error.", str(error))
            raise
        finally:
            self._finish_recording()

    def _convert(self, stream: VoiceStream) -> None:
        self._say(LiveState.STARTING, "Warming up.")
        trial = LiveChain(stream, self._voice.median_f0_hz, self._settings)
        warm_up(trial.push)
        if self.options.block_ms == "auto":
            self._say(LiveState.STARTING, "Measuring this machine.")
            self.measurements = measure_blocks(trial.push, stop=self._stopping.is_set)
            block_ms = self.measurements[-1].block_ms
        else:
            block_ms = self.options.block_ms
        stream.reset()
        voice = self._voice
        stream.voice = voice.voice  # it may have changed meanwhile
        chain = LiveChain(stream, voice.median_f0_hz, self._settings)
        gc.collect()
        gc.freeze()  # what is loaded by now is never looked through again
        run = _Run(self, chain, voice, block_ms)
        while not self._stopping.is_set():
            try:
                self._say(LiveState.STARTING, "Opening the devices.", block_ms=block_ms)
                run.open()
                run.loop()
            except AudioDeviceError as error:
                # Opening fails at once; what opened and stumbled at the start gets two more tries.
                if not run.was_live and (not run.is_open or run.losses >= 2):
                    raise
                run.losses += 1
                self._wait_for_devices(error, run)
            finally:
                run.close()

    def _wait_for_devices(self, error: AudioDeviceError, run: "_Run") -> None:
        run.close()
        with suppress(AudioDeviceError):
            run.check_devices()
            log.warning("%s, though it is there: opened again with more buffering", error.message.rstrip("."))
            run.be_patient()
            return
        log.info("live mode pauses: %s", error.message)
        self._snapshot = replace(
            self._snapshot,
            state=LiveState.PAUSED,
            message=error.message,
            hint="Live mode goes on by itself when the device is back.",
            error=error,
            counts=replace(self._snapshot.counts, device_losses=run.losses),
        )
        while not self._stopping.wait(_RETRY_S):
            with suppress(AudioDeviceError):
                run.check_devices()
                return

    def _say(self, state: LiveState, message: str, *, block_ms: float = 0.0) -> None:
        self._snapshot = replace(self._snapshot, state=state, message=message, hint="", error=None, block_ms=block_ms)

    def _update_recorder(self) -> None:
        recorder = self._recorder
        if recorder is not None and (recorder.path != self._wanted_recording or recorder.is_done):
            recorder.request_close()
            self._closing.append(recorder)
            self._recorder = None
            if recorder.is_done:  # by itself: it failed
                self._wanted_recording = None
        if self._recorder is None and self._wanted_recording is not None:
            self._recorder = LiveRecorder(self._wanted_recording)
        self._collect_recorders()

    def _finish_recording(self) -> None:
        if self._recorder is not None:
            self._recorder.request_close()
            self._closing.append(self._recorder)
            self._recorder = None
        for recorder in self._closing:
            recorder.join()
        self._collect_recorders()

    def _collect_recorders(self) -> None:
        for recorder in [recorder for recorder in self._closing if recorder.is_done]:
            self._closing.remove(recorder)
            if recorder.error is not None:
                self._notice = recorder.error
                self._snapshot = replace(self._snapshot, notice=recorder.error)


class _Run:
    """The open devices and the loop between them."""

    def __init__(self, session: LiveSession, chain: LiveChain, voice: LiveVoice, block_ms: float) -> None:
        self._session, self._chain, self._voice = session, chain, voice
        self._block_ms = block_ms
        self._input_id: str | None = None
        self._output_ids: tuple[str, ...] = ()
        self._input: InputLink | None = None
        self._outputs: list[OutputLink] = []
        self._watch: DeviceWatch | None = None
        self._hurried: set[int] = set()
        self._stumbles = Stumbles()
        self._margin_s = START_MARGIN_S
        measured = session.measurements[-1] if session.measurements else None
        if measured:  # blocks that take longer than usual are no reason to run dry
            spread_s = max(0.0, measured.p99_ms - measured.median_ms) / 1000
            self._margin_s += min(spread_s, MOST_MEASURED_MARGIN_S)  # more is a disturbance while measuring
        self._patience = 1
        self.was_live = self.is_open = False
        self.losses = 0
        self._settled_s = 0.0
        self._blocks = 0
        self._input_peak = self._output_peak = 0.0
        self._next_snapshot = 0.0
        self._input_waiting = 0.0

    def check_devices(self) -> None:
        """Raise AudioDeviceError unless all devices are there."""
        options = self._session.options
        devices = self._session._backend.devices(refresh=True)
        choose_device(devices, self._input_id or options.input_device, is_input=True)
        for wanted in self._output_ids or [options.output_device]:
            choose_device(devices, wanted, is_input=False)

    def be_patient(self) -> None:
        """Let the devices buffer more from the next opening on, since a stream stood still after an xrun of theirs."""
        self._patience = min(2 * self._patience, MOST_PATIENCE)

    def open(self) -> None:
        """Open the input, the output and the monitor."""
        options, backend = self._session.options, self._session._backend
        devices = backend.devices()
        source = choose_device(devices, self._input_id or options.input_device, is_input=True)
        wanted: list[str | None] = list(self._output_ids) or [options.output_device, options.monitor_device]
        sinks = [choose_device(devices, wanted[0], is_input=False)]
        sinks += [choose_device(devices, name, is_input=False) for name in wanted[1:] if name]
        # The very same devices again after a loss, even when the system's default has changed meanwhile.
        self._input_id, self._output_ids = source.id, tuple(sink.id for sink in sinks)
        self._chain.stream.reset()
        self.is_open = False
        self._watch = DeviceWatch([source, *sinks])
        input_rate, channel = options.input_rate or source.default_sample_rate, options.input_channel
        for sink in sinks:
            rate = options.output_rate if options.output_rate and not self._outputs else sink.default_sample_rate
            # One device that does both gets one stream: one clock, and some drivers allow no second one.
            records = not self._outputs and sink.id == source.id and rate == input_rate
            self._outputs.append(
                OutputLink(
                    backend, sink, rate, self._block_ms, self._margin_s, self._patience,
                    records=records, channel=channel,
                )
            )  # fmt: skip
        first = self._outputs[0].stream
        duplex = first if first.capture is not None else None
        self._input = InputLink(backend, source, input_rate, self._block_ms, channel, self._patience, duplex)
        for stream in (*(link.stream for link in self._outputs), *([] if duplex else [self._input.stream])):
            stream.start()
        self.is_open = True

    def close(self) -> None:
        """Give all devices back."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for link in (self._input, *self._outputs):
            if link is not None:
                link.stream.close()
        if self._outputs:
            self._margin_s = self._outputs[0].margin_s
        self._input, self._outputs, self._hurried, self._stumbles = None, [], set(), Stumbles()

    def loop(self) -> None:
        """Convert until the session stops.

        Raises:
            AudioDeviceError: A device went away.
        """
        assert self._input is not None
        opened = time.monotonic()
        settled = False
        next_check = opened
        while not self._session._stopping.is_set():
            now = time.monotonic()
            if now >= next_check:
                next_check = now + 0.1
                self._check_alive(settled)
                self._hurry()
                self._session._update_recorder()
            block = self._input.take()
            if block is None:
                time.sleep(_POLL_S)
                continue
            if not settled and now - opened > _SETTLE_S and self._outputs[0].end.is_playing:
                settled = True
                self._settle()
            self._convert(block, settled)
            if now >= self._next_snapshot:
                self._next_snapshot = now + _SNAPSHOT_S
                self._publish(settled)

    def _convert(self, block: FloatArray, settled: bool) -> None:
        assert self._input is not None
        session, chain = self._session, self._chain
        started = time.perf_counter()
        chain.settings = session._settings
        if session._voice is not self._voice:
            self._voice = session._voice
            chain.use_voice(self._voice.voice, self._voice.median_f0_hz)
        result = chain.push(block)
        for number, link in enumerate(self._outputs):
            out = result.converted
            if number:
                out = out * np.float32(10 ** (session._settings.monitor_gain_db / 20))
            link.give(out, len(block) / SAMPLE_RATE)
        milliseconds = 1000 * (time.perf_counter() - started)
        if settled:
            session.times.add(milliseconds)
            self._blocks += 1
        if session._recorder is not None:
            session._recorder.add(result.converted, result.dry)
        session.history.add(result.source, result.converted, result.source_f0_hz, result.converted_f0_hz)
        if len(block):
            self._input_peak = max(self._input_peak, float(np.abs(result.source).max()))
            self._output_peak = max(self._output_peak, float(np.abs(result.converted).max()))

    def _settle(self) -> None:
        """The devices run evenly now: what the start cost does not count."""
        assert self._input is not None
        self.was_live = True
        if not self._settled_s:
            self._settled_s = time.monotonic()
        self._input.end.overflows = self._input.end.device_xruns = self._input.dropped_samples = 0
        for link in self._outputs:
            link.reset_counts()

    def _hurry(self) -> None:
        """Raise the priority of threads as they appear: the devices', and the sound server's client's."""
        assert self._input is not None
        threads = {self._input.end.thread_id, *(link.end.thread_id for link in self._outputs), *client_threads()}
        new = threads - self._hurried - {0}
        if new:
            log.info("%d device threads run at %s priority", len(new), raise_priority(new))
            self._hurried |= new

    def _check_alive(self, settled: bool) -> None:
        assert self._input is not None
        missing = self._watch.missing if self._watch else None
        if missing is not None:
            raise AudioDeviceError(f"The device '{missing.name}' is gone.", hint="Plug it in again or choose another.")
        if self._input.liveness.is_lost():
            raise AudioDeviceError("The microphone is gone.", hint="Plug it in again or choose another.")
        for link in self._outputs:
            if link.liveness.is_lost():
                raise AudioDeviceError("The output device is gone.", hint="Plug it in again or choose another.")
        xruns = self._input.end.device_xruns + sum(link.end.device_xruns for link in self._outputs)
        if settled and self._patience < MOST_PATIENCE and self._stumbles.are_many(xruns):
            raise AudioDeviceError("A device stumbles.", hint="Close other programs, or choose a longer block.")

    def _publish(self, settled: bool) -> None:
        session, chain, source, sink = self._session, self._chain, self._input, self._outputs[0]
        assert source is not None
        times, settings = session.times, session._settings
        waiting = source.end.ring.available / source.sample_rate
        self._input_waiting += 0.05 * (1000 * waiting - self._input_waiting)
        level_ms = 1000 * max(0.0, sink.control.level_samples) / sink.sample_rate
        latency = LatencyParts(
            input_device=source.stream.input_latency_ms,
            input_buffer=source.gathering_ms + self._input_waiting,
            resampling=source.resampler.latency_ms + sink.latency_ms,
            algorithmic=1000 * chain.latency_samples / SAMPLE_RATE,
            computing=times.percentile_ms(50),
            output_buffer=level_ms,
            output_device=sink.stream.output_latency_ms,
        )
        auto = settings.transpose == "auto"
        f0_source, f0_converted = chain.stream.recent_f0
        paused_before = session._snapshot.counts
        self._session._snapshot = replace(
            session._snapshot,
            state=LiveState.LIVE if settled else LiveState.STARTING,
            message=self._message(times) if settled else "Opening the devices.",
            hint="",
            error=None,
            seconds=time.monotonic() - self._settled_s if settled else 0.0,
            block_ms=self._block_ms,
            input_peak_dbfs=to_dbfs(self._input_peak),
            output_peak_dbfs=to_dbfs(self._output_peak),
            gate_open=chain.gate.is_open,
            transpose_semitones=chain.transpose_semitones,
            transpose_settled=chain.auto_transpose.is_settled if auto else True,
            source_f0_hz=float(f0_source[-1]) if len(f0_source) else float("nan"),
            converted_f0_hz=float(f0_converted[-1]) if len(f0_converted) else float("nan"),
            latency=latency,
            counts=LiveCounts(
                blocks=self._blocks,
                input_overflows=source.end.overflows,
                output_underflows=sum(link.end.underflows for link in self._outputs),
                device_xruns=source.end.device_xruns + sum(link.end.device_xruns for link in self._outputs),
                dropped_blocks=-(-source.dropped_samples // source.block),
                trimmed_ms=1000 * sink.trimmed_samples / sink.sample_rate,
                device_losses=self.losses,
            )
            if settled
            else paused_before,
            rtf_median=times.percentile_ms(50) / self._block_ms,
            rtf_p99=times.percentile_ms(99) / self._block_ms,
            rtf_max=times.max_ms / self._block_ms,
            input_buffer_ms=1000 * waiting,
            output_buffer_ms=level_ms,
            drift_ppm=sink.control.ppm,
            recording_seconds=session._recorder.seconds if session._recorder else None,
        )
        self._input_peak = self._output_peak = 0.0

    def _message(self, times: BlockTimes) -> str:
        if times.count > 100 and times.percentile_ms(99) > self._block_ms:
            return "This machine is too slow for this block: choose a longer one."
        if times.count > 100 and times.percentile_ms(99) > NEARLY_TOO_SLOW_SHARE * self._block_ms:
            return "This machine is nearly too slow for this block."
        return ""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Quick switches between threads, and no long garbage collections, while live."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.unfreeze()
