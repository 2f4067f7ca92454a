"""Every strategy against an independent float64 implementation, over shapes and numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from git_theta.errors import MergeError
from git_theta.merge.kernels.slices import Inputs, content_of
from tests.support import reference_merge as reference
from tests.support.merging import grid, merge, merge_model

SHAPES = [(), (1,), (5, 1), (1, 7), (6, 8), (3, 2, 4)]
Arrays = Sequence[np.ndarray]


def arrays(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def draws(tensors: Sequence[torch.Tensor], seed: int) -> list[np.ndarray]:
    return [reference.draw(seed, "w", content_of(t), tuple(t.shape)) for t in tensors]


def dare(contributors: Arrays, base: np.ndarray, random: Arrays, rescale: bool = True) -> Arrays:
    taus = reference.task_vectors(contributors, base)
    return [reference.dare(t, r, 0.25, rescale) for t, r in zip(taus, random, strict=True)]


def della(contributors: Arrays, base: np.ndarray, random: Arrays) -> Arrays:
    taus = reference.task_vectors(contributors, base)
    return [reference.della(t, r, 0.5, 0.25) for t, r in zip(taus, random, strict=True)]


def undivided(contributors: Arrays, base: np.ndarray, random: Arrays) -> Arrays:
    taus = reference.task_vectors(contributors, base)
    return [reference.della(t, r, 0.5, 0.25, False) for t, r in zip(taus, random, strict=True)]


def with_l1(thinned: Arrays, contributors: Arrays, base: np.ndarray) -> Arrays:
    taus = reference.task_vectors(contributors, base)
    return [reference.l1_kept(each, tau) for each, tau in zip(thinned, taus, strict=True)]


def crumbs(contributors: Arrays, base: np.ndarray, *shares: tuple[str, str]) -> Arrays:
    taus = reference.task_vectors(contributors, base)
    pairs = zip(taus, shares or (("0.5", "0.2"),) * len(taus), strict=True)
    return [reference.breadcrumbs(tau, *share) for tau, share in pairs]


Expected = Callable[[Arrays, np.ndarray, Arrays], np.ndarray]
TWO = [2.0, 0.5]
ONE = [1.0, 1.0]
WEIGHTED = "weight=[2,0.5]"
CASES: dict[str, Expected] = {
    "smear": lambda c, b, r: reference.smear(c, b),
    "average": lambda c, b, r: reference.average(c, ONE),
    f"average:{WEIGHTED}": lambda c, b, r: reference.average(c, TWO),
    f"average:{WEIGHTED},normalize=false": lambda c, b, r: reference.average(c, TWO, False),
    "average:weight=[2,-1]": lambda c, b, r: reference.average(c, [2.0, -1.0]),
    "slerp": lambda c, b, r: reference.slerp(c[0], c[1], 0.5),
    "slerp:t=0.25": lambda c, b, r: reference.slerp(c[0], c[1], 0.25),
    f"nuslerp:{WEIGHTED}": lambda c, b, r: reference.slerp(c[0], c[1], 0.2),
    f"nuslerp:{WEIGHTED},task_vectors=true": lambda c, b, r: (
        b + reference.slerp(*reference.task_vectors(c, b), 0.2)
    ),
    f"multislerp:{WEIGHTED}": lambda c, b, r: reference.karcher(c, TWO, 0, 0),
    f"karcher:{WEIGHTED}": lambda c, b, r: reference.karcher(c, TWO, 10, 1e-5),
    f"karcher:{WEIGHTED},task_vectors=true,max_iter=50,tol=1e-7": lambda c, b, r: (
        b + reference.karcher(reference.task_vectors(c, b), TWO, 50, 1e-7)
    ),
    "task_arithmetic": lambda c, b, r: reference.task_arithmetic(c, b, ONE, 1),
    "task_arithmetic:weight=[1,-1],lambda=0.5": lambda c, b, r: reference.task_arithmetic(
        c, b, [1.0, -1.0], 0.5
    ),
    "ties": lambda c, b, r: reference.ties(c, b, ONE, 1, "0.2"),
    "ties:density=0": lambda c, b, r: reference.ties(c, b, ONE, 1, "0"),
    "ties:density=1": lambda c, b, r: reference.ties(c, b, ONE, 1, "1"),
    f"ties:density=0.55,lambda=2,scope=tensor,{WEIGHTED}": lambda c, b, r: reference.ties(
        c, b, TWO, 2, "0.55"
    ),
    "dare_linear:density=0.25,seed=3": lambda c, b, r: (
        b + reference.average(dare(c, b, r), ONE, False)
    ),
    "dare_ties:density=0.25,seed=3": lambda c, b, r: b + reference.sign_elected(dare(c, b, r), ONE),
    "dare_linear:density=0.25,seed=3,rescale=none": lambda c, b, r: (
        b + reference.average(dare(c, b, r, False), ONE, False)
    ),
    "dare_linear:density=1,seed=3": lambda c, b, r: reference.task_arithmetic(c, b, ONE, 1),
    "dare_ties:density=0": lambda c, b, r: b,
    "della:epsilon=0.25,seed=3": lambda c, b, r: b + reference.sign_elected(della(c, b, r), ONE),
    f"della_linear:epsilon=0.25,seed=3,{WEIGHTED}": lambda c, b, r: (
        b + reference.average(della(c, b, r), TWO, False)
    ),
    "della:density=0,epsilon=0": lambda c, b, r: b,
    "della_linear:density=1,epsilon=0": lambda c, b, r: reference.task_arithmetic(c, b, ONE, 1),
    "breadcrumbs:density=0.5,gamma=0.2": lambda c, b, r: (
        b + reference.average(crumbs(c, b), ONE, False)
    ),
    f"breadcrumbs_ties:density=0.5,gamma=0.2,{WEIGHTED}": lambda c, b, r: (
        b + reference.sign_elected(crumbs(c, b), TWO)
    ),
    "breadcrumbs:density=1,gamma=0": lambda c, b, r: reference.task_arithmetic(c, b, ONE, 1),
    # One density, gamma and epsilon for each contributor; sums; the L1 norm kept.
    "ties:density=[0.3,0.6],scope=tensor": lambda c, b, r: reference.ties(c, b, ONE, 1, "0.3,0.6"),
    "ties:density.dev=0.6": lambda c, b, r: reference.ties(c, b, ONE, 1, "0.2,0.6"),
    "ties:density=1,normalize=false,weight=[2,0.5]": lambda c, b, r: (
        b + reference.sign_elected(reference.task_vectors(c, b), TWO, False)
    ),
    "dare_linear:density=[0.25,0.75],seed=3": lambda c, b, r: (
        b
        + sum(
            reference.dare(t, n, d, True)
            for t, n, d in zip(reference.task_vectors(c, b), r, (0.25, 0.75), strict=True)
        )
    ),
    "dare_linear:density=0.25,seed=3,rescale=l1": lambda c, b, r: (
        b + sum(with_l1(dare(c, b, r, False), c, b))
    ),
    "dare_ties:density=0.25,seed=3,rescale=l1,normalize=false": lambda c, b, r: (
        b + reference.sign_elected(with_l1(dare(c, b, r, False), c, b), ONE, False)
    ),
    "della:density=[0.5,0.4],epsilon=[0.25,0.1],seed=3": lambda c, b, r: (
        b
        + reference.sign_elected(
            [
                reference.della(*each)
                for each in zip(
                    reference.task_vectors(c, b), r, (0.5, 0.4), (0.25, 0.1), strict=True
                )
            ],
            ONE,
        )
    ),
    "della_linear:epsilon=0.25,seed=3,rescale=l1": lambda c, b, r: (
        b + sum(with_l1(undivided(c, b, r), c, b))
    ),
    "breadcrumbs_ties:density=[0.5,0.4],gamma=[0.2,0],normalize=false": lambda c, b, r: (
        b + reference.sign_elected(crumbs(c, b, ("0.5", "0.2"), ("0.4", "0")), ONE, False)
    ),
    "model_stock": lambda c, b, r: reference.model_stock(c, b),
    "model_stock:scope=model": lambda c, b, r: reference.model_stock(c, b),
    "sce": lambda c, b, r: reference.sce(c, b, "1"),
    "sce:select_topk=0.3": lambda c, b, r: reference.sce(c, b, "0.3"),
    "sce:select_topk=0.9,among=varying": lambda c, b, r: reference.sce(c, b, "0.9", True),
    "sce:select_topk=0": lambda c, b, r: reference.sce(c, b, "0"),
    "magmax:lambda=0.5": lambda c, b, r: reference.magmax(c, b, 0.5),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("text", CASES)
def test_agrees_with_the_papers_definition(text: str, shape: tuple[int, ...]) -> None:
    *contributors, base = grid(11, shape, 3)
    expected = CASES[text](arrays(contributors), arrays([base])[0], draws(contributors, 3))

    merged = merge(text, contributors, base)

    assert merged.dtype == torch.float32
    np.testing.assert_allclose(merged.numpy(), expected, rtol=2e-6, atol=2e-6)


FOUR = "weight=[1,2,0,0.5]"
OF_FOUR: dict[str, Callable[[Arrays, np.ndarray], np.ndarray]] = {
    f"average:{FOUR}": lambda c, b: reference.average(c, [1, 2, 0, 0.5]),
    f"multislerp:{FOUR}": lambda c, b: reference.karcher(c, [1, 2, 0, 0.5], 0, 0),
    f"karcher:{FOUR},max_iter=30": lambda c, b: reference.karcher(c, [1, 2, 0, 0.5], 30, 1e-5),
    f"ties:{FOUR},density=0.5": lambda c, b: reference.ties(c, b, [1, 2, 0, 0.5], 1, "0.5"),
    "model_stock": lambda c, b: reference.model_stock(c, b),
    "sce:select_topk=0.4": lambda c, b: reference.sce(c, b, "0.4"),
    "magmax": lambda c, b: reference.magmax(c, b, 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("text", OF_FOUR)
def test_agrees_with_the_papers_definition_for_four_contributors(
    text: str, dtype: torch.dtype
) -> None:
    *contributors, base = grid(5, (9, 11), 5, dtype)

    merged = merge(text, contributors, base)

    assert merged.dtype == dtype
    expected = OF_FOUR[text](arrays(contributors), arrays([base])[0])
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(merged.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("text", ["nuslerp", "multislerp", "karcher:max_iter=20"])
def test_row_wise_merges_each_row_as_a_tensor_of_its_own(text: str) -> None:
    first, second = grid(2, (5, 6), 2)
    joint = "," if ":" in text else ":"

    merged = merge(f"{text}{joint}row_wise=true", [first, second])

    rows = [merge(text, [a, b]) for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(merged, torch.stack(rows))


def test_filter_wise_finds_a_ratio_for_each_row() -> None:
    *contributors, base = grid(2, (5, 6), 4)

    merged = merge("model_stock:filter_wise=true", contributors, base)

    rows = [
        merge("model_stock", list(row[:-1]), row[-1])
        for row in zip(*contributors, base, strict=True)
    ]
    torch.testing.assert_close(merged, torch.stack(rows))


@pytest.mark.parametrize(
    ("text", "weight", "floors"),
    [
        ("fisher:normalize=false", [1, 1], [1e-6, 1e-6]),
        ("fisher:normalize=false,floor=0.5,weight=[1,3]", [1, 3], [0.5, 0.5]),
        ("fisher:normalize=false,floor=0.5,favor=dev", [1, 1], [0, 0.5]),
        ("fisher:normalize=false,floor=0,favor=none", [1, 1], [0, 0]),
    ],
)
def test_fisher_weighs_each_element_by_its_information(
    text: str, weight: list[float], floors: list[float]
) -> None:
    contributors = grid(1, (4, 5), 2)
    information = [tensor.abs() for tensor in grid(2, (4, 5), 2)]
    information[0][0] = information[1][0] = 0  # Nobody knows anything of the first row.

    merged = merge(text, contributors, None, information)

    expected = reference.fisher(arrays(contributors), arrays(information), weight, floors)
    np.testing.assert_allclose(merged.numpy(), expected, rtol=2e-6, atol=2e-6)


def test_fisher_is_scaled_to_unit_length_over_the_model() -> None:
    contributors = grid(1, (4, 5), 2)
    first, second = (tensor.abs() for tensor in grid(2, (4, 5), 2))

    merged = merge("fisher:floor=0.01", contributors, None, [1000 * first, second])

    units = [array / np.linalg.norm(array) for array in arrays([first, second])]
    expected = reference.fisher(arrays(contributors), units, [1, 1], [0.01, 0.01])
    np.testing.assert_allclose(merged.numpy(), expected, rtol=2e-6, atol=2e-6)


def test_regmean_solves_the_least_squares_of_the_inputs() -> None:
    contributors = grid(1, (4, 6), 3)
    inputs = grid(2, (9, 6), 3)
    inputs[0][:, 2] = inputs[1][:, 2] = inputs[2][:, 2] = 0  # A dead feature.
    grams = [x.T @ x for x in inputs]

    merged = merge("regmean:alpha=0.8,ridge=1e-4", contributors, None, grams)

    expected = reference.regmean(arrays(contributors), arrays(grams), 0.8, 1e-4)
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-5, atol=1e-6)
    mean = reference.average(arrays(contributors), [1, 1, 1])
    np.testing.assert_allclose(merged.numpy()[:, 2], mean[:, 2], rtol=1e-5)


def test_regmean_reduces_to_the_output_error_minimiser() -> None:
    """Where off-diagonals count in full, no other matrix has a smaller error on the inputs."""
    contributors = [tensor.double() for tensor in grid(1, (4, 6), 2)]
    inputs = [tensor.double() for tensor in grid(2, (20, 6), 2)]

    merged = merge("regmean:alpha=1,ridge=1e-12", contributors, None, [x.T @ x for x in inputs])

    def error(weights: torch.Tensor) -> float:
        pairs = zip(inputs, contributors, strict=True)
        return sum(float(((x @ (weights - w).T) ** 2).sum()) for x, w in pairs)

    nudges = grid(3, (4, 6), 5)
    assert all(error(merged) < error(merged + 0.01 * nudge.double()) for nudge in nudges)


def test_regmean_averages_what_has_no_gram_matrix() -> None:
    contributors = grid(1, (4,), 2)
    assert torch.equal(merge("regmean", contributors), merge("average", contributors))


def test_take_gives_the_chosen_side_of_any_dtype() -> None:
    ours, theirs, base = (torch.tensor([n]) for n in (1, 2, 3))
    assert torch.equal(merge("take:side=ours", [ours, theirs], base), ours)
    assert torch.equal(merge("take:side=theirs", [ours, theirs], base), theirs)
    assert torch.equal(merge("take:side=dev", [ours, theirs], base), theirs)
    assert torch.equal(merge("take:side=base", [ours, theirs], base), base)


# --- smear ----------------------------------------------------------------------------------------


def test_smear_weighs_block_by_block_by_a_routing_file(tmp_path) -> None:
    """The first glob that matches counts, whatever the order of the contributors; else the mean."""
    table = {"layer.0.*": {"main": 3, "dev": 1}, "layer.*": [0, 2], "no.*": {"dev": 1}}
    file = tmp_path / "routing.json"
    file.write_text(json.dumps(table))
    names = ["layer.0.weight", "layer.1.weight", "head.weight"]
    tensors = {name: grid(n, (3, 4), 2) for n, name in enumerate(names)}
    model = [Inputs.of(name, sides) for name, sides in tensors.items()]
    merged = merge_model(f"smear:routing={file}", model)
    for name, (a, b) in zip(names, [(0.75, 0.25), (0, 1), (0.5, 0.5)], strict=True):
        torch.testing.assert_close(merged[name], a * tensors[name][0] + b * tensors[name][1])


def test_smear_looks_at_modules_as_a_whole() -> None:
    """Weight and bias of a module get the same shares; another module gets its own."""
    names = ["a.weight", "a.bias", "b.weight"]
    sides = {name: grid(n, (4,), 3) for n, name in enumerate(names)}
    model = [Inputs.of(name, tensors[:2], tensors[2]) for name, tensors in sides.items()]
    merged = merge_model("smear", model)
    joint = [torch.cat([sides["a.weight"][n], sides["a.bias"][n]]) for n in range(3)]
    expected = reference.smear(arrays(joint[:2]), arrays(joint[2:])[0])
    found = torch.cat([merged["a.weight"], merged["a.bias"]])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    alone = merge("smear", sides["b.weight"][:2], sides["b.weight"][2])
    torch.testing.assert_close(merged["b.weight"], alone)


def test_regmean_solves_what_rounding_made_indefinite_and_refuses_what_is_singular() -> None:
    contributors = grid(1, (3, 2), 2)
    indefinite = [torch.tensor([[1.0, 2.0], [2.0, 1.0]])] * 2
    merged = merge("regmean:alpha=1,ridge=1e-12", contributors, None, indefinite)
    mean = merge("average", contributors)
    torch.testing.assert_close(merged, mean, rtol=1e-5, atol=1e-5)
    singular = [indefinite[0], -indefinite[0]]
    with pytest.raises(MergeError, match=r"singular") as raised:
        merge("regmean:alpha=1,ridge=1e-300", contributors, None, singular)
    assert raised.value.hint == "raise ridge"
