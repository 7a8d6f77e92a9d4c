"""What benchmarks share: their list, the machine they ran on, the packages they need, the JSON they write."""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from engine.errors import AutoVoiceError
from engine.jobs import JobContext

# Name on the command line -> (module of this package, one line for --help).
BENCHMARKS: Mapping[str, tuple[str, str]] = {
    "separation": ("separation", "vocals and accompaniment of songs whose stems are known, beside simple references"),
    "voice": ("voice", "likeness, words, naturalness and pitch of conversions between unseen speakers, and speed"),
    "presets": ("presets", "what each preset costs and gives, on one song"),
    "startup": ("startup", "how long until the window is up"),
    "memory": ("memory", "the memory that converting a very long song takes"),
    "live": ("live", "live conversion block by block, without devices"),
    "soak": ("soak", "half an hour of live conversion on a private sound server, beside a plain passthrough"),
}

REPORT_FORMAT = 1


class Benchmark(Protocol):
    """The front that each benchmark's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add this benchmark's own options."""

    def run(self, options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
        """Measure, and return figures that JSON can hold."""

    def summarise(self, figures: Mapping[str, Any]) -> str:
        """A few lines for the terminal."""

    def table_rows(self, figures: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """(what, value with its unit) for the tables of README and cards, made by `engine.bench.tables`."""


class MissingExtraError(AutoVoiceError):
    """A package that only benchmarks need is not installed."""


def load_benchmark(name: str) -> Benchmark:
    """Import one benchmark of `BENCHMARKS`."""
    return cast(Benchmark, importlib.import_module(f"{__package__}.{BENCHMARKS[name][0]}"))


def require_extra(package: str, *, purpose: str, extra: str = "bench") -> ModuleType:
    """Import a package of an optional extra.

    Args:
        package: Name to import, such as "pyworld".
        purpose: What it measures, for the message.
        extra: Which extra of the project brings it.

    Raises:
        MissingExtraError: It is not installed; the hint names the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise missing_extra(package, purpose=purpose, extra=extra) from error


def missing_extra(package: str, *, purpose: str, extra: str = "bench") -> MissingExtraError:
    """The failure that names a missing package, what it is for and the command that installs it."""
    return MissingExtraError(
        f"The Python package '{package}' is missing; it is needed for {purpose}.",
        hint=f"Install the optional packages with: pip install 'autovoice[{extra}]'",
    )


def run_benchmark(name: str, options: argparse.Namespace, ctx: JobContext) -> dict[str, Any]:
    """Run one benchmark and write its report where `options.json` says.

    Returns:
        The report: format, benchmark, date, seconds, machine, options and figures.
    """
    started = time.monotonic()
    figures = load_benchmark(name).run(options, ctx)
    report = {
        "format": REPORT_FORMAT,
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "machine": describe_machine(),
        "figures": figures,
    }
    if options.json is not None:
        write_report(options.json, report)
    return report


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report as JSON; a failure leaves an older file as it was.

    Raises:
        AutoVoiceError: The folder does not exist or cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AutoVoiceError(
            f"The report could not be written to {path}.", hint=error.strerror or "Choose another folder."
        ) from error


def describe_machine() -> dict[str, Any]:
    """Processor, cores, system and versions that timings depend on."""
    versions = {}
    for package in ("torch", "numpy", "onnxruntime"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
