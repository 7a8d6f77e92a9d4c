"""Letting the live threads run before others, where the system allows it."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

_REALTIME_PRIORITY = 5  # the lowest of all real-time ones that matter: above programs, below drivers and sound servers
_NICE = -11


# libpulse's and PipeWire's client threads carry the sound between a device's callback and the server.
_CLIENT_THREADS = ("threaded-ml", "pw-data-loop", "data-loop.0")


def client_threads() -> list[int]:
    """This process's threads that belong to a sound server's client library."""
    found = []
    for folder in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() in _CLIENT_THREADS:
                found.append(int(folder.name))
    return found


def raise_priority(thread_ids: Iterable[int]) -> str:
    """Ask for real-time scheduling of threads, or else for a higher share.

    Args:
        thread_ids: As `threading.get_native_id` tells them.

    Returns:
        "realtime", "high" or "normal": the least that any of them got. Linux grants real-time scheduling to members of
        the group that its limits name (often "audio" or "pipewire"); elsewhere PortAudio raises its own threads.
    """
    got = "realtime"
    for thread_id in thread_ids:
        if not sys.platform.startswith("linux"):
            return "normal"
        try:
            parameter = os.sched_param(_REALTIME_PRIORITY)
            os.sched_setscheduler(thread_id, os.SCHED_RR | os.SCHED_RESET_ON_FORK, parameter)
        except OSError:
            got = "high" if got == "realtime" else got
            try:
                os.setpriority(os.PRIO_PROCESS, thread_id, _NICE)
            except OSError:
                got = "normal"
    return got


def restore_priority(thread_id: int) -> None:
    """Give a thread back its ordinary place, as far as the system lets it."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread_id, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, thread_id, 0)


@contextlib.contextmanager
def hurried_thread() -> Iterator[None]:
    """The calling thread at a raised priority, as far as the system lets it."""
    thread_id = threading.get_native_id()
    raise_priority([thread_id])
    try:
        yield
    finally:
        restore_priority(thread_id)
