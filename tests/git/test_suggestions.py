"""``git theta track --suggest``: what a folder of a training run has that should be tracked."""

from __future__ import annotations

import json

import numpy as np

from tests.support import checkpoints

ARRAYS = {"w": np.arange(32768, dtype=np.float32)}


def test_files_with_tensors_are_found_by_their_content(model, theta_here):
    model.write("run/checkpoint-5/optimizer.bin", checkpoints.npz(ARRAYS))
    model.write("run/checkpoint-9/pytorch_model.bin", checkpoints.gguf(ARRAYS))
    model.write("run/weights", checkpoints.npz(ARRAYS))
    model.write("run/tracked.safetensors", checkpoints.safetensors(ARRAYS))
    model.write("run/log.bin", b"no tensors " * 20000)
    model.write("run/small.npz", checkpoints.npz({"w": np.zeros(3)}))
    model.write("run/ignored.npz", checkpoints.npz(ARRAYS))
    floats = np.random.default_rng(0).standard_normal(90_000).astype("f4").tobytes()
    model.write("run/variables.data-00000-of-00001", floats)
    model.write("run/sound.wav", floats)
    model.write("run/.gitignore", b"ignored.npz\n")
    model.write("run/cut off.npz", checkpoints.npz(ARRAYS)[:-9])
    done = theta_here(model, "track", "--suggest", "--json")
    rows = json.loads(done.stdout)["suggestions"]
    assert [(row["pattern"], row["files"], row["formats"]) for row in rows] == [
        ("*.data-00000-of-00001", 1, ["opaque"]),
        ("*.bin", 2, ["gguf", "numpy"]),
        ("/run/weights", 1, ["numpy"]),
    ]
    text = theta_here(model, "track", "--suggest").stdout
    assert "git theta track '*.data-00000-of-00001' '*.bin' /run/weights" in text
    patterns = ("*.data-0000*", "*.bin", "/run/weights")
    assert theta_here(model, "track", *patterns).returncode == 0
    assert "No file" in theta_here(model, "track", "--suggest").stdout
    assert theta_here(model, "track", "--suggest", "*.bin").returncode == 2
