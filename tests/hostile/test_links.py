"""Symbolic links that lead out of a repository."""

from __future__ import annotations

import pytest

from git_theta.errors import UsageError
from tests.support import checkpoints
from tests.support.repo import Repo


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


@pytest.mark.parametrize("target", ["/dev/zero", "../secret"])
def test_attributes_are_not_read_or_written_through_a_link(target, model, theta):
    """A link to a device took all memory in track, untrack and doctor."""
    secret = model.path.parent / "secret"
    secret.write_text("*.bin filter=theta\n")
    file = model.path / ".gitattributes"
    file.unlink()
    file.symlink_to(target)
    for command in ("track", "untrack"):
        done = theta(model, command, "*.pt")
        assert done.returncode == UsageError.exit_code
        assert ".gitattributes: cannot be read: it is a symbolic link" in done.stderr
    assert "tracked: *.bin" not in theta(model, "doctor").stdout
    assert secret.read_text() == "*.bin filter=theta\n"
    assert file.is_symlink()


def test_attributes_that_are_a_folder(model, theta):
    (model.path / "sub/.gitattributes").mkdir(parents=True)
    done = theta(Repo(model.path / "sub"), "track", "*.pt")
    assert done.returncode == UsageError.exit_code
    assert "Is a directory" in done.stderr
