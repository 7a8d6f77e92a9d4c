"""`autovoice bench`: measure the models and the program."""

import argparse
from pathlib import Path

from autovoice_app.cli import run_with_progress
from engine.bench import BENCHMARKS, load_benchmark, run_benchmark


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command with one sub-command per benchmark."""
    bench = subparsers.add_parser("bench", help="measure voices, presets, separation, start-up or live conversion")
    kinds = bench.add_subparsers(metavar="BENCHMARK", required=True)
    for name, (_module, text) in BENCHMARKS.items():
        parser = kinds.add_parser(name, help=text, description=text)
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report here")
        parser.add_argument("--quiet", action="store_true", help="show no progress")
        load_benchmark(name).add_arguments(parser)
        parser.set_defaults(run=run, benchmark=name)


def run(options: argparse.Namespace) -> None:
    """Run the benchmark that the options name and print its summary."""
    report = run_with_progress(lambda ctx: run_benchmark(options.benchmark, options, ctx), quiet=options.quiet)
    print(load_benchmark(options.benchmark).summarise(report["figures"]))
