"""How fast each merge strategy computes, beside what the memory of the device allows."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from git_theta import registry
from git_theta.merge.apply import merge_tensor, survey_model
from git_theta.merge.device import slice_elements, threads_on
from git_theta.merge.inputs import Inputs
from git_theta.merge.rules import Method
from git_theta.merge.strategy import Strategy, strategy, strategy_named

_WIDTH = 2048
_ROWS = 2048
_NOISE = 5e-4
_COPY_BLOCK = 1 << 22

Model = list[Inputs]


@strategy(slicing="element")
def nothing(models: Sequence[Tensor], base: Tensor) -> Tensor:
    """The first contributor: every input is read and widened, the result is rounded."""
    return models[0]


@dataclass
class Speed:
    """Of one strategy on one device: seconds of each run, and the bytes read and written.

    ``furthest`` is the largest distance to the CPU's result in bf16 units in the last place.
    """

    strategy: str
    device: str
    bytes: int
    seconds: list[float] = field(default_factory=list)
    furthest: int | None = None

    @property
    def rate(self) -> float:
        """GB/s of the median run."""
        return self.bytes / statistics.median(self.seconds) / 1e9


@dataclass(frozen=True)
class _Parameters:
    """A model in memory, as a survey sees it."""

    inputs: Model

    @property
    def names(self) -> Sequence[str]:
        return [each.name for each in self.inputs]

    @property
    def count(self) -> int:
        return sum(each.count for each in self.inputs)

    @property
    def wide(self) -> bool:
        return False

    @property
    def threads(self) -> int:
        return self.inputs[0].threads

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        by_name = {each.name: each for each in self.inputs}
        return (by_name[name] for name in names)


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


def measure(name: str, model: Model, device: str, runs: int) -> tuple[Speed, list[Tensor]]:
    """Merge ``model`` by a strategy's defaults; the speed and the merged tensors."""
    chosen = nothing if name == nothing.name else strategy_named(name)
    fewest, most = chosen.contributors
    number = min(len(model[0].contributors), most or fewest + len(model[0].contributors))
    method = Method(chosen, chosen.resolve({}, [f"branch{n}" for n in range(number)]))
    here = [_prepared(each, chosen, number, device) for each in model]
    speed = Speed(name, device, sum(map(_bytes, here)))
    merged: list[Tensor] = []
    with _torch_threads(_cores() if chosen.slicing == "tensor" else 1):
        for _ in range(runs):
            merged, took = _timed(lambda: _merge(method, here), device)
            speed.seconds.append(took)
    return speed, merged


def _prepared(inputs: Inputs, chosen: Strategy, number: int, device: str) -> Inputs:
    return replace(
        inputs.permuted(range(number)),
        statistics=_statistics(inputs, chosen, number),
        device=torch.device(device),
        threads=threads_on(torch.device(device), _cores()),
        slice_elements=slice_elements(torch.device(device), number),
    )


def _statistics(inputs: Inputs, chosen: Strategy, number: int) -> list[Tensor]:
    if chosen.statistic == "fisher":
        return [tensor.float().square() for tensor in inputs.contributors[:number]]
    if chosen.statistic == "gram":
        return [torch.eye(_WIDTH) + 0.1 * n for n in range(number)]
    return []


def _merge(method: Method, model: Model) -> list[Tensor]:
    found = survey_model(method, _Parameters(model))
    return [merge_tensor(method, each, found.get(each.name)) for each in model]


def _bytes(inputs: Inputs) -> int:
    assert inputs.base is not None
    tensors = [*inputs.contributors, *inputs.statistics, inputs.base, inputs.base]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def furthest(merged: Sequence[Tensor], expected: Sequence[Tensor]) -> int:
    """The largest distance between bf16 numbers, counted in bf16 numbers between them."""
    pairs = zip(merged, expected, strict=True)
    return max(int((_ordered(a) - _ordered(b)).abs().max()) for a, b in pairs)


def _ordered(tensor: Tensor) -> Tensor:
    bits = tensor.view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def copy_rate(device: str, size: int, runs: int) -> float:
    """GB/s of copying within the device's memory, what is read and what is written counted.

    On a CPU, blocks on as many threads as merging uses.
    """
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    if device != "cpu":
        return _best(lambda: target.copy_(source), device, runs, 2 * size)
    with _torch_threads(_cores()):
        return _best(lambda: target.copy_(source), device, runs, 2 * size)


def transfer_rate(device: str, size: int, runs: int) -> float:
    """GB/s from the CPU's memory, where the tool's tensors are, to the device."""
    source = torch.zeros(size, dtype=torch.uint8)
    return _best(lambda: source.to(device), device, runs, size)


def _best(work: Callable[[], object], device: str, runs: int, size: int) -> float:
    return size / min(_timed(work, device)[1] for _ in range(runs + 1)) / 1e9


def _timed(work: Callable[[], object], device: str) -> tuple[list[Tensor], float]:
    _wait(device)
    begin = time.perf_counter()
    result = work()
    _wait(device)
    seconds = time.perf_counter() - begin
    return (result if isinstance(result, list) else []), seconds


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    if device == "mps":
        torch.mps.synchronize()


def _cores() -> int:
    return os.cpu_count() or 1


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))
