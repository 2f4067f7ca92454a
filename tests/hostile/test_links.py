"""Symbolic links that lead out of a repository."""

from __future__ import annotations

from tests.support import checkpoints


def test_a_checkout_does_not_write_through_a_folder_that_is_a_link(model, theta, tmp_path):
    model.git("config", "theta.smudge", "false")
    model.commit_files({"a/m.safetensors": checkpoints.safetensors()}, "base")
    (model.path / "a" / "m.safetensors").unlink()
    model.git("checkout", "--", "a/m.safetensors")
    stub = model.read("a/m.safetensors")
    assert stub.startswith(b'{"git-theta":')
    elsewhere = tmp_path / "elsewhere"
    (model.path / "a").rename(elsewhere)
    (model.path / "a").symlink_to(elsewhere)
    done = theta(model, "checkout")
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "m.safetensors").read_bytes() == stub
    (model.path / "a").unlink()
    elsewhere.rename(model.path / "a")
    assert theta(model, "checkout").returncode == 0
    assert model.read("a/m.safetensors") == checkpoints.safetensors()
