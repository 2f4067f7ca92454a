"""Merge one parameter: check the inputs, order the contributors, compute in slices, round once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from git_theta.core.parallel import in_order
from git_theta.errors import MergeError
from git_theta.merge.kernels.device import CPU_SLICE, fetched
from git_theta.merge.kernels.prepass import Model, SingleTensor
from git_theta.merge.kernels.reductions import is_finite
from git_theta.merge.kernels.slices import Inputs, Slice, content_of, each
from git_theta.merge.rules.rules import Method, inner_method
from git_theta.merge.rules.strategy import Context, Strategy

# Scales of other tensors, with neither sign nor mantissa: a mean of them means nothing. (Torch has
# had the dtype since 2.7.)
_NOT_FLOATS = {getattr(torch, "float8_e8m0fnu", None)}


def run_prepass(method: Method, model: Model) -> Mapping[str, Sequence[Any]]:
    """Return model-wide statistics by parameter name, the ``prepass`` of ``merge_tensor``.

    For a method that needs none, nothing is read and the result is empty.
    """
    found = method.strategy.prepass
    if found is None or method.strategy.scope(method.values) != "model":
        return {}
    return found.run(model, method.values)


def merge_tensor(method: Method, inputs: Inputs, prepass: Sequence[Any] | None = None) -> Tensor:
    """Return the merged tensor, of the contributors' shape, dtype and device.

    ``prepass`` is this parameter's part of ``run_prepass``. Raises ``MergeError``, naming the
    parameter, for inputs that the strategy cannot merge: shapes or dtypes that differ, dtypes
    that are no floats, a base or statistic that is missing, NaN unless it is allowed, and a
    result that the dtype cannot hold. The order of the contributors changes no bit unless the
    strategy is ordered.
    """
    strategy = method.strategy
    inputs = inputs if strategy.statistic else replace(inputs, statistics=())
    check_inputs(method, inputs)
    if strategy.verbatim:
        given = {"models": inputs.contributors, "base": inputs.base}
        return cast(inputs.name, strategy(given, method.values), inputs.out_dtype)
    if not inputs.count:
        return cast(inputs.name, inputs.contributors[0].clone(), inputs.out_dtype)
    return _compute(*_ready(method, inputs, prepass))


def task_update(method: Method, inputs: Inputs, prepass: Sequence[Any] | None = None) -> Tensor:
    """Return X, flat and in the dtype to compute in, where the merged tensor is θ0 + λ X.

    For a strategy with ``scaled_by``, the name of λ; ``scaled`` gives the merged tensor, with the
    bits of ``merge_tensor``. Raises as that does.
    """
    check_inputs(method, inputs)
    values = {**method.values, str(method.strategy.scaled_by): 1.0}
    chosen, inputs, prepass = _ready(replace(method, values=values), inputs, prepass)
    update = torch.empty(inputs.count, dtype=inputs.dtype, device=inputs.contributors[0].device)

    def work(piece: Slice) -> None:
        assert piece.base is not None
        context = _context(inputs, piece)
        available = _available(chosen.strategy, piece, prepass, context, chosen.values)
        # -0 + x is x for all x, also for -0.
        available["base"] = torch.full_like(piece.base, -0.0)
        found = chosen.strategy(available, chosen.values).reshape(-1)
        update[piece.start : piece.stop] = fetched(found, update.device)

    for _ in each(inputs.pieces(chosen.strategy.slicing), work, inputs.workers):
        pass
    return update


def scaled(name: str, base: Tensor, update: Tensor, factor: float, threads: int) -> Tensor:
    """Return θ0 + λ X in the dtype of θ0, which is on the CPU, as X is; both are finite.

    Raises ``MergeError`` where the dtype cannot hold the result.
    """
    flat = base.reshape(-1)
    merged = torch.empty_like(flat)

    def work(start: int) -> None:
        part = slice(start, start + CPU_SLICE)
        result = flat[part].to(update.dtype) + factor * update[part]
        rounded = result.to(merged.dtype)
        if not is_finite(_as_held(result, rounded)):
            raise _overflow(name)
        merged[part] = rounded

    for _ in in_order(work, range(0, flat.numel(), CPU_SLICE), threads):
        pass
    return merged.reshape(base.shape)


def _ready(
    method: Method, inputs: Inputs, prepass: Sequence[Any] | None
) -> tuple[Method, Inputs, Sequence[Any] | None]:
    """Return all that slices are computed from, contributors in their order."""
    strategy = method.strategy
    if not strategy.ordered:
        method, inputs, prepass = _canonical(method, inputs, prepass)
    if strategy.scope(method.values) == "tensor" and strategy.prepass:
        prepass = strategy.prepass.run(SingleTensor(inputs), method.values)[inputs.name]
    assert prepass or strategy.scope(method.values) == "none", "run_prepass gives it"
    return method, inputs, prepass


def cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the tensor in a dtype (``None``: its own); ``MergeError`` where it cannot hold it."""
    if dtype is None or tensor.dtype == dtype:
        return tensor
    found = tensor.to(dtype)
    if not is_finite(found) and bool((tensor.isfinite() & ~found.isfinite()).any()):
        kind = str(dtype).removeprefix("torch.")
        raise MergeError(f"{name} has numbers too large for {kind}", hint="use another --out-dtype")
    return found


def check_inputs(method: Method, inputs: Inputs) -> None:
    """Raise ``MergeError`` as ``merge_tensor`` does, but for elements; prepasses rely on it."""
    strategy, values, name = method.strategy, method.values, inputs.name
    problem = (
        _needs(strategy, values, inputs) or _shapes(strategy, inputs) or _dtypes(strategy, inputs)
    )
    if problem:
        raise MergeError(f"{name} {problem}").of(name)


