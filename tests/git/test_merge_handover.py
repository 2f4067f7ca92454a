"""What `git theta merge` decided, git's merge drivers do not decide again."""

from __future__ import annotations

import json

import pytest

from git_theta import manifest
from git_theta.errors import ConflictError, SettingsError
from git_theta.merge.compute.executor import Merged
from git_theta.merge.compute.handover import decided
from tests.support.branches import PATH, branch, commit, file, is_settled
from tests.support.repo import Repo

OTHER = "other.safetensors"


@pytest.fixture
def branches(once, home, model) -> Repo:
    """On branch ``one``, which changed both checkpoints, as ``two`` did."""

    def work() -> None:
        commit(model, file(), "base")
        commit(model, file(), "base", OTHER)
        for number, name in enumerate(("one", "two"), 1):
            branch(model, name, file(w0=number))
            model.git("checkout", "-q", name)
            commit(model, file(w1=number), name, OTHER)
        model.git("checkout", "-q", "one")

    once("handover", home, model, work)
    return model


def test_drivers_compute_nothing_and_the_rest_is_left_in_conflict(
    branches, theta_here, tmp_path, monkeypatch
):
    """The drivers have no torch: they need none, as the command merged what could be merged."""
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = theta_here(branches, "merge", "two", "--rule", "layer.1.*=average")
    assert done.returncode == 36
    assert branches.git("status", "--porcelain").splitlines() == [f"UU {PATH}", f"M  {OTHER}"]
    merged = manifest.parse(branches.git("show", f":{OTHER}").encode() + b"\n")
    assert merged.recipe["rules"][0]["strategy"] == "average"
    assert branches.read(PATH) == file(w0=1)
    branches.git("merge", "--abort")
    assert is_settled(branches)


def test_decisions_in_a_file(tmp_path):
    path = tmp_path / "decisions"
    rows = {"a": {"text": "eHl6", "notes": ["n"]}, "b": {"conflict": ["m", "p", "h", ["d"]]}}
    path.write_text(json.dumps(rows))
    assert decided(path, "a") == Merged(b"xyz", ("n",))
    assert decided(path, "c") is None
    with pytest.raises(ConflictError) as raised:
        decided(path, "b")
    assert str(raised.value) == "p: m\n    d\n  hint: h"


@pytest.mark.parametrize("text", ["", "[]", '{"a": {}}', '{"a": {"text": "?", "notes": []}}'])
def test_a_file_that_is_none_of_ours(tmp_path, text):
    (tmp_path / "decisions").write_text(text)
    with pytest.raises(SettingsError, match="is not what git theta merge writes"):
        decided(tmp_path / "decisions", "a")
