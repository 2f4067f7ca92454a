"""Gram matrices against numpy, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from git_theta import stats
from git_theta.errors import MergeError, UsageError
from tests.support.merging import merge


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mean_of(x: Tensor) -> np.ndarray:
    rows = x.reshape(-1, x.shape[-1]).double().numpy()
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("shape", [(12, 5), (12, 4, 5)])
@pytest.mark.parametrize("size", [1, 5, 12])
def test_it_is_the_mean_of_the_products_of_all_inputs(shape, size):
    x = inputs(*shape)
    found = stats.gram(nn.Linear(5, 3), x.split(size))
    assert (found.kind, found.examples, set(found.tensors)) == ("gram", 12, {"weight"})
    np.testing.assert_allclose(found.tensors["weight"].numpy(), mean_of(x), rtol=1e-5, atol=1e-6)


class Net(nn.Module):
    """A layer that is called twice, one that is never, two that share a weight, one by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.twice = nn.Linear(5, 5)
        self.never = nn.Linear(5, 5)
        self.left = nn.Linear(5, 5)
        self.right = nn.Linear(5, 5)
        self.right.weight = self.left.weight
        self.named = nn.Linear(5, 5)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        once = self.twice(x)
        self.seen = {"twice": torch.cat([x, once]), "left": torch.cat([once, 2 * once])}
        self.twice(once)
        self.left(once)
        self.right(2 * once)
        return self.named(input=once)


def test_layers_called_often_never_and_under_two_names():
    model = Net()
    found = stats.gram(model, [inputs(6, 5)]).tensors
    assert set(found) == {"twice.weight", "left.weight", "named.weight"}
    for name, seen in model.seen.items():
        expected = mean_of(seen.detach())
        np.testing.assert_allclose(found[f"{name}.weight"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_padding_is_left_out():
    x, mask = inputs(2, 3, 5), torch.tensor([[1, 1, 0], [1, 0, 0]])
    model = Net()
    found = stats.gram(model, [{"x": x, "attention_mask": mask}]).tensors["named.weight"]
    once = model.twice(x).detach()
    expected = mean_of(once[mask.bool()])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    everything = stats.gram(model, [{"x": x, "attention_mask": mask}], mask=None).tensors
    np.testing.assert_allclose(
        everything["named.weight"].numpy(), mean_of(once), rtol=1e-5, atol=1e-6
    )


def test_where_everything_is_padding_there_is_nothing_to_say():
    x, mask = inputs(2, 3, 5), torch.zeros(2, 3)
    with pytest.raises(UsageError, match="all of its inputs are masked"):
        stats.gram(Net(), [{"x": x, "attention_mask": mask}])


def test_a_module_under_two_names_counts_once_under_the_first():
    layer = nn.Linear(5, 5)
    x = inputs(6, 5)
    found = stats.gram(nn.Sequential(layer, layer), [x]).tensors
    expected = mean_of(torch.cat([x, layer(x).detach()]))
    assert set(found) == {"0.weight"}
    np.testing.assert_allclose(found["0.weight"].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [7, 33, 100])
def test_they_are_symmetric_to_the_bit(width):
    matrix = stats.gram(nn.Linear(width, 2), inputs(1001, width).split(37)).tensors["weight"]
    assert torch.equal(matrix, matrix.T)


def test_autocast_does_not_make_them_less_precise():
    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(batch)

    x = inputs(40, 5)
    found = stats.gram(nn.Linear(5, 3), [x], forward=forward).tensors["weight"]
    np.testing.assert_allclose(found.numpy(), mean_of(x), rtol=1e-5, atol=1e-6)


class Encoder(nn.Module):
    """One of torch's own, which has a kernel for padded batches that calls no layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.5, batch_first=True)
        self.inner = nn.TransformerEncoder(layer, 1)

    def forward(self, x: Tensor, attention_mask: Tensor, fails: bool = False) -> Tensor:
        if fails:
            raise RuntimeError("it fails")
        return self.inner(x, src_key_padding_mask=attention_mask == 0)


def test_transformers_of_torch_are_seen_layer_by_layer():
    x, mask = inputs(2, 4, 6), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    found = stats.gram(Encoder(), [{"x": x, "attention_mask": mask}]).tensors
    alone = [{"x": x[:1], "attention_mask": mask[:1]}]
    alone += [{"x": x[1:, :2], "attention_mask": mask[1:, :2]}]
    expected = stats.gram(Encoder(), alone).tensors
    assert set(found) == {"inner.layers.0.linear1.weight", "inner.layers.0.linear2.weight"}
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="it fails"):
        stats.gram(Encoder(), [{"x": x, "attention_mask": mask, "fails": True}])
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_mask_of_another_shape_is_none():
    x = inputs(2, 3, 5)
    masked = stats.gram(Net(), [{"x": x, "attention_mask": torch.zeros(2, 1, 1)}]).tensors
    plain = stats.gram(Net(), [{"x": x}]).tensors
    assert torch.equal(masked["named.weight"], plain["named.weight"])


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_and_modes_are_as_before(fails):
    model = Net().train()
    batch = inputs(2, 4 if fails else 5)
    if fails:
        with pytest.raises(RuntimeError):
            stats.gram(model, [batch])
    else:
        stats.gram(model, [batch])
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_float64_stays_exact_and_half_is_widened():
    x = inputs(40, 5)
    wide = stats.gram(nn.Linear(5, 3).double(), [x.double()]).tensors["weight"]
    np.testing.assert_array_equal(wide.numpy(), mean_of(x).astype(np.float32))
    half = stats.gram(nn.Linear(5, 3).bfloat16(), [x.bfloat16()]).tensors["weight"]
    np.testing.assert_allclose(half.numpy(), mean_of(x.bfloat16().float()), rtol=1e-5, atol=1e-6)


def test_what_cannot_be():
    with pytest.raises(UsageError, match="examples=-1"):
        stats.gram(nn.Linear(5, 3), [inputs(2, 5)], examples=-1)
    with pytest.raises(UsageError, match=r"no nn.Linear of the model was called"):
        stats.gram(nn.LayerNorm(5), [inputs(2, 5)])
    with pytest.raises(MergeError, match="an input of weight is not finite"):
        stats.gram(nn.Linear(5, 3), [inputs(2, 5) * torch.inf])


def test_a_forward_of_one_s_own():
    x = inputs(4, 5)
    found = stats.gram(nn.Linear(5, 3), [x], forward=lambda model, batch: model(2 * batch))
    np.testing.assert_allclose(found.tensors["weight"].numpy(), mean_of(2 * x), rtol=1e-5)


def test_regmean_with_them_is_nearer_to_both_than_the_mean_is():
    """Two layers for inputs of different kinds: what each one's data does not excite is free."""
    models, data = [], []
    for seed, scales in ((1, [3, 3, 0.1, 0.1, 1]), (2, [0.1, 0.1, 3, 3, 1])):
        torch.manual_seed(seed)
        models.append(nn.Linear(5, 4, bias=False))
        data.append(inputs(200, 5, seed=seed) * torch.tensor(scales))
    weights = [model.weight.detach() for model in models]
    grams = [stats.gram(m, [x]).tensors["weight"] for m, x in zip(models, data, strict=True)]

    def loss(merged: Tensor) -> float:
        pairs = zip(weights, data, strict=True)
        return sum(float(((merged - w) @ x.T).square().mean()) for w, x in pairs)

    assert loss(merge("regmean:alpha=1", weights, None, grams)) < 0.2 * loss(
        merge("average", weights)
    )
