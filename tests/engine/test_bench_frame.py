"""The frame that all benchmarks share."""

import argparse
import json

import pytest

from engine.bench import BENCHMARKS, frame, load_benchmark, require_extra, run_benchmark
from engine.errors import AutoVoiceError
from engine.jobs import JobContext


class CountingBenchmark:
    def run(self, options, ctx):
        ctx.checkpoint("Counting", 0.5)
        return {"counted": options.up_to}


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setattr(frame, "load_benchmark", lambda name: CountingBenchmark())


def test_every_listed_benchmark_offers_the_front():
    for name in BENCHMARKS:
        module = load_benchmark(name)
        assert callable(module.add_arguments)
        assert callable(module.run)
        assert callable(module.summarise)


def test_report_names_the_machine_and_is_written(tmp_path, counting):
    path = tmp_path / "report.json"
    report = run_benchmark("counting", argparse.Namespace(json=path, up_to=7), JobContext())
    assert report["figures"] == {"counted": 7}
    assert json.loads(path.read_text(encoding="utf-8")) == report
    assert report["machine"]["cores"] >= 1
    assert list(tmp_path.iterdir()) == [path]


def test_report_into_a_missing_folder_is_told(tmp_path, counting):
    with pytest.raises(AutoVoiceError, match="could not be written"):
        run_benchmark("counting", argparse.Namespace(json=tmp_path / "none" / "r.json", up_to=1), JobContext())


def test_missing_extra_names_the_command_that_installs_it():
    with pytest.raises(AutoVoiceError, match="no_such_judge") as caught:
        require_extra("no_such_judge", purpose="nothing")
    assert "autovoice[bench]" in caught.value.hint
