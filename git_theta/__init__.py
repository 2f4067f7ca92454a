"""Version control for model checkpoints, with the Git commands you know.

From Python, any version of a checkpoint (``docs/python.md``)::

    import git_theta

    with git_theta.open("model.safetensors", rev="v1.0") as checkpoint:
        weight = checkpoint.get_tensor("encoder.weight")

Names are imported when they are first used, so that a filter, which also imports this package,
starts quickly. torch is imported only for torch tensors.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from git_theta import errors
    from git_theta.api.checkpoint import Checkpoint, load_state_dict, open  # noqa: A004
    from git_theta.api.commit import commit_files, commit_state_dict
    from git_theta.api.differences import CheckpointDiff, diff
    from git_theta.api.history import checkout, log
    from git_theta.api.merging import merge_state_dicts
    from git_theta.api.slices import TensorSlice

__version__ = "0.1.0"

DISTRIBUTION = "theta-vcs"
"""This project's name to pip: git-theta on the Python Package Index is another project."""

_MODULES = {
    "Checkpoint": "checkpoint",
    "CheckpointDiff": "differences",
    "TensorSlice": "slices",
    "checkout": "history",
    "commit_files": "commit",
    "commit_state_dict": "commit",
    "diff": "differences",
    "load_state_dict": "checkpoint",
    "log": "history",
    "merge_state_dicts": "merging",
    "open": "checkpoint",
}

__all__ = [
    "Checkpoint",
    "CheckpointDiff",
    "TensorSlice",
    "checkout",
    "commit_files",
    "commit_state_dict",
    "diff",
    "errors",
    "load_state_dict",
    "log",
    "merge_state_dicts",
    "open",
]

# Hidden from type checkers, which would take any misspelt name for one of type Any.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "errors":
            return importlib.import_module("git_theta.errors")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"git_theta.api.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
