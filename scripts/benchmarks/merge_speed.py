"""How fast each merge strategy computes, beside what the memory of the device allows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from benchmarks.floors import cores, timed
from benchmarks.memory_model import MemoryModel
from git_theta.core import registry
from git_theta.merge.compute.tensor import merge_tensor, run_prepass
from git_theta.merge.kernels.device import slice_elements, threads_on, torch_threads
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.rules import Method
from git_theta.merge.rules.strategy import Strategy, strategy

_WIDTH = 2048
_ROWS = 2048
_NOISE = 5e-4
# Of a strategy that sees a tensor as a whole: a decomposition takes time in proportion to its cube.
_WHOLE = 1024
_BF16_DIGITS = 8

Model = list[Inputs]


@strategy(slicing="element")
def nothing(models: Sequence[Tensor], base: Tensor) -> Tensor:
    """The first contributor: every input is read and widened, the result is rounded."""
    return models[0]


@dataclass
class Speed:
    """Of one strategy on one device: seconds of each run, and the bytes read and written.

    ``processor`` are seconds of processor time, and ``elements`` those of the result. ``furthest``
    is the largest difference from the CPU's result, in bf16 units in the last place, and ``apart``
    the share of the elements that are more than one away.
    """

    strategy: str
    device: str
    bytes: int
    elements: int
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    furthest: float | None = None
    apart: float | None = None

    @property
    def median(self) -> float:
        """Seconds of the median run."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """GB/s of the median run."""
        return self.bytes / self.median / 1e9

    @property
    def pace(self) -> float:
        """Nanoseconds by the clock for an element, in the median run."""
        return self.median / self.elements * 1e9

    @property
    def cost(self) -> float:
        """Nanoseconds of processor time for an element, in the run that took least."""
        return min(self.processor) / self.elements * 1e9


def known() -> list[str]:
    """Strategies of tensors, each under its first name."""
    names: dict[str, str] = {}
    for name in registry.names("strategies"):
        if name != "take" and strategy_named(name).kind == "tensors":
            names.setdefault(registry.place("strategies", name), name)
    return list(names.values())


def devices() -> list[str]:
    """The CPU, and the GPU if there is one."""
    found = ["cuda"] if torch.cuda.is_available() else []
    found += ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *found]


def fewest(names: Iterable[str]) -> int:
    """How many contributors the most demanding of these strategies needs."""
    return max(_strategy(name).contributors[0] for name in names)


def read_bytes(model: Model) -> int:
    """Of contributors and base."""
    return sum(2 * each.count * (len(each.contributors) + 1) for each in model)


def make_model(size: int, contributors: int) -> Model:
    """Square bf16 matrices of about ``size`` bytes: a base, and contributors that differ a bit."""
    generator = torch.Generator().manual_seed(0)

    def gaussian(scale: float) -> Tensor:
        return torch.randn(_ROWS, _WIDTH, generator=generator) * scale

    model = []
    for number in range(max(1, size // (2 * _ROWS * _WIDTH))):
        base = gaussian(0.02)
        sides = [(base + gaussian(_NOISE)).bfloat16() for _ in range(contributors)]
        model.append(Inputs.of(f"layer.{number}.weight", sides, base.bfloat16()))
    return model


def model_for(name: str, model: Model) -> Model:
    """What a strategy is measured on: a corner of the first matrix, where it sees tensors whole."""
    if _strategy(name).slicing != "tensor":
        return model
    first, corner = model[0], (slice(_WHOLE), slice(_WHOLE))
    assert first.base is not None
    sides = [tensor[corner].contiguous() for tensor in first.contributors]
    return [Inputs.of(first.name, sides, first.base[corner].contiguous())]


def measure(
    name: str, model: Model, contributors: int, device: str, runs: int
) -> tuple[Speed, list[Tensor]]:
    """Merge ``contributors`` of ``model``, or as many as the strategy can, by its defaults.

    Returns the speed and the merged tensors.
    """
    chosen = _strategy(name)
    least, most = chosen.contributors
    number = max(least, min(contributors, most or contributors))
    method = Method(chosen, bind(chosen, {}, [f"branch{n}" for n in range(number)]))
    here = [_prepared(each, chosen, number, device) for each in model]
    speed = Speed(name, device, sum(map(_bytes, here)), sum(each.count for each in here))
    merged: list[Tensor] = []
    for _ in range(runs):
        before = time.process_time()
        merged, took = timed(lambda: _merge(method, here), device)
        speed.processor.append(time.process_time() - before)
        speed.seconds.append(took)
    return speed, merged


def _strategy(name: str) -> Strategy:
    return nothing if name == nothing.name else strategy_named(name)


def _prepared(inputs: Inputs, chosen: Strategy, number: int, device: str) -> Inputs:
    return replace(
        inputs.permuted(range(number)),
        statistics=_statistics(inputs, chosen, number),
        device=torch.device(device),
        threads=threads_on(torch.device(device), cores()),
        slice_elements=slice_elements(torch.device(device), number),
    )


def _statistics(inputs: Inputs, chosen: Strategy, number: int) -> list[Tensor]:
    if chosen.statistic == "fisher":
        return [tensor.float().square() for tensor in inputs.contributors[:number]]
    if chosen.statistic == "gram":
        return [torch.eye(inputs.shape[1]) + 0.1 * n for n in range(number)]
    return []


def _merge(method: Method, model: Model) -> list[Tensor]:
    """As the tool does it, with the threads that it gives torch."""
    with torch_threads(1):
        found = run_prepass(method, MemoryModel(model))
    with torch_threads(cores() if method.strategy.slicing == "tensor" else 1):
        return [merge_tensor(method, each, found.get(each.name)) for each in model]


def _bytes(inputs: Inputs) -> int:
    assert inputs.base is not None
    tensors = [*inputs.contributors, *inputs.statistics, inputs.base, inputs.base]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def differences(
    merged: Sequence[Tensor], expected: Sequence[Tensor], model: Model
) -> tuple[float, float]:
    """The largest difference, and the share of elements that are more than one unit apart.

    In bf16 units in the last place of the magnitude at that element: the largest of the inputs and
    results there. float32 rounds in proportion to what goes in, so where large numbers cancel,
    what is left of them may differ by many of its own units.
    """
    triples = zip(merged, expected, model, strict=True)
    units = torch.cat([_units(*triple).reshape(-1) for triple in triples])
    # NaN is not within one unit.
    return float(units.max()), 1 - float((units <= 1).double().mean())


def _units(merged: Tensor, expected: Tensor, inputs: Inputs) -> Tensor:
    assert inputs.base is not None
    known = [merged, expected, inputs.base, *inputs.contributors]
    magnitude = torch.stack([tensor.float().abs() for tensor in known]).amax(0)
    exponent = torch.frexp(magnitude).exponent
    return torch.ldexp((merged.float() - expected.float()).abs(), _BF16_DIGITS - exponent)
