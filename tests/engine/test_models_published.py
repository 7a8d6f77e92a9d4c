import hashlib
import os
import pickle
import threading
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from engine import models
from engine.errors import Cancelled, ModelError
from engine.jobs import JobContext
from engine.models import published
from engine.separation import load_separator, separate
from engine.signal import read_audio
from tests.engine.test_separation import song, tiny_model

SOURCES = ["drums", "bass", "other", "vocals"]


def checkpoint(path, *, kind="HTDemucs", **extra):
    """A file of the form that Demucs publishes, with a small untrained network."""
    torch.manual_seed(2)
    if kind == "HTDemucs":
        keywords = {"channels": 8, "dconv_comp": 4, "t_layers": 1, "t_heads": 2, "bottom_channels": 0,
                    "nfft": 4096, "depth": 4, "segment": Fraction(39, 5), "t_hidden_scale": 1.0}  # fmt: skip
        network = HTDemucs(SOURCES, **keywords)
    else:
        keywords = {"channels": 8, "segment": 6}
        network = HDemucs(SOURCES, **keywords)
    package = {
        "klass": type(network),
        "args": (SOURCES,),
        "kwargs": keywords,
        "state": {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()},
        "training_args": {"lr": 1e-4, "dset": {"name": "musdb"}},
        **extra,
    }
    torch.save(package, path)
    return path


