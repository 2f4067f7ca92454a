"""Torch as the policy of a merge needs it."""

from __future__ import annotations

import gc

import pytest

from git_theta.errors import MissingToolError
from git_theta.merge.planning.policy import needing_torch


def test_garbage_waits_while_torch_is_imported() -> None:
    with needing_torch("merging"):
        assert not gc.isenabled()
    assert gc.isenabled()


def test_garbage_is_collected_again_where_torch_is_missing() -> None:
    with pytest.raises(MissingToolError, match="merging needs torch"), needing_torch("merging"):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    assert gc.isenabled()


def test_who_collects_no_garbage_still_does_not() -> None:
    gc.disable()
    try:
        with needing_torch("merging"):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
