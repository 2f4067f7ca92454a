"""Low-rank updates whose scale is an ``alpha`` tensor beside the factors."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.errors import MergeError

DOWN, UP, ALPHA = "u.lora_down.weight", "u.lora_up.weight", "u.alpha"


def adapter(seed: int, rank: int, alpha: float | None, dtype=np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {
        DOWN: random.standard_normal((rank, 9)).astype(dtype),
        UP: random.standard_normal((7, rank)).astype(dtype),
    }
    return made if alpha is None else made | {ALPHA: np.array(alpha, dtype)}


def update(tensors: dict[str, np.ndarray]) -> np.ndarray:
    rank = len(tensors[DOWN])
    scale = float(tensors[ALPHA]) / rank if ALPHA in tensors else 1.0
    return scale * (tensors[UP].astype(np.float64) @ tensors[DOWN].astype(np.float64))


@pytest.mark.parametrize(
    ("ours", "theirs"), [((2, 1.0), (3, 6.0)), ((2, None), (2, 8.0)), ((4, 8.0), (4, None))]
)
def test_updates_of_other_scales_add_up(merger, ours, theirs):
    base, one, two = adapter(1, 2, 4.0), adapter(2, *ours), adapter(3, *theirs)
    merged = merger.merge(merger.versions(base, one, two), "*=cat")
    assert merged.keys() == {DOWN, UP, ALPHA}
    assert merged[ALPHA].shape == ()
    np.testing.assert_allclose(
        update(merged), update(one) + update(two) - update(base), rtol=1e-5, atol=1e-5
    )


def test_the_rank_of_ours_keeps_its_alpha(merger):
    one, two = adapter(2, 2, 1.0), adapter(3, 2, 6.0)
    merged = merger.merge(merger.versions(None, one, two), "*=svd")
    assert merged[ALPHA] == 1.0
    left = np.linalg.svd(update(one) + update(two), compute_uv=False)
    lost = np.linalg.norm(update(merged) - update(one) - update(two))
    np.testing.assert_allclose(lost, np.linalg.norm(left[2:]), rtol=1e-4)


def test_alphas_without_a_meaning_are_errors(merger):
    zero = merger.versions(None, adapter(1, 2, 0.0), adapter(2, 2, 1.0))
    with pytest.raises(MergeError, match="scaled by 0"):
        merger.merge(zero, "*=cat")
