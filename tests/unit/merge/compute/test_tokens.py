"""Rows of embeddings and heads merged by token."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.merge.planning.row_map import RowMap
from git_theta.merge.planning.vocabularies import Vocabularies
from tests.support.vocabularies import bpe, side

WORDS = bpe().get_vocab_size()
NAME = "model.embed_tokens.weight"


def rows(seed: int, count: int, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def model(made, seed: int, padding: int = 0) -> dict[str, np.ndarray]:
    count = made.get_vocab_size() + padding
    return {NAME: rows(seed, count), "lm_head.weight": rows(seed + 50, count)}


BASE = bpe(added=["<pad>"])
OURS = bpe(added=["<pad>", "<x>", "<both>"])
THEIRS = bpe(added=["<pad>", "<both>", "<y>", "<z>"])


def versions(merger, mode: str, base, *sides):
    found = merger.versions(*(tensors for _, tensors in (base, *sides)))
    own = [side(name, made) for name, (made, _) in zip(found.names, sides, strict=True)]
    return found.with_vocabularies(Vocabularies(tuple(own), side("base", base[0]), mode))


def pairs(padding: int = 0):
    return [(made, model(made, n, padding)) for n, made in enumerate((BASE, OURS, THEIRS))]


@pytest.mark.parametrize(
    ("mode", "extra", "owner"),
    [
        ("ours", {"<x>": 1, "<both>": 1}, 1),
        ("theirs", {"<both>": 2, "<y>": 2, "<z>": 2}, 2),
        ("union", {"<x>": 1, "<both>": 1, "<y>": 2, "<z>": 2}, 1),
    ],
)
@pytest.mark.parametrize("name", [NAME, "lm_head.weight"])
def test_tokens_of_all_are_merged_and_others_are_taken(merger, mode, extra, owner, name):
    """What the ancestor has too is averaged, wherever it stands."""
    sides = pairs()
    found = versions(merger, mode, *sides)
    merged = merger.merge(found, "*=average", rows=mode)[name]
    ids = found.vocabularies.tokenizer.ids
    assert set(ids) == {*BASE.get_vocab(), *extra}
    assert len(merged) == len(ids)
    for token, row in ids.items():
        own = {
            n: tensors[name][made.get_vocab()[token]]
            for n, (made, tensors) in enumerate(sides)
            if token in made.get_vocab()
        }
        expected = own[extra[token]] if token in extra else (own[1] + own[2]) / 2
        np.testing.assert_allclose(merged[row], expected, rtol=1e-6, err_msg=token)


def test_a_strategy_of_task_vectors_has_the_ancestors_row_of_each_token(merger):
    sides = pairs()
    found = versions(merger, "union", *sides)
    merged = merger.merge(found, "*=task_arithmetic:lambda=0.5", rows="union")[NAME]
    base, ours, theirs = (tensors[NAME] for _, tensors in sides)
    for token in ("ab", "<pad>"):
        row = BASE.get_vocab()[token]
        expected = base[row] + 0.5 * (ours[row] + theirs[row] - 2 * base[row])
        np.testing.assert_allclose(merged[row], expected, rtol=1e-5, atol=1e-6)


def test_a_vocabulary_padded_to_a_multiple_stays_padded(merger):
    sides = pairs(padding=64 - OURS.get_vocab_size())
    found = versions(merger, "union", *sides)
    merged = merger.merge(found, "*=average", rows="union")[NAME]
    assert len(merged) == 64
    assert bool(merged.any(axis=1).all()), "rows of padding are those of the sides"


@pytest.mark.parametrize("rule", [[], ["*=take:side=theirs"]])
def test_rows_of_one_side_move_to_where_the_tokens_of_the_result_are(merger, rule):
    """The head that one side alone trained; or all that a rule takes from theirs."""
    (base, old), (ours, mine), (theirs, other) = pairs()
    mine["lm_head.weight"][: len(old["lm_head.weight"])] = old["lm_head.weight"]
    found = versions(merger, "union", (base, old), (ours, mine), (theirs, other))
    merged = merger.merge(found, *(rule or ["*=average"]), rows="union")["lm_head.weight"]
    ids = found.vocabularies.tokenizer.ids
    expected = other["lm_head.weight"][theirs.get_vocab()["<z>"]]
    np.testing.assert_array_equal(merged[ids["<z>"]], expected)


def test_equal_shapes_of_other_tokens_are_no_longer_mixed_up(merger):
    """Both grew by one token: by number the two new rows would be taken for the same."""
    sides = [
        (made, model(made, n))
        for n, made in enumerate([bpe(), bpe(added=["<x>"]), bpe(added=["<y>"])])
    ]
    found = versions(merger, "union", *sides)
    merged = merger.merge(found, "*=average", rows="union")[NAME]
    np.testing.assert_array_equal(merged[WORDS], sides[1][1][NAME][WORDS])
    np.testing.assert_array_equal(merged[WORDS + 1], sides[2][1][NAME][WORDS])


def test_a_matrix_that_happens_to_have_as_many_rows_is_none_of_them(merger):
    sides = pairs()
    for _, tensors in sides:
        tensors["mlp.weight"] = rows(9, WORDS + 4)
    sides[1][1]["mlp.weight"] += 1
    sides[2][1]["mlp.weight"] += 3
    plan = merger.plan(versions(merger, "union", *sides), "*=average", rows="union")
    by_name = {action.name: action for action in plan.merges}
    assert by_name["mlp.weight"].shared is None
    assert isinstance(by_name[NAME].shared, RowMap)
