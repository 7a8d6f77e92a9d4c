"""Makes hostile archives from a sound one and tries to import each; arguments: FOLDER COUNT SEED."""

import io
import json
import random
import re
import resource
import struct
import sys
import time
import zipfile
from pathlib import Path

from engine.errors import StoreError
from engine.store import Store, export_voice, import_voice
from tests.engine.store.helpers import add, freeze_models

ESCAPES = [
    "../../escaped.txt",
    "/tmp/autovoice-escaped.txt",
    "recordings/../../escaped.flac",
    "..\\..\\escaped.txt",
    "C:\\escaped.txt",
    "recordings/000-original.flac\x00.txt",
    "voice.pkl",
    "recordings/0x0-original.flac",
    "RECORDINGS/000-original.flac",
]


def main(folder, count, seed):
    rng = random.Random(seed)
    inside = folder / "data"
    store = Store(inside)
    sound = folder / "sound.autovoice"
    export_voice(store, add(store, "Sound", picture=b"\x89PNG\r\n\x1a\nx"), sound)
    base = sound.read_bytes()
    hostile = folder / "hostile.autovoice"
    kinds = [truncated, flipped, rehashed, escaping, bomb, giant_header, random_bytes, odd_manifest, odd_zip, bad_flac]
    imported, slowest, refused, unexplained = 0, 0.0, 0, 0
    for turn in range(count):
        kind = kinds[turn % len(kinds)]
        hostile.write_bytes(kind(base, rng))
        started = time.process_time()
        try:
            store.delete(import_voice(store, hostile))
            imported += 1
            assert kind is flipped, kind.__name__  # a flipped time stamp harms nobody
        except StoreError as error:
            refused += 1
            unexplained += not error.hint
        slowest = max(slowest, time.process_time() - started)
    outside = [str(path.relative_to(folder)) for path in folder.rglob("*") if inside not in path.parents]
    assert sorted(outside) == ["data", "hostile.autovoice", "sound.autovoice"], outside
    assert not list((inside / "files" / "incoming").iterdir())
    assert not unexplained
    assert store.load_voice(import_voice(store, sound)).name == "Sound 2"
    store.close()
    result = {"refused": refused, "imported": imported, "slowest_s": slowest, "megabytes": peak_megabytes()}
    sys.stdout.write(json.dumps(result) + "\n")


