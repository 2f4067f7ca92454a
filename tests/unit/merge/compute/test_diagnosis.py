"""A diagnosis is what numpy computes in float64, for every pair of sides and group of tensors."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.cli.diagnosis_view import diagnosis_json, diagnosis_lines
from git_theta.merge.compute.diagnosis import diagnose
from tests.support import checkpoints

BASE = checkpoints.tensors(rows=4)
SIDES = [checkpoints.finetuned(BASE, scale, seed) for seed, scale in ((1, 0.5), (2, 0.5), (3, 4.0))]


def deltas(side: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    return np.concatenate([(side[n] - BASE[n]).astype(np.float64).ravel() for n in names])


@pytest.mark.parametrize("group", ["layer.*.weight", None])
def test_the_numbers_are_those_of_numpy(merger, group):
    plan = merger.plan(merger.versions(BASE, *SIDES))
    assert plan.conflicts  # no strategy is needed
    found = diagnose(plan, merger.workspace)
    each = next((c for name, _, c in found.groups if name == group), found.whole)
    names = [name for name in BASE if group is None or "weight" in name]
    moved = [deltas(side, names) for side in SIDES]
    length = np.linalg.norm(np.concatenate([BASE[n].astype(np.float64).ravel() for n in names]))
    np.testing.assert_allclose(each.relative, [np.linalg.norm(d) / length for d in moved])
    for (i, j), cosine in each.cosines.items():
        a, b = moved[i], moved[j]
        np.testing.assert_allclose(
            cosine, a @ b / np.linalg.norm(a) / np.linalg.norm(b), atol=1e-12
        )
        assert each.opposites[i, j] == np.mean(a * b < 0)
    assert set(each.cosines) == {(0, 1), (0, 2), (1, 2)}


def test_what_is_said_of_a_pair(merger):
    sides = [SIDES[0], {n: v + 0.1 * (SIDES[0][n] - v) for n, v in BASE.items()}]
    found = diagnose(merger.plan(merger.versions(BASE, *sides)), merger.workspace)
    text = "\n".join(diagnosis_lines(found))
    assert "main and dev went much the same way (cosine 1.00)" in text
    assert "main moved 10.0 times as far as dev" in text
    against = {n: v - (SIDES[0][n] - v) for n, v in BASE.items()}
    found = diagnose(merger.plan(merger.versions(BASE, SIDES[0], against)), merger.workspace)
    assert "main and dev went against each other (cosine -1.00)" in "\n".join(
        diagnosis_lines(found)
    )
    assert diagnosis_json(found)["all"]["opposed"] == [{"sides": ["main", "dev"], "value": 1.0}]
    found = diagnose(merger.plan(merger.versions(BASE, *SIDES[:2])), merger.workspace)
    assert "main and dev are nearly orthogonal" in "\n".join(diagnosis_lines(found))
    assert "differ in sign in" in "\n".join(diagnosis_lines(found))


def test_nothing_that_several_sides_changed(merger):
    found = diagnose(merger.plan(merger.versions(BASE, SIDES[0], BASE)), merger.workspace)
    assert diagnosis_lines(found) == ["m.safetensors: no tensor changed on several sides"]
