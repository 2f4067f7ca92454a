"""The Fisher diagonal against closed forms, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from git_theta import stats
from git_theta.errors import MergeError, UsageError


def inputs(count: int = 12, width: int = 5) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def linear(classes: int = 3, width: int = 5, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, classes, bias=bias)


def closed_form(model: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of softmax regression: E_y (1[y=c] - pc)² = pc (1 - pc), times xj² for the weights."""
    p = (x.double() @ model.weight.double().T + model.bias.double()).softmax(-1)
    variance = p * (1 - p)
    return (variance.T @ x.double() ** 2 / len(x)).detach(), variance.mean(0).detach()


def test_exact_is_the_closed_form_of_softmax_regression():
    model, x = linear(), inputs()
    found = stats.fisher(model, DataLoader(x, batch_size=5), labels="exact")
    weight, bias = closed_form(model, x)
    torch.testing.assert_close(found.tensors["weight"].double(), weight, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.tensors["bias"].double(), bias, rtol=1e-5, atol=1e-8)
    assert (found.kind, found.examples) == ("fisher", 12)
    assert found.tensors["weight"].dtype == torch.float32


def test_samples_tend_to_the_expectation():
    model, x = linear(), inputs()
    exact = stats.fisher(model, [x], labels="exact").tensors["weight"]
    sampled = stats.fisher(model, [x], samples=2000).tensors["weight"]
    torch.testing.assert_close(sampled, exact, rtol=0.1, atol=2e-3)


def test_it_is_not_the_square_of_a_batch_s_gradient():
    """Two opposite inputs: the gradients of their sum cancel, their squares do not."""
    model = linear(2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    x = torch.tensor([[1.0, 2, 0, 0, 0], [-1, -2, 0, 0, 0]])
    found = stats.fisher(model, [x], labels="exact").tensors["weight"]
    torch.testing.assert_close(found, torch.tensor([[0.25, 1, 0, 0, 0]] * 2))


@pytest.mark.parametrize("labels", ["exact", "sampled"])
def test_neither_batches_nor_their_kind_matter(labels):
    model, x = linear(), inputs()
    one = stats.fisher(model, [x], labels=labels).tensors
    loader = DataLoader(TensorDataset(x, torch.arange(12)), batch_size=5)
    for batches in (loader, x.split(4), [{"input": part} for part in x.split(1)]):
        other = stats.fisher(model, batches, labels=labels).tensors
        assert all(torch.equal(other[name], one[name]) for name in one)


def test_the_order_of_examples_changes_no_more_than_rounding():
    model, x = linear(), inputs()
    one = stats.fisher(model, [x], labels="exact").tensors
    turned = stats.fisher(model, x.flip(0).split(5), labels="exact").tensors
    for name, tensor in one.items():
        torch.testing.assert_close(turned[name], tensor, rtol=1e-6, atol=0)


def test_positions_are_independent_given_the_input():
    """Of a sequence, the information of its positions adds up."""
    model, x = linear(), inputs()
    flat = stats.fisher(model, [x], labels="exact").tensors["weight"]
    rows = stats.fisher(model, [x.view(3, 4, 5)], labels="exact")
    torch.testing.assert_close(rows.tensors["weight"], 4 * flat)
    assert rows.examples == 3
    sampled = stats.fisher(model, [x.view(3, 4, 5)], samples=3000).tensors["weight"]
    torch.testing.assert_close(sampled, 4 * flat, rtol=0.15, atol=1e-2)


def test_no_more_examples_than_asked_for():
    model, x = linear(), inputs()
    found = stats.fisher(model, x.split(5), labels="exact", examples=7)
    first = stats.fisher(model, [x[:7]], labels="exact")
    assert found.examples == 7
    assert torch.equal(found.tensors["weight"], first.tensors["weight"])


def test_the_same_seed_draws_the_same_and_torch_s_generator_is_left_alone():
    model, x = linear(), inputs()
    before = torch.get_rng_state()
    one, again = (stats.fisher(model, [x], seed=3).tensors["weight"] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, stats.fisher(model, [x], seed=4).tensors["weight"])


def test_classes_without_a_chance_cost_nothing_and_are_never_drawn():
    model = linear(3)
    with torch.no_grad():
        model.bias[1] = -math.inf
    for labels in ("exact", "sampled"):
        found = stats.fisher(model, [inputs()], labels=labels).tensors
        assert bool(found["weight"].isfinite().all())
        assert not bool(found["weight"][1].any())


def test_half_precision_is_squared_in_float32():
    """Gradients below 2e-4 have squares that fp16 does not have."""
    model = linear().to(torch.bfloat16)
    x = inputs() * 1e-4
    exact = stats.fisher(model.float(), [x], labels="exact").tensors["weight"]
    found = stats.fisher(model.half(), [x.half()], labels="exact").tensors["weight"]
    assert float(exact.max()) < 1e-8
    torch.testing.assert_close(found, exact, rtol=0.02, atol=1e-12)


@pytest.mark.parametrize("labels", ["exact", "sampled"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_named(labels, value):
    x = inputs()
    x[4, 2] = value
    with pytest.raises(MergeError, match="the gradient of weight is not finite in example 4"):
        stats.fisher(linear(), x.split(3), labels=labels)


def test_squares_beyond_float32_are_refused():
    model = linear(2, 2)
    nn.init.zeros_(model.weight)
    with pytest.raises(MergeError, match="squared gradients of weight are too large"):
        stats.fisher(model, [torch.full((1, 2), 1e25)])


@pytest.mark.parametrize(
    ("batches", "options", "words"),
    [
        ([], {}, "no example"),
        ([{"note": "x"}], {}, "no tensor with a batch axis"),
        ([torch.ones(2, 5)], {"labels": "given"}, "labels are exact or sampled"),
        ([torch.ones(2, 5)], {"samples": 0}, "samples=0"),
        ([torch.ones(2, 5)], {"examples": 0}, "examples=0"),
        ([torch.ones(2, 5)], {"examples": -1}, "examples=-1"),
        ([torch.ones(2, 5)], {"logits": lambda model, x: model(x).sum()}, "not logits"),
        ([torch.ones(2, 5)], {"logits": lambda model, x: model(x).expand(2, -1)}, r"\[2, 3\]"),
        ([torch.ones(2, 5)], {"logits": lambda model, x: {"a": 1}}, "the model gave dict"),
    ],
)
def test_calls_that_make_no_sense(batches, options, words):
    with pytest.raises(UsageError, match=words):
        stats.fisher(linear(), batches, **options)


def test_a_model_of_which_nothing_is_trained():
    with pytest.raises(UsageError, match="requires a gradient"):
        stats.fisher(linear().requires_grad_(False), [inputs()])
    with pytest.raises(UsageError, match="no parameters"):
        stats.gram(nn.Identity(), [inputs()])