def contents(base):
    with zipfile.ZipFile(io.BytesIO(base)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(files, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, compression
            archive.writestr(info, data)
    return stream.getvalue()


def with_hashes(files):
    """The manifest made to agree with changed files, so that the checks behind the hashes are reached."""
    import hashlib

    manifest = json.loads(files["manifest.json"])
    rest = {name: data for name, data in files.items() if name != "manifest.json"}
    manifest["files"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in rest.items()
    }
    return {**rest, "manifest.json": json.dumps(manifest).encode()}


def truncated(base, rng):
    return base[: rng.randrange(len(base))]


def flipped(base, rng):
    data = bytearray(base)
    for _ in range(rng.choice([1, 1, 3, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def rehashed(base, rng):
    files = contents(base)
    name = rng.choice([name for name in files if name != "manifest.json"])
    data = bytearray(files[name])
    data[rng.randrange(len(data))] ^= 0xFF
    return pack({**files, name: bytes(data)})


def escaping(base, rng):
    files = contents(base)
    name = rng.choice(ESCAPES)
    files[name] = b"out"
    return pack(with_hashes(files))


def bomb(base, rng):
    files = contents(base)
    name = rng.choice(["manifest.json", "voice.safetensors", "recordings/000-processed.flac", "picture.png"])
    size = rng.choice([3 << 20, 40 << 20]) if rng.random() < 0.05 else 3 << 20
    files[name] = (b"fLaC" if name.endswith("flac") else b"") + bytes(size)
    data = bytearray(pack(files if name == "manifest.json" else with_hashes(files), zipfile.ZIP_DEFLATED))
    if rng.random() < 0.5:  # the directory says that it is small
        at = data.rfind(b"PK\x01\x02")
        data[at + 24 : at + 28] = struct.pack("<L", 100)
    return bytes(data)


def giant_header(base, rng):
    files = contents(base)
    data = bytearray(files["voice.safetensors"])
    size = int.from_bytes(data[:8], "little")
    what = rng.randrange(5)
    if what == 0:
        data[:8] = rng.choice([2**63, 2**40, len(data), 1 << 30]).to_bytes(8, "little")
    elif what == 1:
        data = bytearray(b"[" * 100_000)
        data[:0] = len(data).to_bytes(8, "little")
    else:
        header = json.loads(data[8 : 8 + size])
        entry = header["prints"]
        if what == 2:
            entry["shape"] = rng.choice([[2**62, 4], [-1, 3], [1.5], "no", [[]], [2] * 60])
        elif what == 3:
            entry["data_offsets"] = rng.choice([[0, 2**40], [10, 5], [-4, 4], ["0", 4], [0]])
        else:
            entry["dtype"] = rng.choice(["F8", "pickle", None, 7])
        text = json.dumps(header).encode()
        data = bytearray(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return pack(with_hashes({**files, "voice.safetensors": bytes(data)}))


def random_bytes(base, rng):
    data = rng.randbytes(rng.choice([0, 1, 30, 3000, 60_000]))
    return data if rng.random() < 0.5 else data + base[-22:]


def odd_manifest(base, rng):
    files = contents(base)
    manifest = json.loads(files["manifest.json"])
    what = rng.randrange(7)
    if what == 0:
        key = rng.choice(
            ["name", "consent", "created", "seconds", "quality", "colour", "files", "recordings", "format"]
        )
        manifest[key] = rng.choice([[], {"a": 1}, -1, True, "x" * 100_000])
        if key == "created":
            manifest["seconds"] = None
    elif what == 1:
        return pack({**files, "manifest.json": b"[" * 200_000 + b"]" * 200_000})
    elif what == 2:
        return pack({**files, "manifest.json": b'{"format": ' + b"9" * 10_000 + b"}"})
    elif what == 3:
        manifest["format"] = rng.choice([2, 0, -1, 1.5, "1", None])
    elif what == 4:
        manifest["seconds"] = rng.choice([float("nan"), float("inf"), -5, 1e300])
    elif what == 5:
        manifest["recordings"][0]["original"] = rng.choice(["../x", "manifest.json", "", 5, "/etc/passwd"])
    else:
        manifest["model_id"] = "another"
    return pack({**files, "manifest.json": json.dumps(manifest).encode()})


def odd_zip(base, rng):
    what = rng.randrange(6)
    data = bytearray(base)
    if what == 0:  # more entries than there are
        data[-14:-10] = struct.pack("<HH", 60_000, 60_000)
    elif what == 1:  # a directory of 4 GB
        data[-10:-6] = struct.pack("<L", 0xFFFFFFF0)
    elif what == 2:  # zip64's mark
        data[-22:-22] = b"PK\x06\x07" + rng.randbytes(16)
    elif what == 3:
        return pack(with_hashes({**contents(base), **{f"recordings/{n:03}-original.flac": b"" for n in range(500)}}))
    elif what == 4:  # the same entry twice
        stream = io.BytesIO(base)
        with zipfile.ZipFile(stream, "a") as archive:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                archive.writestr("manifest.json", b"{}")
        return stream.getvalue()
    else:  # encrypted, or compressed in another way
        at = data.find(b"PK\x01\x02")
        data[at + 8 : at + 12] = struct.pack("<HH", *rng.choice([(1, 0), (0, 12), (0, 99)]))
    return bytes(data)


def bad_flac(base, rng):
    files = contents(base)
    name = "recordings/000-processed.flac"
    data = bytearray(files[name])
    what = rng.randrange(3)
    if what == 0:
        data[18:26] = bytes([0x0A, 0xC4, 0x42, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])  # 2^36 samples
        del data[200:]
    elif what == 1:
        data[:4] = b"RIFF"
    else:
        del data[40:]
    return pack(with_hashes({**files, name: bytes(data)}))


def peak_megabytes():
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts into ru_maxrss what the parent held when it started this process
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    freeze_models()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
