"""Where models run: the torch device, the lease that keeps two jobs apart, and what to do when memory runs out."""

import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from engine.errors import EngineBusyError, ModelError, OutOfMemoryError
from engine.jobs import JobContext

log = logging.getLogger(__name__)

TORCH_DEVICES = ("auto", "cpu", "cuda", "mps")

Result = TypeVar("Result")

_lease = threading.RLock()


def pick_torch_device(wish: str = "auto") -> str:
    """The torch device to compute on.

    Args:
        wish: "auto" for the fastest that this machine has, or "cpu", "cuda" (also "cuda:1"), "mps".

    Returns:
        A name that torch understands.

    Raises:
        ModelError: This machine has no such device.
    """
    import torch

    has_mps = torch.backends.mps.is_available()
    if wish == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    kind, _, number = wish.partition(":")
    is_there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": has_mps}
    if kind not in is_there:
        raise ModelError(f"'{wish}' is not a device.", hint=f"Choose one of {', '.join(TORCH_DEVICES)}.")
    if not is_there[kind] or (number and (not number.isdigit() or int(number) >= torch.cuda.device_count())):
        raise ModelError(f"This computer has no '{wish}' that PyTorch can use.", hint="Choose auto or cpu.")
    return wish


def describe_torch() -> dict[str, Any]:
    """What PyTorch can compute on here, JSON values: version, the device that "auto" means, threads, graphics cards."""
    import torch

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "version": torch.__version__,
        "device": pick_torch_device(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "mps": torch.backends.mps.is_available(),
    }


@contextmanager
def lease() -> Iterator[None]:
    """Hold the models for one job; the thread that holds them may take the lease again.

    Raises:
        EngineBusyError: Another thread holds them; at once, without waiting.
    """
    if not _lease.acquire(blocking=False):
        raise EngineBusyError("The models are in use by another job.", hint="Wait until it is done, or stop it.")
    try:
        yield
    finally:
        _lease.release()


@contextmanager
def lease_when_free(ctx: JobContext) -> Iterator[None]:
    """Hold the models for one job, after waiting until they are free.

    Args:
        ctx: Says that the job waits, and can be cancelled meanwhile.

    Raises:
        Cancelled: Through `ctx`.
    """
    while not _lease.acquire(timeout=0.1):
        ctx.note("It waited until live conversion had ended.")
        ctx.checkpoint("Waiting until live conversion ends", 0.0)
    try:
        yield
    finally:
        _lease.release()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute with one thread: for short work in real time, which would wait for helpers longer than it runs.

    The number is the process's, for threads that begin to use torch from now on, so hold the lease meanwhile. Where
    torch is not loaded there is nothing to do.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure of torch means that memory ran out.

    CUDA has an exception of its own; the CPU's allocator, MPS and cuDNN raise a plain RuntimeError, which only its
    text tells apart.
    """
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "can't allocate memory", "status_alloc_failed")
    )


class MemoryLadder:
    """Tries work with less and less memory: smaller segments on the device, then the same on the CPU.

    A job of many steps keeps one ladder, so that what did not fit once is not tried again at every step.
    """

    def __init__(self, torch_device: str, segments_s: Sequence[float], ctx: JobContext | None = None) -> None:
        if not segments_s:
            raise ValueError("segments_s must name at least one length")
        self._rungs = [(torch_device, segment_s) for segment_s in segments_s]
        if torch_device != "cpu":
            self._rungs += [("cpu", segment_s) for segment_s in segments_s]
        self._ctx = ctx

    @property
    def torch_device(self) -> str:
        """The device in use now."""
        return self._rungs[0][0]

    @property
    def segment_s(self) -> float:
        """The segment length in use now, s."""
        return self._rungs[0][1]

    def run(self, work: Callable[[str, float], Result]) -> Result:
        """Call `work(torch_device, segment_s)`, climbing down while memory runs out.

        Raises:
            OutOfMemoryError: It does not fit even with the smallest segments on the CPU.
        """
        while True:
            torch_device, segment_s = self._rungs[0]
            try:
                return work(torch_device, segment_s)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(self._rungs) == 1:
                    raise OutOfMemoryError(
                        "Memory ran out.", hint="Close other programs, or choose the CPU or a faster preset."
                    ) from error
                log.warning("out of memory on %s with segments of %g s", torch_device, segment_s)
            self._climb_down()

    def _climb_down(self) -> None:
        before, _ = self._rungs.pop(0)
        torch_device, segment_s = self._rungs[0]
        gc.collect()
        if before.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()
        if self._ctx is not None:
            if torch_device == before:
                self._ctx.note(f"Memory ran out, so the work goes on in segments of {segment_s:g} s.")
            else:
                self._ctx.note(f"Memory of '{before}' ran out, so the work goes on on the CPU.")


def run_with_fallback(
    work: Callable[[str, float], Result], *, torch_device: str, segments_s: Sequence[float], ctx: JobContext | None
) -> Result:
    """Run `work(torch_device, segment_s)` once, with smaller segments and then on the CPU when memory runs out.

    Args:
        work: Does the whole job with segments of that length; called again from the start after a failure.
        torch_device: Where to begin; see `pick_torch_device`.
        segments_s: Lengths to try, s, longest first.
        ctx: Is told of each fall-back by a note.

    Returns:
        What the work returned.

    Raises:
        OutOfMemoryError: Nothing fits.
    """
    return MemoryLadder(torch_device, segments_s, ctx).run(work)
