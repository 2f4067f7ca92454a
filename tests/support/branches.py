"""Checkpoints that differ in few parameters, on branches that went apart."""

from __future__ import annotations

import numpy as np

from git_theta import manifest
from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"
BASE = checkpoints.tensors(rows=32)
FIRST, SECOND, BIAS = "layer.0.weight", "layer.1.weight", "layer.1.bias"
_NAMES = {"w0": FIRST, "w1": SECOND, "b1": BIAS}


def changed(**shifts: float) -> dict[str, np.ndarray]:
    """Tensors with a number added to some: ``w0``, ``w1`` and ``b1`` are short for their names."""
    made = dict(BASE)
    for short, shift in shifts.items():
        made[_NAMES[short]] = made[_NAMES[short]] + np.float32(shift)
    return made


def file(**shifts: float) -> bytes:
    """The same as a safetensors file."""
    return checkpoints.safetensors(changed(**shifts))


def commit(repo: Repo, content: bytes, message: str = "change", path: str = PATH) -> str:
    """Commit a checkpoint."""
    return repo.commit_files({path: content}, message)


def branch(repo: Repo, name: str, content: bytes, path: str = PATH) -> None:
    """A branch from main on which the checkpoint is ``content``; main stays checked out."""
    repo.git("checkout", "-q", "-b", name, "main")
    commit(repo, content, name, path)
    repo.git("checkout", "-q", "main")


def is_settled(repo: Repo) -> bool:
    """Nothing is modified or in conflict, also when every file is read again."""
    for found in repo.path.glob("*.*"):
        found.touch()
    return repo.git("status", "--porcelain") == ""


def recipe(repo: Repo, rev: str = "HEAD", path: str = PATH):
    """The recipe of a merged checkpoint."""
    return manifest.parse(repo.git("show", f"{rev}:{path}").encode() + b"\n").recipe
