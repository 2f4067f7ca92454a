"""Objects and manifests that ask for more than anybody paid for."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta import manifest
from git_theta.checkpoint import chunk_encoder
from git_theta.checkpoint.chunk_decoder import Base, decode
from git_theta.checkpoint.chunk_encoder import encode
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.limits import RATIO, Allowance
from git_theta.checkpoint.smudge import smudge
from git_theta.codec import MAX_RAW, Frame, encode_frame
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.core.settings import Settings
from git_theta.encodings.factors import Matrix
from git_theta.encodings.low_rank import ENCODING as LOW_RANK
from git_theta.encodings.low_rank import encode_with_factors
from git_theta.errors import (
    CorruptObjectError,
    LimitError,
    ManifestError,
    MergeError,
    MissingObjectError,
)
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.merge.recipe import check_recipe
from git_theta.store import Index, ObjectStore
from tests.support import checkpoints

ZEROS = bytes(MAX_RAW)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[StorageContext]:
    with Index(tmp_path) as index:
        yield StorageContext(ObjectStore(tmp_path), index, Settings(threads=2))


def stored(storage: StorageContext, raw: bytes, base: str | None = None, **parts) -> Ref:
    """A frame of ``raw``, in full or as ``parts`` of another encoding."""
    encoded = parts.get("encoded") or Encoded(b"", (Part(1, raw),))
    number = parts.get("number", 0)
    return storage.store.write(
        encode_frame(Frame(number, "BF16", len(raw), content_hash(raw), base, encoded))
    )


def checkpoint(*chunks: Chunk) -> Manifest:
    size = sum(chunk.length for chunk in chunks)
    tensor = TensorEntry("w", "U8", (size,), 0, chunks)
    return Manifest("opaque", size, (), (tensor,))


def test_a_small_frame_that_is_named_often(storage):
    """Three frames of 150 bytes took 4.1 GB, a manifest of 2 KB wrote 3 GB to disk."""
    chunk = Chunk(MAX_RAW, content_hash(ZEROS), (stored(storage, ZEROS),))
    assert chunk.chain[0].length < 200
    bomb = checkpoint(*[chunk] * 48)
    began = time.monotonic()
    with pytest.raises(LimitError, match=r"theta\.expandLimit=2147483648") as caught:
        next(smudge(bomb, storage, "m"))
    assert time.monotonic() - began < 1
    assert caught.value.hint == ("if you trust this repository: git config theta.expandLimit 3g")


def test_what_is_within_the_limit_is_decoded(storage):
    chunk = Chunk(MAX_RAW, content_hash(ZEROS), (stored(storage, ZEROS),))
    pieces = smudge(checkpoint(chunk), storage)
    assert bytes(next(pieces)) == ZEROS


def test_a_command_has_one_allowance_for_all_its_files():
    ref = Ref("a" * 64, 100, 0, 100)
    one = checkpoint(Chunk(1 << 20, "b" * 64, (ref,)))
    allowance = Allowance()
    for _ in range(10):
        allowance.charge(one.chunks(), {ref.oid: 100}.get, limit=10 << 20)
    with pytest.raises(LimitError):  # the same object pays once
        allowance.charge(one.chunks(), {ref.oid: 100}.get, limit=10 << 20)


def test_what_is_refused_is_not_decoded_and_costs_the_next_nothing():
    ref = Ref("a" * 64, 100, 0, 100)
    bomb, honest = (checkpoint(Chunk(n, "b" * 64, (ref,))) for n in (8 << 20, 1 << 20))
    allowance = Allowance()
    with pytest.raises(LimitError, match="8,388,608"):
        allowance.charge(bomb.chunks(), {ref.oid: 100}.get, limit=1 << 20)
    allowance.charge(honest.chunks(), {ref.oid: 100}.get, limit=1 << 20)


def test_what_is_not_here_pays_for_nothing():
    ref = Ref("a" * 64, 1 << 40, 0, 1 << 40)
    one = checkpoint(Chunk(1 << 20, "b" * 64, (ref,)))
    with pytest.raises(MissingObjectError):
        Allowance().charge(one.chunks(), lambda oid: None, limit=0)
    with pytest.raises(LimitError):
        Allowance().charge(one.chunks(), lambda oid: 5, limit=0)


def test_models_pay_for_themselves():
    """Chains of 8, all bases a tenth of what they decode to, and a copy of the whole file."""
    refs = tuple(Ref(f"{n:064x}", 10_000, 0, 10_000) for n in range(8))
    one = checkpoint(*[Chunk(100_000, "b" * 64, refs)] * 2)
    Allowance().charge(one.chunks(), lambda oid: 10_000, limit=0)
    assert RATIO * 80_000 > 16 * 100_000


def test_a_long_base_of_a_short_chunk_is_accounted_for(storage):
    """A manifest says how long a chunk is, but not its bases."""
    below = stored(storage, ZEROS)
    base, raw = content_hash(ZEROS), b"\0"
    empty = Encoded(b"", (Part(1, b""), Part(1, b"")))
    ref = stored(storage, raw, base, encoded=empty, number=2)
    chunks = [Chunk(1, content_hash(raw), (ref, below))] * 200
    with pytest.raises(LimitError):
        list(smudge(checkpoint(*chunks), storage))


def low_rank(rank: int, rows: int, columns: int) -> Encoded:
    head = struct.pack("<BBBBHI", 0, 0, 1, 1, rank, columns)
    params = head + np.ones(rank, "<f8").tobytes()
    none = (Part(1, b""), Part(2, b""))
    return Encoded(params, (Part(1, bytes(rank * rows)), Part(1, bytes(rank * columns)), *none))


def test_ranks_too_large_for_the_stored_bytes(storage):
    """A frame of 65 KB with constant factors took 50 s for 16 MiB, in each of 64 links."""
    raw = bytes(16 << 20)
    below = stored(storage, raw)
    work = low_rank(2048, 2896, 2896)
    assert sum(part.nbytes for part in work.parts) < 2 * len(raw)
    ref = stored(storage, raw, content_hash(raw), encoded=work, number=3)
    assert ref.length < 20_000
    began = time.monotonic()
    with pytest.raises(CorruptObjectError, match="do not pay for the work"):
        decode(storage.store, Chunk(len(raw), content_hash(raw), (ref, below)))
    assert time.monotonic() - began < 3


def test_a_rank_is_not_larger_than_its_matrix():
    base = np.zeros(4 * 100, np.uint16).view(np.uint8)
    for rank, sound in ((4, True), (5, False)):
        encoded, geometry = low_rank(rank, 4, 100), Geometry(dtype("BF16"))
        if sound:
            assert LOW_RANK.decode(encoded, base, geometry, base.size).tobytes() == bytes(base)
        else:
            with pytest.raises(CorruptObjectError, match="rank is larger"):
                LOW_RANK.decode(encoded, base, geometry, base.size)


class Suggested:
    """Factors of ones: 512 of them cost 512 passes, and next to nothing to store."""

    encoding = "low-rank"

    def encode(self, raw, base, geometry):
        ones = Matrix("F32", np.full((512, 512), 0x3F800000, "<u4"))
        return encode_with_factors(raw, base, geometry, ones, ones, 1.0)


def test_what_a_reader_would_refuse_is_not_written(storage):
    base = np.zeros((512, 512), np.float32)
    new = np.full((512, 512), 512, np.float32).tobytes()
    geometry = Geometry(dtype("F32"), (512, 512))
    below = storage.store.write(
        encode_frame(
            Frame(
                0,
                "F32",
                base.nbytes,
                content_hash(base.tobytes()),
                None,
                Encoded(b"", (Part(4, base.tobytes()),)),
            )
        )
    )
    old = Base(content_hash(base.tobytes()), np.frombuffer(base.tobytes(), np.uint8), (below,))
    made = encode(new, content_hash(new), geometry, old, Suggested())
    ref = storage.store.write(made.frame)
    chunk = Chunk(len(new), content_hash(new), (ref, *made.base_chain))
    assert decode(storage.store, chunk).data.tobytes() == new


def test_factors_that_are_paid_for_are_taken(storage):
    """Random factors of rank 64, as an adapter has them, are stored as they are."""
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((64, 512)).astype(np.float32) for _ in range(2))
    raw = np.zeros((512, 512), np.uint16)
    factors = [Matrix("F32", each.view(np.uint32)) for each in (left, right)]
    geometry = Geometry(dtype("BF16"), raw.shape)
    encoded = encode_with_factors(
        raw.reshape(-1).view(np.uint8), raw.reshape(-1).view(np.uint8), geometry, *factors, 1.0
    )
    assert encoded is not None
    assert chunk_encoder._is_readable(LOW_RANK, encoded, raw.nbytes, 2 * left.nbytes)


def test_a_ref_of_a_frame_that_no_chunk_has(storage):
    ref = Ref("a" * 64, 1 << 40, 0, 1 << 40)
    with pytest.raises(CorruptObjectError, match="bytes at most"):
        decode(storage.store, Chunk(1, "b" * 64, (ref,)))


PEAK = """
import sys
from pathlib import Path
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.smudge import smudge
from git_theta.core.settings import Settings
from git_theta.errors import ThetaError
from git_theta.manifest import parse
from git_theta.store import Index, ObjectStore