class _Server(BaseHTTPRequestHandler):
    """Serves one file; may break off after some bytes, or not understand ranges."""

    def do_GET(self):
        server = self.server
        start = 0
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if wanted and server.knows_ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.data) - start))
        self.end_headers()
        stop = start + server.breaks_after if server.breaks_after else None
        try:
            for at in range(start, len(server.data) if stop is None else stop, 4096):
                self.wfile.write(server.data[at : min(at + 4096, stop or len(server.data))])
        except ConnectionError:
            pass  # the client stopped

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A published model on 127.0.0.1, in place of the real htdemucs."""
    data = checkpoint(tmp_path / "955717e8.th").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.data, server.knows_ranges, server.breaks_after, server.asked = data, True, 0, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    entry = replace(
        models.PUBLISHED["htdemucs"],
        url=f"http://127.0.0.1:{server.server_port}/955717e8.th",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    monkeypatch.setitem(published.PUBLISHED, "htdemucs", entry)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def part_file():
    return models.user_models_folder() / "htdemucs.download.part"


def test_a_published_model_is_downloaded_installed_and_separates(server, tmp_path):
    info = models.download_model("htdemucs")
    assert (info.source, info.licence, info.kind) == ("downloaded", "MIT", "separator")
    assert info.path.suffix == ".safetensors"
    assert info in models.installed_models()
    assert not part_file().exists()
    separator = load_separator("htdemucs")
    assert isinstance(separator.module, HTDemucs)
    assert separator.vocals_index == 3
    clip, _ = song(1.5)
    stems = separate(clip, tmp_path / "out", model="htdemucs", torch_device="cpu")
    assert stems.model_ids == {"htdemucs": info.sha256}
    assert np.array_equal(read_audio(stems.vocals).samples + read_audio(stems.accompaniment).samples, clip.samples)
    models.remove_model("htdemucs")
    assert not info.path.exists()
    with pytest.raises(ModelError):
        load_separator("htdemucs")


def test_an_interrupted_download_goes_on_where_it_stopped(server):
    server.breaks_after = 50_000
    with pytest.raises(ModelError) as caught:
        models.download_model("htdemucs")
    assert "goes on where it stopped" in caught.value.hint
    assert part_file().stat().st_size == 50_000
    server.breaks_after = 0
    models.download_model("htdemucs")
    assert server.asked == [None, "bytes=50000-"]


def test_a_cancelled_download_keeps_what_it_has(server):
    class Stops(JobContext):
        def checkpoint(self, stage, fraction):
            if fraction > 0.3:
                self.cancel()
            super().checkpoint(stage, fraction)

    with pytest.raises(Cancelled):
        models.download_model("htdemucs", Stops())
    assert 0 < part_file().stat().st_size < len(server.data)
    assert models.download_model("htdemucs").name == "htdemucs"
    assert server.asked[1].startswith("bytes=")


def test_a_server_that_knows_no_ranges_sends_the_whole_file_again(server):
    server.breaks_after = 10_000
    with pytest.raises(ModelError):
        models.download_model("htdemucs")
    server.breaks_after, server.knows_ranges = 0, False
    assert models.download_model("htdemucs").size > 0


def test_another_file_than_the_published_one_is_refused(server):
    server.data = bytes(len(server.data))
    with pytest.raises(ModelError, match="hash") as caught:
        models.download_model("htdemucs")
    assert "models add" in caught.value.hint
    assert not part_file().exists()
    assert "htdemucs" not in {info.name for info in models.installed_models()}
    server.data = bytes(3 * len(server.data))
    with pytest.raises(ModelError):
        models.download_model("htdemucs")


def test_without_a_network_the_way_by_file_is_told(monkeypatch):
    entry = replace(models.PUBLISHED["htdemucs"], url="http://127.0.0.1:9/none.th")
    monkeypatch.setitem(published.PUBLISHED, "htdemucs", entry)
    with pytest.raises(ModelError, match="could not be downloaded") as caught:
        models.download_model("htdemucs")
    assert "models add FILE" in caught.value.hint
    with pytest.raises(ModelError):
        models.download_model("nobody")


def test_a_published_file_may_come_by_hand(server, tmp_path):
    info = models.add_model(tmp_path / "955717e8.th")
    assert (info.name, info.licence, info.source) == ("htdemucs", "MIT", "added")


def test_files_are_added_under_their_own_name(tmp_path):
    added = models.add_model(tiny_model(tmp_path, "my model"))
    assert (added.name, added.source) == ("my-model", "added")
    assert load_separator("my-model").vocals_index is None
    other = models.add_model(checkpoint(tmp_path / "hybrid.th", kind="HDemucs"))
    assert isinstance(load_separator(other.name).module, HDemucs)
    clash = models.add_model(tiny_model(tmp_path, "separator"))
    assert clash.name == "separator-added"  # the embedded one stays what it is
    with pytest.raises(ModelError, match="part of AutoVoice"):
        models.remove_model("separator")


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("/tmp/autovoice-was-attacked",)


@pytest.mark.parametrize(
    "hostile",
    [
        lambda path: path.write_bytes(pickle.dumps(_Runs(), protocol=2)),
        lambda path: torch.save({"klass": HTDemucs, "args": (), "kwargs": {"sources": _Runs()}, "state": {}}, path),
        lambda path: torch.save({"klass": torch.nn.Linear, "args": (), "kwargs": {}, "state": {}}, path),
        lambda path: torch.save([1, 2, 3], path),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(300)),
        lambda path: checkpoint(path, state={"a": torch.full((2,), torch.nan)}),
    ],
)
def test_hostile_checkpoints_are_refused_and_run_nothing(tmp_path, hostile):
    path = tmp_path / "x.th"
    hostile(path)
    with pytest.raises(ModelError) as caught:
        models.add_model(path)
    assert caught.value.hint
    assert not os.path.exists("/tmp/autovoice-was-attacked")
    assert "x" not in {info.name for info in models.installed_models()}


def test_checkpoints_that_fit_no_network_are_refused(tmp_path):
    path = checkpoint(tmp_path / "x.th", kwargs={"channels": 8})
    with pytest.raises(ModelError, match="does not fit"):
        load_separator(str(path))
    deaf = checkpoint(tmp_path / "y.th", args=(["drums", "bass"],))
    with pytest.raises(ModelError):
        load_separator(str(deaf))


def test_a_missing_file_is_told(tmp_path):
    for name in ("none.th", "none.safetensors"):
        with pytest.raises(ModelError, match="does not exist"):
            models.add_model(tmp_path / name)
