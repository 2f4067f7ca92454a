"""What ``import git_theta`` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import git_theta

CONTRACT = """
    Checkpoint CheckpointDiff TensorSlice checkout commit_files commit_state_dict diff errors
    load_state_dict log merge_state_dicts open
"""


def test_the_contract_is_exact() -> None:
    assert git_theta.__all__ == CONTRACT.split()
    assert all(getattr(git_theta, name) is not None for name in git_theta.__all__)
    assert set(git_theta.__all__) <= set(dir(git_theta))


def test_everything_is_documented() -> None:
    assert all(getattr(git_theta, name).__doc__ for name in git_theta.__all__)


def test_there_is_nothing_else() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        git_theta.nothing  # noqa: B018


def test_importing_it_imports_nothing_of_it() -> None:
    asked = "import sys, git_theta; print([m for m in sys.modules if m.startswith('git_theta.')])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_of_it_but_torch_is_imported_without_torch() -> None:
    asked = (
        "import sys, git_theta; [getattr(git_theta, name) for name in git_theta.__all__];"
        "print({'torch', 'git', 'rich'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
