from __future__ import annotations

import json

import pytest

from git_theta.core.models import in_one_file, models, same_cut


@pytest.mark.parametrize(
    ("path", "cut", "model"),
    [
        ("model-00001-of-00003.safetensors", "model-of-00003.safetensors", "model.safetensors"),
        ("a/b/m-00002-of-00003.bin", "a/b/m-of-00003.bin", "a/b/m.bin"),
        ("model.safetensors", None, "model.safetensors"),
        ("m-00001-of-00003.fisher.safetensors", None, "m-00001-of-00003.fisher.safetensors"),
        ("model-of-3.pt", None, "model-of-3.pt"),
        ("model-00001-of-00001.safetensors", None, "model.safetensors"),
    ],
)
def test_files_of_one_model_by_their_names(path, cut, model):
    assert (same_cut(path), in_one_file(path)) == (cut, model)


def test_an_index_says_which_files_a_model_has():
    weight_map = {"weight_map": {"w": "first.bin", "b": "second.bin", "x": "gone.bin"}}
    files = {
        "a/first.bin": b"",
        "a/second.bin": b"",
        "a/model-1-of-2.bin": b"",
        "a/model.bin.index.json": json.dumps(weight_map).encode(),
        "other-1-of-2.bin": b"",
        "other-2-of-2.bin": b"",
    }
    found = models(files, files.get)
    assert found["a/model.bin"] == ["a/first.bin", "a/second.bin"], "one file is left over"
    assert found["other.bin"] == ["other-1-of-2.bin", "other-2-of-2.bin"]
    assert not any("a/model-1-of-2.bin" in each for each in found.values())


@pytest.mark.parametrize(
    "text",
    [None, b"", b"[]", b"{}", b'{"weight_map": 1}', b"[" * 100000, b'{"weight_map": {"w": []}}'],
)
def test_an_index_that_is_none_says_nothing(text):
    paths = ["m-1-of-2.bin", "m-2-of-2.bin", "m.bin.index.json"]
    assert models(paths, lambda path: text)["m.bin"] == paths[:2]
    above = json.dumps({"weight_map": {"w": "../m-1-of-2.bin"}}).encode()
    assert models(paths, lambda path: above)["m.bin"] == paths[:2]