def _needs(strategy: Strategy, values: Mapping[str, Any], inputs: Inputs) -> str | None:
    if inputs.base is None and strategy.needs_base(values):
        return f"has no base, which {strategy.name} needs"
    wanted = strategy.needs_statistic() or inputs.statistics
    if wanted and len(inputs.statistics) != len(inputs.contributors):
        return f"lacks the {strategy.statistic} of a contributor"
    return None


def _shapes(strategy: Strategy, inputs: Inputs) -> str | None:
    tensors = [*inputs.contributors, *([] if inputs.base is None else [inputs.base])]
    if strategy.statistic == "fisher":
        tensors += inputs.statistics
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))
    if len(shapes) == 1 or strategy.verbatim:
        return None
    listed = " and ".join(str(list(shape)) for shape in shapes)
    return f"has different shapes: {listed}"


def _dtypes(strategy: Strategy, inputs: Inputs) -> str | None:
    dtypes = list(dict.fromkeys(tensor.dtype for tensor in inputs.contributors))
    listed = " and ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    if strategy.verbatim:
        return None
    if any(not dtype.is_floating_point or dtype in _NOT_FLOATS for dtype in dtypes):
        return f"has dtype {listed}, which is never averaged"
    if len(dtypes) > 1:
        return f"has different dtypes: {listed}"
    return None


def _canonical(
    method: Method, inputs: Inputs, prepass: Sequence[Any] | None
) -> tuple[Method, Inputs, Sequence[Any] | None]:
    """Order the contributors by content, then by their values, statistics and prepass."""

    def key(place: int) -> tuple[Any, ...]:
        known = [prepass[place]] if prepass else []
        twin = inputs.contents.count(inputs.contents[place]) > 1
        statistic = content_of(inputs.statistics[place]) if twin and inputs.statistics else ""
        return (inputs.contents[place], *method.value_at(place), *known, statistic)

    order = sorted(range(len(inputs.contributors)), key=key)
    return (
        replace(method, values=method.values_of(order)),
        inputs.permuted(order),
        [prepass[place] for place in order] if prepass else None,
    )


def _compute(method: Method, inputs: Inputs, prepass: Sequence[Any] | None) -> Tensor:
    stored, strategy = inputs.contributors[0], method.strategy
    dtype = inputs.out_dtype or stored.dtype
    merged = torch.empty(inputs.count, dtype=dtype, device=stored.device)

    def work(piece: Slice) -> None:
        available = _available(strategy, piece, prepass, _context(inputs, piece), method.values)
        result = strategy(available, method.values).reshape(-1)
        rounded = result.to(dtype)
        if not inputs.allow_nan:
            _check_result(inputs, piece, _as_held(result, rounded))
        merged[piece.start : piece.stop] = fetched(rounded, merged.device)

    for _ in each(inputs.pieces(strategy.slicing), work, inputs.workers):
        pass
    return merged.reshape(inputs.shape)


def _context(inputs: Inputs, piece: Slice) -> Context:
    return Context(inputs.name, inputs.shape, inputs.contents, piece.start)


def _available(
    strategy: Strategy,
    piece: Slice,
    prepass: Sequence[Any] | None,
    context: Context,
    values: Mapping[str, Any],
) -> dict[str, Any]:
    statistics = piece.statistics or None
    return {
        "models": piece.models if "models" in strategy.inputs else None,
        "base": piece.base if "base" in strategy.inputs else None,
        "deltas": piece.deltas if "deltas" in strategy.inputs else None,
        "fisher": statistics,
        "gram": statistics,
        "prepass": prepass,
        "context": context,
        "merge": _inner_merge(strategy, values, context, prepass),
    }


def _inner_merge(
    strategy: Strategy, values: Mapping[str, Any], context: Context, prepass: Sequence[Any] | None
) -> Callable[[Sequence[Tensor], Tensor | None], Tensor] | None:
    if "merge" not in strategy.inputs:
        return None
    return merge_by(values, context.name, context.contents, prepass)


def merge_by(
    values: Mapping[str, Any],
    name: str,
    contents: tuple[str, ...] = (),
    prepass: Sequence[Any] | None = None,
) -> Callable[[Sequence[Tensor], Tensor | None], Tensor]:
    """Return the input ``merge`` of a strategy: it merges tensors by the hyperparameter ``rule``.

    ``contents`` are the contributors' content hashes, by default those of the tensors at hand;
    ``prepass`` is what the rule's prepass found, where it runs over the whole model.
    """
    method = inner_method(values["rule"])

    def merge(models: Sequence[Tensor], base: Tensor | None) -> Tensor:
        method.strategy.check_number(len(models))
        known = contents or tuple(map(content_of, models))
        inputs = Inputs(name, models, base, known)
        found = prepass
        if found is None and method.strategy.scope(method.values) == "model":
            found = run_prepass(method, SingleTensor(inputs))[name]
        return merge_tensor(method, inputs, found)

    return merge


def _as_held(result: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded``, infinite where it cannot hold the result.

    Conversion to float8 yields NaN or the largest number there, depending on the kind of float8.
    """
    if rounded.element_size() > 1:
        return rounded
    return result.masked_fill(result.abs() > torch.finfo(rounded.dtype).max, torch.inf)


def _check_result(inputs: Inputs, piece: Slice, values: Tensor) -> None:
    """Raise ``MergeError`` for NaN, and for infinity that no contributor has: an overflow."""
    if is_finite(values):
        return
    given = torch.stack([model.reshape(-1) for model in piece.models]).isfinite().all(0)
    if bool((given & ~values.isfinite()).any()) or bool(values.isnan().any()):
        raise _overflow(inputs.name)


def _overflow(name: str) -> MergeError:
    return MergeError(
        f"{name} cannot hold the result of the merge: it overflows or is not a number"
    ).of(name)
