"""Fill the tables of README and the model cards from reports: `python -m engine.bench.tables REPORT... --into FILE...`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; everything between is replaced. NAME is a benchmark's;
its module gives the rows by `table_rows(figures)`. `voice` has one column for each model. Tables without a report stay
as they are.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.bench.frame import BENCHMARKS, load_benchmark
from engine.errors import AutoVoiceError

_MARKERS = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MISSING = "–"
_INDEPENDENT = ("independent", "cosine_to_target")

Rows = Sequence[tuple[str, str]]


def voice_rows(figures: Mapping[str, Any]) -> Rows:
    """(what, value) of one voice report, in the order of the tables."""
    speech, sung = figures["speech"], figures["sung"]
    recordings, world = figures["recordings"], figures["world"]
    judge = figures["speaker_judges"]["independent"]
    speed = figures["speed"]
    return [
        ("Spoken conversions / sung conversions", f"{speech['clips']} / {sung['clips']}"),
        (
            "Closer to the target than to the source, independent judge",
            _of(speech, "independent", "closer_to_target_percent", unit=" %"),
        ),
        ("The same by GE2E", _of(speech, "ge2e", "closer_to_target_percent", unit=" %")),
        (
            f"Taken for the target and not for the source (judge's equal-error rate {judge['equal_error_percent']} %)",
            _of(speech, "independent", "accepted_and_source_rejected_percent", unit=" %"),
        ),
        ("Independent judge's cosine to the target, median (worst tenth)", _spread(_deep(speech, *_INDEPENDENT), 3)),
        ("GE2E cosine to the target, median (worst tenth)", _spread(speech["ge2e"]["cosine_to_target"], 3)),
        ("– untouched recordings of the target", _spread(recordings["ge2e"]["cosine_to_target"], 3)),
        ("– WORLD conversion", _spread(world["ge2e"]["cosine_to_target"], 3)),
        ("Word error added over the source, points", _words(speech)),
        ("DNSMOS overall, median (worst tenth)", _spread(speech["dnsmos"], 2)),
        ("– untouched recordings", _spread(recordings["dnsmos"], 2)),
        ("– WORLD conversion", _spread(world["dnsmos"], 2)),
        ("F0 RMSE against the wanted contour, Hz", _spread(speech.get("f0_rmse_hz"), 1)),
        ("F0 RMSE against the wanted contour, cents", _spread(speech.get("f0_rmse_cents"), 0)),
        ("Voicing errors against the source, %", _spread(speech["voicing_errors_percent"], 1)),
        ("– WORLD conversion", _spread(world["voicing_errors_percent"], 1)),
        ("Sung: F0 correlation", _spread(sung.get("f0_correlation"), 3)),
        ("Sung: F0 RMSE, cents", _spread(sung.get("f0_rmse_cents"), 0)),
        ("Sung: voicing errors, %", _spread(sung.get("voicing_errors_percent"), 1)),
        (
            "Sung: closer to the target, independent judge",
            _of(sung, "independent", "closer_to_target_percent", unit=" %"),
        ),
        ("Sung: closer to the target, GE2E", _of(sung, "ge2e", "closer_to_target_percent", unit=" %")),
        ("Sung: GE2E cosine to the target", _spread(_deep(sung, "ge2e", "cosine_to_target"), 3)),
        (
            "Sung: DNSMOS (the recordings themselves)",
            f"{_median(sung.get('dnsmos'), 2)} ({_median(figures['sung_recordings'].get('dnsmos'), 2)})",
        ),
        ("Energy above 8 kHz against vctk recordings, dB", _high_band(figures)),
        ("Enrolling 45 s, s", f"{figures['enrolment_s']:.1f}"),
        (
            "Real-time factor: wall clock / processor (threads)",
            f"{speed['rtf_wall']:.3f} / {speed['rtf_cpu']:.3f} ({speed['threads']})" + _load(speed),
        ),
        ("Algorithmic latency, ms", f"{speed['latency_ms']:.1f}" if "latency_ms" in speed else _MISSING),
    ]


def voice_table(reports: Sequence[Mapping[str, Any]]) -> str | None:
    """A Markdown table with one column for each model; None without a report of a voice benchmark."""
    voices = {_column(r["figures"]): r["figures"] for r in reports if r["benchmark"] == "voice"}
    if not voices:
        return None
    models = sorted(voices, key=lambda name: ("studio" not in name, name))
    columns = [voice_rows(voices[model]) for model in models]
    lines = ["| | " + " | ".join(models) + " |", "| --- |" + " --- |" * len(models)]
    for row, (label, _value) in enumerate(columns[0]):
        lines.append(f"| {label} | " + " | ".join(column[row][1] for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _column(figures: Mapping[str, Any]) -> str:
    return str(figures["model"]) + (", voices improved" if figures.get("improved") else "")


def table(name: str, reports: Sequence[Mapping[str, Any]]) -> str | None:
    """The Markdown table of a benchmark; None without a report of it.

    Raises:
        AutoVoiceError: There is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise AutoVoiceError(f"There is no table '{name}'.", hint=f"Known: {', '.join(BENCHMARKS)}.")
    if name == "voice":
        return voice_table(reports)
    latest = [report["figures"] for report in reports if report["benchmark"] == name][-1:]
    if not latest:
        return None
    rows: Rows = load_benchmark(name).table_rows(latest[0])
    return "".join(f"| {label} | {value} |\n" for label, value in [("", "measured"), ("---", "---"), *rows])


