import json
import os
import struct
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine import models
from engine.errors import EngineBusyError, ModelError, OutOfMemoryError
from engine.jobs import JobContext
from engine.models import registry


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "embedded"
    monkeypatch.setattr(registry, "models_folder", lambda: folder)
    return folder


def weights():
    return {"layer.weight": torch.linspace(-1, 1, 12).reshape(3, 4), "steps": torch.tensor(7)}


def publish(folder, name="toy"):
    return models.publish_embedded(name, "separator", weights(), {"licence": "CC0-1.0", "rate": "44100"}, folder=folder)


def test_what_is_published_is_installed_and_loads(folder):
    info = publish(folder)
    assert models.installed_models() == [info]
    assert (info.licence, info.source, info.size) == ("CC0-1.0", "embedded", info.path.stat().st_size)
    tensors, metadata = models.load_tensors("toy")
    assert metadata["rate"] == "44100"
    assert tensors["layer.weight"].dtype == torch.float32  # stored in half precision, widened
    torch.testing.assert_close(tensors["layer.weight"], weights()["layer.weight"], atol=1e-3, rtol=0)
    assert int(tensors["steps"]) == 7


def test_publishing_again_replaces_the_entry_and_leaves_no_temporary_file(folder):
    publish(folder)
    publish(folder, "other")
    publish(folder)
    assert [info.name for info in models.installed_models()] == ["toy", "other"]
    assert sorted(path.name for path in folder.iterdir()) == ["models.json", "other.safetensors", "toy.safetensors"]


def test_values_beyond_half_precision_are_not_published(folder):
    with pytest.raises(ValueError, match="not finite"):
        models.publish_embedded("toy", "separator", {"w": torch.tensor([1e6])}, {}, folder=folder)
    assert models.installed_models() == []


def test_a_damaged_model_is_refused_with_a_way_to_repair_it(folder):
    path = publish(folder).path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="hash") as caught:
        models.load_tensors("toy")
    assert "Install AutoVoice again" in caught.value.hint


def test_a_missing_model_is_refused_with_a_way_to_repair_it(folder):
    publish(folder).path.unlink()
    assert models.installed_models()[0].size == 0
    with pytest.raises(ModelError, match="missing") as caught:
        models.load_tensors("toy")
    assert "Install AutoVoice again" in caught.value.hint
    with pytest.raises(ModelError, match="not installed"):
        models.load_tensors("nobody")


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"format": 1, "models": [{"name": 3}]}', '{"format": 2, "models": []}']
)
def test_a_damaged_index_is_told(folder, index):
    folder.mkdir()
    (folder / "models.json").write_text(index)
    with pytest.raises(ModelError) as caught:
        models.installed_models()
    assert caught.value.hint


def test_an_index_cannot_name_a_file_outside_its_folder(folder):
    folder.mkdir()
    entry = {"name": "x", "kind": "separator", "file": "../secret", "sha256": "0"}
    (folder / "models.json").write_text(json.dumps({"format": 1, "models": [entry]}))
    with pytest.raises(ModelError):
        models.installed_models()


