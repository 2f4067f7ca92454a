from __future__ import annotations

import pytest

from git_theta.merge.planning.shards import model_of


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("model-00001-of-00003.safetensors", "model-of-00003.safetensors"),
        ("a/b/pytorch_model-00002-of-00003.bin", "a/b/pytorch_model-of-00003.bin"),
        ("model.safetensors", None),
        ("model-00001-of-00003.fisher.safetensors", None),
        ("model-of-3.pt", None),
        ("model-00001-of-00001.safetensors", None),
    ],
)
def test_files_of_one_model(path, model):
    assert model_of(path) == model
