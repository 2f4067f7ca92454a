"""Which model a file of statistics says that it is of."""

from __future__ import annotations

import json

import pytest

from git_theta.checkpoint.model_hash import model_hash
from git_theta.merge.planning.staleness import model_of
from tests.support.manifests import manifest, tensor


def file(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def test_the_hash_in_the_metadata():
    header = json.dumps({"__metadata__": {"model": "ab"}, "w": {}}).encode()
    assert model_of(file(header)) == "ab"


@pytest.mark.parametrize(
    "header", [b"", b"{}", b"[]", b'{"__metadata__":{}}', b'{"__metadata__":{"model":1}}', b"\xff"]
)
def test_files_that_tell_none(header):
    assert model_of(file(header)) is None
    assert model_of(header) is None


def test_the_hash_is_that_of_tensors_in_any_order():
    one, two = tensor("a", "x"), tensor("b", "y")
    found = model_hash(manifest(one, two))
    assert found == model_hash(manifest(two, one))
    others = [manifest(one), manifest(one, tensor("b", "z")), manifest(one, tensor("c", "y"))]
    assert found not in map(model_hash, others)


def test_chunks_of_another_size_tell_nothing():
    assert model_hash(manifest(tensor("a", "x", cut=(12, 12)))) is None