def tensor_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "no JSON": (b"{not json", b""),
    "not a table": ([], b""),
    "deep": (b"[" * 100_000, b""),
    "not text": (b"\xff\xfe", b""),
    "unknown type": ({"w": entry("PICKLE")}, b"\0" * 8),
    "negative shape": ({"w": entry(shape=(-2, -1))}, b"\0" * 8),
    "shape of words": ({"w": entry(shape=("2",))}, b"\0" * 8),
    "huge shape": ({"w": entry(shape=(1 << 40, 1 << 40))}, b"\0" * 8),
    "size and shape disagree": ({"w": entry(shape=(3,))}, b"\0" * 8),
    "cut short": ({"w": entry()}, b"\0" * 4),
    "data behind the end": ({"w": entry()}, b"\0" * 12),
    "overlap": ({"v": entry(), "w": entry(offsets=(4, 12))}, b"\0" * 12),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "w": entry()}, b"\0" * 8),
    "no offsets": ({"w": {"dtype": "F32", "shape": [2]}}, b"\0" * 8),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    path = tensor_file(tmp_path / "x.safetensors", *HOSTILE[name])
    with pytest.raises(ModelError) as caught:
        models.read_tensors(path)
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"abc", struct.pack("<Q", 1 << 62), b"\x80\x04\x95" + b"\0" * 200])
def test_what_is_no_tensor_file_is_refused(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        models.check_safetensors(path)


def test_a_module_takes_only_what_fits_it():
    module = torch.nn.Linear(4, 3)
    good = {name: torch.ones_like(t) for name, t in module.state_dict().items()}
    models.fill_module(module, good, model_name="toy")
    assert bool((module.weight == 1).all())
    for bad in (
        {**good, "extra": torch.ones(1)},
        {"weight": good["weight"]},
        {**good, "bias": torch.ones(4)},
        {**good, "bias": torch.full((3,), torch.nan)},
    ):
        with pytest.raises(ModelError, match="toy"):
            models.fill_module(module, bad, model_name="toy")


def test_a_second_taker_of_the_lease_is_told_at_once():
    outcome = []

    def second():
        try:
            with models.lease():
                outcome.append("taken")
        except EngineBusyError as error:
            outcome.append(error.message)

    with models.lease(), models.lease():  # the holder may take it again
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert outcome == ["The models are in use by another job."]
    second()
    assert outcome[-1] == "taken"


def test_devices():
    assert models.pick_torch_device("cpu") == "cpu"
    assert models.pick_torch_device("auto") in ("cpu", "cuda", "mps")
    for wish in ("toaster", "cuda:99"):
        with pytest.raises(ModelError) as caught:
            models.pick_torch_device(wish)
        assert caught.value.hint


def test_memory_that_runs_out_leads_to_smaller_segments_then_to_the_cpu():
    tried = []

    def work(torch_device, segment_s):
        tried.append((torch_device, segment_s))
        if torch_device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if segment_s > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return "done"

    ctx = JobContext()
    assert models.run_with_fallback(work, torch_device="cuda", segments_s=[12.0, 4.0], ctx=ctx) == "done"
    assert tried == [("cuda", 12.0), ("cuda", 4.0), ("cpu", 12.0), ("cpu", 4.0)]
    assert "CPU" in " ".join(ctx.progress.notes)


def test_memory_that_never_suffices_is_told():
    def work(_device, _segment_s):
        raise MemoryError

    with pytest.raises(OutOfMemoryError) as caught:
        models.run_with_fallback(work, torch_device="cpu", segments_s=[2.0], ctx=None)
    assert caught.value.hint


def test_other_failures_are_not_taken_for_memory():
    def work(_device, _segment_s):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        models.run_with_fallback(work, torch_device="cuda", segments_s=[2.0], ctx=None)


def test_the_users_models_are_listed_behind_the_embedded_ones(folder):
    publish(folder)
    publish(models.user_models_folder(), "toy")
    publish(models.user_models_folder(), "mine")
    assert models.user_models_folder().is_relative_to(os.environ["AUTOVOICE_HOME"])
    assert [(info.name, info.source) for info in models.installed_models()] == [("toy", "embedded"), ("mine", "added")]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at the process's memory")
def test_tensors_that_were_read_do_not_hold_their_file(tmp_path):
    """On Windows a file that is mapped into memory can be neither replaced nor removed."""
    path = tmp_path / "kept.safetensors"
    whole = torch.ones(4096, dtype=torch.int64)
    save_file({"half": torch.ones(4096).half(), "full": torch.ones(4096), "whole": whole}, path)
    tensors, _ = models.read_tensors(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert all(bool((tensor == 1).all()) for tensor in tensors.values())
