"""Batches of a data loader, one example at a time or as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from git_theta.errors import UsageError


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's parameters are; ``UsageError`` for a model without any."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    raise UsageError("the model has no parameters")


def moved(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor in it on ``device``."""
    return _each(batch, lambda tensor: tensor.to(device))


def size_of(batch: Any) -> int:
    """Return the number of examples: the length of the first tensor's first axis.

    Raises ``UsageError`` for a batch without a tensor that has axes.
    """
    for tensor in _tensors(batch):
        if tensor.ndim:
            return int(tensor.shape[0])
    raise UsageError("a batch has no tensor with a batch axis", hint="use a DataLoader")


def examples(batch: Any) -> Iterator[Any]:
    """Yield the examples of a batch, each a batch of size 1.

    Tensors are cut along their first axis where its length is that of the batch; anything else is
    in every example.
    """
    size = size_of(batch)
    for place in range(size):
        yield _each(batch, _cutter(place, size))


def _cutter(place: int, size: int) -> Callable[[Tensor], Tensor]:
    def cut(tensor: Tensor) -> Tensor:
        return tensor[place : place + 1] if tensor.ndim and len(tensor) == size else tensor

    return cut


def call(model: nn.Module, batch: Any) -> Any:
    """Return what the model makes of a batch.

    A mapping is given as keyword arguments, less ``labels``; of a tuple or list the first element
    is the input; anything else is the input.
    """
    if isinstance(batch, Mapping):
        return model(**{key: value for key, value in batch.items() if key != "labels"})
    if isinstance(batch, (tuple, list)):
        return model(batch[0])
    return model(batch)


def limited(batches: Iterable[Any], most: int | None) -> Iterator[tuple[Any, int]]:
    """Batches with their sizes, up to ``most`` examples in all; the last may be cut.

    Raises ``UsageError`` where there is no example at all, or none is asked for.
    """
    if most is not None and most < 1:
        raise UsageError(f"examples={most}: statistics need at least one example")
    seen = 0
    for batch in batches:
        size = size_of(batch)
        left = size if most is None else min(size, most - seen)
        if left > 0:
            yield _first(batch, size, left), left
        seen += left
        if most is not None and seen >= most:
            break
    if not seen:
        raise UsageError(
            "there is no example to compute statistics from",
            hint="an iterator that was used up gives none: pass the DataLoader",
        )


def _first(batch: Any, size: int, count: int) -> Any:
    def cut(tensor: Tensor) -> Tensor:
        return tensor[:count] if tensor.ndim and len(tensor) == size else tensor

    return batch if size == count else _each(batch, cut)


def _each(value: Any, work: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return work(value)
    if isinstance(value, Mapping):
        return {key: _each(each, work) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_each(each, work) for each in value))
    if isinstance(value, (tuple, list)):
        return type(value)([_each(each, work) for each in value])
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode; in the end, each module as it was before."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