root = Path(sys.argv[1])
with Index(root) as index:
    storage = StorageContext(ObjectStore(root), index, Settings(threads=2, expand_limit=1 << 40))
    try:
        for _ in smudge(parse(sys.stdin.buffer.read()), storage):
            pass
    except ThetaError as error:
        print(type(error).__name__)
words = Path("/proc/self/status").read_text()
print(words.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_largest_frames_take_less_than_a_gigabyte(storage, tmp_path: Path):
    """Words of 8 bytes, the most parts that are allowed, over a base as large, two at a time."""
    below = stored(storage, ZEROS)
    most = 2 * MAX_RAW
    parts = Encoded(b"", (Part(8, bytes(most)), Part(8, b"")))
    ref = stored(storage, ZEROS, content_hash(ZEROS), encoded=parts, number=2)
    chunks = [Chunk(MAX_RAW, content_hash(ZEROS), (below,))] * 6
    chunks += [Chunk(MAX_RAW, content_hash(ZEROS), (ref, below))] * 4
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)],
        input=manifest.dump(checkpoint(*chunks)),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    kind, peak = done.stdout.split()
    assert kind == b"CorruptObjectError"
    assert int(peak) < 1 << 20, f"{int(peak) >> 10} MiB"


def test_a_file_of_nearly_nothing_comes_back_when_the_user_says_so(model, theta):
    zeros = checkpoints.safetensors({"w": np.zeros((1 << 20,), np.float32)})
    model.git("config", "theta.expandLimit", "0")
    model.write("m.safetensors", zeros)
    done = model.process("add", "m.safetensors")
    assert done.returncode == 0
    assert b"needs more than theta.expandLimit=0" in done.stderr
    model.git("commit", "-q", "-m", "zeros")
    (model.path / "m.safetensors").unlink()
    done = model.process("checkout", "-f", "HEAD", "--", "m.safetensors")
    assert done.returncode != 0
    assert b"git config theta.expandLimit 1g" in done.stderr
    assert not (model.path / "m.safetensors").exists()
    model.git("-c", "theta.expandLimit=1g", "checkout", "-f", "HEAD", "--", "m.safetensors")
    assert model.read("m.safetensors") == zeros


