"""The manifest's bytes, frozen: a change here is a new version of the format."""

from __future__ import annotations

import struct

from blake3 import blake3

from git_theta import manifest
from git_theta.core.hashes import Ref
from git_theta.core.layout import Alias
from git_theta.manifest import Chunk, Manifest, TensorEntry

SKELETON, FIRST, SECOND = (digit * 64 for digit in "012")
FILE = "57a57c52efdfb422fa1fc79018f0688f38b8c60518e195a212b9139e67b41904"
NOTHING = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
PACK, LARGE, BASE = ("ab" * 32, "cd" * 32, "ef" * 32)
NAME = 'emb\u00e9dding."weight"'

MANIFEST = Manifest(
    format="torch",
    size=134217760,
    skeleton=(Chunk(20, SKELETON, (Ref(PACK, 300, 0, 120),)),),
    tensors=(
        TensorEntry(
            name=NAME,
            dtype="BF16",
            shape=(2, 33554432),
            gap=16,
            chunks=(
                Chunk(67108864, FIRST, (Ref(LARGE, 700, 0, 700), Ref(BASE, 50000000, 0, 50000000))),
                Chunk(67108864, SECOND, (Ref(BASE, 50000000, 100, 2000),)),
            ),
        ),
        TensorEntry(
            name="bias",
            dtype="F32",
            shape=(),
            gap=0,
            chunks=(Chunk(12, FIRST, (Ref(PACK, 300, 120, 180),)),),
            offset=1,
            strides=(),
        ),
        TensorEntry(name="empty", dtype="I64", shape=(0, 4), gap=0, chunks=()),
    ),
    aliases=(
        Alias("lm_head", "BF16", (33554432, 2), NAME, 0, (1, -33554432)),
        Alias("tied", "F32", (), "bias"),
    ),
    recipe={"strategy": "ties", "parameters": {"lambda": 1.0, "density": 0.2}, "parents": ["x"]},
)

ABOUT = (
    "This stands for a model checkpoint that git-theta stores. To get the file: "
    "pip install theta-vcs; git theta install; git theta checkout"
)
TEXT = (
    '{"git-theta":1,"about":"'
    + ABOUT
    + '","format":"torch","size":134217760,"hash":"'
    + FILE
    + '"}\n'
    '{"skeleton":[[20,"' + SKELETON + '",["' + PACK + '",300,0,120]]]}\n'
    '{"recipe":{"parameters":{"density":0.2,"lambda":1.0},"parents":["x"],"strategy":"ties"}}\n'
    '{"name":"emb\\u00e9dding.\\"weight\\"","dtype":"BF16","shape":[2,33554432],"gap":16,'
    '"chunks":[[67108864,"' + FIRST + '",["' + LARGE + '",700],["' + BASE + '",50000000]],'
    '[67108864,"' + SECOND + '",["' + BASE + '",50000000,100,2000]]]}\n'
    '{"name":"bias","dtype":"F32","shape":[],"offset":1,"strides":[],'
    '"chunks":[[12,"' + FIRST + '",["' + PACK + '",300,120,180]]]}\n'
    '{"name":"empty","dtype":"I64","shape":[0,4],"chunks":[]}\n'
    '{"name":"lm_head","dtype":"BF16","shape":[33554432,2],"of":"emb\\u00e9dding.\\"weight\\"",'
    '"strides":[1,-33554432]}\n'
    '{"name":"tied","dtype":"F32","shape":[],"of":"bias"}\n'
).encode("ascii")


def test_writes_these_bytes() -> None:
    assert manifest.dump(MANIFEST) == TEXT


def test_reads_these_bytes() -> None:
    assert manifest.parse(TEXT) == MANIFEST


def test_the_identity_is_what_the_specification_says() -> None:
    # Gap and number of chunks of each tensor, its chunks' hashes; then the skeleton's.
    listed = struct.pack("<QQ", 16, 2) + bytes.fromhex(FIRST + SECOND)
    listed += struct.pack("<QQ", 0, 1) + bytes.fromhex(FIRST)
    listed += struct.pack("<QQ", 0, 0)
    assert blake3(listed + bytes.fromhex(SKELETON)).hexdigest() == FILE


def test_magic() -> None:
    assert manifest.MAGIC == b'{"git-theta":1,'
    assert TEXT.startswith(manifest.MAGIC)
    assert not manifest.is_manifest(b"version https://git-lfs.github.com/spec/v1\n")


def test_the_smallest_manifest() -> None:
    empty = Manifest("opaque", 0, (), ())
    head = f'{{"git-theta":1,"about":"{ABOUT}","format":"opaque","size":0,"hash":"{NOTHING}"}}'
    text = f'{head}\n{{"skeleton":[]}}\n'
    assert manifest.dump(empty) == text.encode()
    assert manifest.parse(text.encode()) == empty