def fill(text: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """A document with its tables made anew.

    Raises:
        AutoVoiceError: The document names an unknown table, or none that these reports fill.
    """
    filled = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal filled
        made = table(match.group(2), reports)
        filled += made is not None
        return match.group(0) if made is None else match.group(1) + made + match.group(3)

    result = _MARKERS.sub(replace, text)
    if not filled:
        raise AutoVoiceError(
            "The document has no table for these reports.", hint="Add <!-- table: voice --> and its end."
        )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill documents; 0 when all went well."""
    parser = argparse.ArgumentParser(description="Fill tables of documents from benchmark reports.")
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    parser.add_argument("--into", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a table is out of date")
    options = parser.parse_args(arguments)
    try:
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in options.reports]
        stale = [path for path in options.into if not _fill_file(path, reports, check=options.check)]
    except AutoVoiceError as error:
        sys.stderr.write(f"{error.message} {error.hint}\n")
        return 1
    for path in stale:
        sys.stderr.write(f"{path}: its tables are out of date\n")
    return 1 if stale else 0


def _fill_file(path: Path, reports: Sequence[Mapping[str, Any]], *, check: bool) -> bool:
    text = path.read_text(encoding="utf-8")
    filled = fill(text, reports)
    if check or filled == text:
        return filled == text
    part = path.with_name(path.name + ".part")
    part.write_text(filled, encoding="utf-8")
    os.replace(part, path)
    return True


def _deep(values: Mapping[str, Any], *keys: str) -> Any:
    found: Any = values
    for key in keys:
        if found is None:
            return None
        found = found.get(key)
    return found


def _of(values: Mapping[str, Any], *keys: str, unit: str = "") -> str:
    value = _deep(values, *keys)
    return _MISSING if value is None else f"{value:g}{unit}"


def _median(values: Mapping[str, float] | None, digits: int) -> str:
    return _MISSING if values is None else f"{values['median']:.{digits}f}"


def _spread(values: Mapping[str, float] | None, digits: int) -> str:
    return _MISSING if values is None else f"{values['median']:.{digits}f} ({values['worst_tenth']:.{digits}f})"


def _load(speed: Mapping[str, Any]) -> str:
    """A word of warning where other programs kept the machine busy during the timing."""
    load = speed.get("load")
    return f", machine busy: load {load:.0f}" if load is not None and load > 1.5 else ""


def _words(group: Mapping[str, Any]) -> str:
    words = group.get("words")
    if not words:
        return _MISSING
    return f"{words['added_points']:+.1f} ({words['converted_percent']:.0f} % against {words['source_percent']:.0f} %)"


def _high_band(figures: Mapping[str, Any]) -> str:
    level, reference = _deep(figures["speech"], "high_band_db", "median"), figures.get("vctk_high_band_db")
    return _MISSING if level is None or reference is None else f"{level - reference:+.1f}"


if __name__ == "__main__":
    sys.exit(main())
