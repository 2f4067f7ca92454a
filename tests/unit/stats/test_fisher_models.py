"""The Fisher diagonal of models that are not plain, and what it leaves as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from git_theta import stats
from git_theta.errors import UsageError


def inputs(count: int = 12, width: int = 5) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


class Odd(nn.Module):
    """Tied, frozen and unused parameters, dropout, and something that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, note: str = "", fails: bool = False) -> Tensor:
        assert not self.training
        if fails:
            raise RuntimeError("it fails")
        return self.second(self.drop(self.first(x * self.frozen)).relu())


def test_tied_frozen_and_unused_parameters():
    found = stats.fisher(Odd(), [{"x": inputs(), "note": "kept", "labels": torch.ones(12)}])
    assert set(found.tensors) == {"first.weight", "first.bias", "second.bias", "unused"}
    assert not bool(found.tensors["unused"].any())
    assert bool(found.tensors["first.weight"].any())


class Routed(nn.Module):
    """Uses its one trained parameter for positive inputs only."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale if bool(x[0, 0] > 0) else x


def test_an_example_that_depends_on_no_parameter_counts_as_zero():
    x = torch.tensor([[1.0, 2], [-1, 2], [-3, 1], [-2, 2]])
    found = stats.fisher(Routed(), [x], labels="exact").tensors["scale"]
    torch.testing.assert_close(
        found, stats.fisher(Routed(), [x[:1]], labels="exact").tensors["scale"] / 4
    )


def test_logits_that_never_depend_on_any_are_refused():
    @torch.no_grad()
    def detached(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch)

    with pytest.raises(UsageError, match="depend on no parameter"):
        stats.fisher(nn.Linear(5, 3), [inputs()], logits=detached)


def test_gradients_that_come_sparse():
    def found(sparse: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(7, 5, sparse=sparse), nn.Linear(5, 3))
        ids = torch.tensor([[1, 1, 2], [3, 3, 3]])
        return dict(stats.fisher(model, [ids]).tensors)

    dense = found(False)
    assert all(torch.equal(tensor, dense[name]) for name, tensor in found(True).items())


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    model = Odd().train()
    model.first.eval()
    model.first.bias.grad = torch.full((5,), 3.0)
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = {"x": inputs(), "fails": fails}
    if fails:
        with pytest.raises(RuntimeError):
            stats.fisher(model, [batch])
    else:
        stats.fisher(model, [batch])
    assert [module.training for module in model.modules()] == modes
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert torch.equal(grads.pop("first.bias"), torch.full((5,), 3.0))
    assert set(grads.values()) == {None}
    needed = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert needed == ["unused", "first.weight", "first.bias", "second.bias"]
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_classifier_of_transformers_with_padding():
    """Padding changes nothing: every example counts as it does alone."""
    from transformers import BertForSequenceClassification

    from tests.support.adapters import bert

    torch.manual_seed(0)
    model = BertForSequenceClassification(bert(num_labels=3))
    ids = torch.randint(1, 30, (3, 6), generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    padded = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 2])}
    alone = [{"input_ids": ids[n : n + 1, : int(mask[n].sum())]} for n in range(3)]
    found = stats.fisher(model, [padded], labels="exact")
    expected = stats.fisher(model, alone, labels="exact")
    assert set(found.tensors) == {name for name, _ in model.named_parameters()}
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(found.tensors[name], tensor, rtol=1e-3, atol=1e-9)
