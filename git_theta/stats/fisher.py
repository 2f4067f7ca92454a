"""The diagonal of the Fisher information of a model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from git_theta.errors import MergeError, UsageError
from git_theta.stats.batches import call, device_of, evaluating, examples, limited, moved
from git_theta.stats.saving import Statistics

Labels = Literal["exact", "sampled"]
Logits = Callable[[nn.Module, Any], Tensor]


def fisher(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    labels: Labels = "sampled",
    samples: int = 1,
    seed: int = 0,
    logits: Logits | None = None,
    examples: int | None = None,
) -> Statistics:
    """F = E_x E_{y ~ p(y|x)} (∂ log p(y|x) / ∂θ)², element by element: float32, θ's shapes.

    Labels are the model's own: with ``exact`` the expectation over them is computed, with one
    backward pass for each position and class; ``sampled`` draws a label for each position
    ``samples`` times, with one backward pass each. The expectation over x is the mean over the
    examples of ``batches``, at most ``examples`` of them (all).

    ``logits`` returns the logits ``[1, ..., classes]`` of the model for a batch; positions in
    between count as independent given the input, as in a language model. By default the model is
    called with the batch (a mapping as keyword arguments, without ``labels``; of a tuple or list
    the first element), and returns the logits, or an object with ``logits``.

    Gradients are squared for one example at a time (the square of a batch's sum would be biased),
    so the model sees batches of size 1, mappings as ``dict``: anything it computes across a batch
    differs from training. Examples must lie along the first axis of every tensor whose first axis
    is as long as that of the batch's first tensor. Everything else, such as a list of texts or a
    tensor of another length, is passed whole with every example. If an input is not one row per
    example (class weights, ``[sequence, batch, width]``), pass batches of one example.

    Parameters that need no gradient are left out; those that nothing depends on are 0. This takes
    the memory of two sets of parameters. ``seed`` decides what is drawn; torch's own generators
    are not touched.

    Raises ``UsageError`` for invalid arguments, and ``MergeError``, which names parameter and
    example, if a gradient is NaN or infinite. Source: arXiv:2111.09832, section 3.
    """
    if samples < 1 or labels not in ("exact", "sampled"):
        raise UsageError(f"labels={labels!r}, samples={samples}: labels are exact or sampled")
    parameters = _trained(model)
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    count = dependent = 0
    with evaluating(model), torch.enable_grad():
        for example in _examples(model, batches, examples):
            found = _check_logits((logits or _logits)(model, example))
            if found.requires_grad:
                for weight, likelihood in _likelihoods(found, labels, samples, generator):
                    _add_squares(sums, parameters, likelihood, weight, count)
                dependent += 1
            count += 1
    if not dependent:
        raise UsageError(
            "the logits depend on no parameter that requires a gradient",
            hint="compute them without torch.no_grad() or detach()",
        )
    return Statistics("fisher", _means(sums, count), count)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise UsageError(
            "no parameter of the model requires a gradient", hint="model.requires_grad_()"
        )
    return parameters


def _means(sums: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the means, in place of the sums; ``MergeError`` where float32 does not have them."""
    for name, total in sums.items():
        if not bool(total.isfinite().all()):
            raise MergeError(
                f"the squared gradients of {name} are too large for float32",
                hint="leave out the examples that cause it, such as inputs that are not scaled",
            )
    return {name: total.div_(count) for name, total in sums.items()}


def _examples(model: nn.Module, batches: Iterable[Any], most: int | None) -> Iterator[Any]:
    device = device_of(model)
    for batch, _ in limited(batches, most):
        yield from examples(moved(batch, device))


def _logits(model: nn.Module, batch: Any) -> Tensor:
    output = call(model, batch)
    found: Tensor = getattr(output, "logits", output)
    return found


def _check_logits(found: object) -> Tensor:
    if not isinstance(found, Tensor) or found.ndim < 2 or not found.is_floating_point():
        raise UsageError(
            f"the model gave {type(found).__name__}, not logits [examples, ..., classes]",
            hint="pass logits=lambda model, batch: ...",
        )
    if len(found) != 1:
        raise UsageError(
            f"the model gave logits {list(found.shape)} of a batch of one example",
            hint="pass logits=lambda model, batch: ...",
        )
    return found


def _likelihoods(
    logits: Tensor, labels: Labels, samples: int, generator: torch.Generator
) -> Iterator[tuple[float, Tensor]]:
    """Log-likelihoods, and how much the square of each one's gradient counts."""
    # In float32 at least: a softmax in bf16 is off by half a percent.
    rows = logits.reshape(-1, logits.shape[-1])
    rows = (rows if rows.dtype == torch.float64 else rows.float()).log_softmax(-1)
    chances = rows.detach().double().exp().cpu()
    if labels == "exact":
        for row, position in enumerate(chances.tolist()):
            # A NaN is none of the chances that are left out: its gradient will be refused.
            yield from ((p, rows[row, c]) for c, p in enumerate(position) if p != 0)
        return
    for _ in range(samples):
        drawn = _draw(chances, generator).to(rows.device)
        yield 1 / samples, rows.gather(1, drawn).sum()


def _draw(chances: Tensor, generator: torch.Generator) -> Tensor:
    """Return a class for each row of probabilities: ``[rows, 1]``."""
    numbers = torch.rand(len(chances), 1, dtype=torch.float64, generator=generator)
    reached = chances.cumsum(1)
    places = torch.searchsorted(reached, numbers * reached[:, -1:], right=True)
    return places.clamp_(max=chances.shape[1] - 1)


def _add_squares(
    sums: dict[str, Tensor],
    parameters: dict[str, nn.Parameter],
    likelihood: Tensor,
    weight: float,
    example: int,
) -> None:
    gradients = torch.autograd.grad(
        likelihood, list(parameters.values()), retain_graph=True, allow_unused=True
    )
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        # Before squaring: the square of an fp16 gradient underflows below 2e-4.
        wide = gradient.float()
        if not bool(torch.isfinite(wide.sum())) and not bool(wide.isfinite().all()):
            raise MergeError(
                f"the gradient of {name} is not finite in example {example}",
                hint="compute in float32 or bfloat16",
            )
        sums[name].add_(wide.square_() if wide is not gradient else wide.square(), alpha=weight)
