"""Gram matrices of what goes into a model's linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from git_theta.errors import MergeError, UsageError
from git_theta.stats.batches import call, device_of, evaluating, limited, moved
from git_theta.stats.saving import Statistics

Forward = Callable[[nn.Module, Any], object]


def gram(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
    mask: str | None = "attention_mask",
    examples: int | None = None,
) -> Statistics:
    """G = E x xᵀ over the inputs x of each linear layer: float32 ``[in, in]``, by weight.

    The mean is over all vectors that go into the layer (every token counts as one), so that all
    contributors count the same, however much data each has. If a batch is a mapping, vectors at
    which the tensor called ``mask`` is 0 are left out, provided it has their leading shape.

    ``forward`` runs the model on a batch; by default it is called as for ``fisher``. Layers are
    modules of type ``nn.Linear`` that are called; modules that use their weights in another way,
    such as ``nn.MultiheadAttention``, are not seen. Modules that share a weight share a matrix of
    all their inputs, under the name that ``named_parameters`` gives the weight. At most
    ``examples`` examples are used (by default all).

    Sums are float32, or float64 for float64 weights, also under autocast.

    Raises ``UsageError`` if no linear layer is called, and ``MergeError``, which names the layer,
    if an input is NaN or infinite. Source: arXiv:2212.09849.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    sums = _Sums({layer: names[id(layer.weight)] for layer in layers if id(layer.weight) in names})
    count = 0
    device = device_of(model)
    with evaluating(model), torch.no_grad(), _layer_by_layer(), sums.listening():
        for batch, size in limited(batches, examples):
            here = moved(batch, device)
            sums.mask = here.get(mask) if mask and isinstance(here, Mapping) else None
            (forward or call)(model, here)
            count += size
    if not sums.products:
        raise UsageError(
            "no nn.Linear of the model was called, or all of its inputs are masked",
            hint="pass forward=lambda model, batch: ..., or mask=None",
        )
    return Statistics("gram", sums.means(), count)


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Make torch's transformers call their layers, rather than one kernel with their weights.

    That one gives layers padded batches as nested tensors, which have no shape.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Sums:
    """Adds up x xᵀ, and counts x, by the name of a layer's weight."""

    def __init__(self, names: Mapping[nn.Linear, str]) -> None:
        self.products: dict[str, Tensor] = {}
        self.mask: Tensor | None = None
        self._counts: dict[str, int] = {}
        self._names = names

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Add up the inputs of all layers that are called meanwhile."""
        handles = [
            layer.register_forward_pre_hook(self._add, with_kwargs=True) for layer in self._names
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, layer: nn.Linear, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        name, given = self._names[layer], inputs[0] if inputs else named["input"]
        vectors = self._chosen(given).reshape(-1, given.shape[-1])
        if not len(vectors):
            return
        if name not in self.products:
            dtype = torch.float64 if layer.weight.dtype == torch.float64 else torch.float32
            self.products[name] = vectors.new_zeros(2 * vectors.shape[1:], dtype=dtype)
        total = self.products[name]
        vectors = vectors.to(total.device, total.dtype)
        # In place, which autocast leaves alone: "@" would be computed in half precision there.
        total.addmm_(vectors.T, vectors)
        if not bool(total.isfinite().all()):
            raise MergeError(
                f"an input of {name} is not finite, or too large to be squared",
                hint="compute in float32 or bfloat16",
            )
        self._counts[name] = self._counts.get(name, 0) + len(vectors)

    def _chosen(self, given: Tensor) -> Tensor:
        mask = self.mask
        if mask is None or mask.shape != given.shape[:-1]:
            return given
        return given[mask.to(given.device, torch.bool)]

    def means(self) -> dict[str, Tensor]:
        """Return the means, float32, symmetric to the bit: a matrix product is but for rounding."""
        halves = {name: total / (2 * self._counts[name]) for name, total in self.products.items()}
        return {name: (half + half.T).float() for name, half in halves.items()}
