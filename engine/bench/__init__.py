"""Benchmarks that measure the shipped models and the program, for `autovoice bench` and the tables in README.

A benchmark is a module of this package, named in `BENCHMARKS`, with

- `add_arguments(parser)`: its own options (`--json` is common to all);
- `run(options, ctx) -> dict`: does the work, returns figures that JSON can hold;
- `summarise(figures) -> str`: a few lines for the terminal;
- `table_rows(figures) -> [(what, value)]`: for the tables of README and the cards (see `tables`).

Modules must import fast: torch, judges and models are imported inside `run`.
"""

from engine.bench.frame import BENCHMARKS, Benchmark, load_benchmark, require_extra, run_benchmark

__all__ = ["BENCHMARKS", "Benchmark", "load_benchmark", "require_extra", "run_benchmark"]