@pytest.mark.parametrize("cloned", [True, False])
def test_a_file_of_nearly_nothing_is_not_in_the_way_of_others(cloned, model, tmp_path):
    zeros = checkpoints.safetensors({"w": np.zeros((1 << 22,), np.float32)})
    model.commit_files({"a.safetensors": zeros, "b.safetensors": checkpoints.safetensors()})
    model.git("config", "--global", "theta.expandLimit", "0")
    here = tmp_path / "clone" if cloned else model.path
    if cloned:
        done = model.process("clone", "-q", str(model.path), str(here))
    else:
        for name in ("a.safetensors", "b.safetensors"):
            (here / name).unlink()
        done = model.process("checkout", "-f", "HEAD")
    assert done.returncode != 0
    assert b"a.safetensors: it costs as much" in done.stderr
    assert (here / "b.safetensors").read_bytes() == checkpoints.safetensors()


@pytest.mark.parametrize(("levels", "sound"), [(64, True), (65, False), (900, False)])
def test_recipes_in_recipes(levels: int, sound: bool):
    chunk = Chunk(1, "a" * 64, (Ref("b" * 64, 9, 0, 9),))
    text = manifest.dump(checkpoint(chunk))
    first, second, rest = text.split(b"\n", 2)
    inner = b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)
    made = b"\n".join([first, second, b'{"recipe":' + inner + b"}", rest])
    if sound:
        assert manifest.dump(manifest.parse(made)) == made
    else:
        with pytest.raises(ManifestError, match="line 3"):
            manifest.parse(made)


def test_a_crowd_of_contributors_is_refused():
    """20,000 took 3.2 GB in a replay."""
    recipe: dict = {
        "path": "m",
        "include_one_sided": False,
        "fallback_to_base": False,
        "base": None,
        "rules": [],
        "contributors": [{"name": "a", "hash": "b"}] * 256,
    }
    check_recipe(recipe)
    recipe["contributors"] *= 100
    with pytest.raises(MergeError, match="25,600 contributors"):
        check_recipe(recipe)


def test_a_merge_of_nearly_nothing_is_refused_before_it_begins(model):
    def constant(value: float) -> bytes:
        return checkpoints.safetensors({"w": np.full((1 << 18,), value, np.float32)})

    model.commit_files({"m.safetensors": constant(0)}, "base")
    model.git("branch", "theirs")
    model.commit_files({"m.safetensors": constant(1)}, "ours")
    model.git("checkout", "-q", "theirs")
    model.commit_files({"m.safetensors": constant(2)}, "theirs")
    model.git("config", "theta.merge.strategy", "average")
    model.git("config", "theta.expandLimit", "0")
    done = model.process("merge", "main")
    assert done.returncode == 1
    assert b"theta.expandLimit=0 more" in done.stderr
    assert model.read("m.safetensors") == constant(2)
    model.git("config", "theta.expandLimit", "1g")
    model.git("merge", "--abort")
    model.git("merge", "-q", "main")
    assert model.read("m.safetensors") == constant(1.5)
