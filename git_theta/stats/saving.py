"""Statistics as a checkpoint of their own, beside the one that they are of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from git_theta import formats, manifest
from git_theta.errors import UsageError
from git_theta.formats.safetensors import header
from git_theta.system import FileSource, atomic_file
from git_theta.tensor import Layout, TensorSpan

_DOT = re.compile(r"\.")
# Modules around a model in another one: "base_model.model.bert." has three.
_DEEPEST = 3
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Statistics:
    """A tensor for each parameter, by its name in the model.

    ``fisher`` ones have the parameter's shape, ``gram`` ones are ``[in, in]`` for a weight
    ``[out, in]``. ``examples`` is how many they are the mean over.
    """

    kind: Literal["fisher", "gram"]
    tensors: Mapping[str, Tensor]
    examples: int

    def save(
        self, checkpoint: str | Path, dtype: Literal["float32", "bfloat16"] = "float32"
    ) -> Path:
        """Write them beside ``checkpoint``, as ``<its stem>.<kind>.safetensors``; returns the path.

        Names become those of the checkpoint, which may have more or fewer modules in front of
        them; what the checkpoint does not have (a head on top, another shard) is left out. bf16
        has the range of float32 and 8 bits of precision, which weights of a mean do not need more
        of. The same tensors give the same bytes.

        Raises ``UsageError`` where statistics and checkpoint do not fit; nothing is written then.
        """
        if dtype not in _DTYPES:
            raise UsageError(f"dtype={dtype!r}: statistics are float32 or bfloat16")
        path = Path(checkpoint)
        named = dict(self._named(_layout(path)))
        if not named:
            raise UsageError(
                "the checkpoint has no parameter of which there are statistics", path=str(path)
            )
        target = path.with_name(f"{path.stem}.{self.kind}.safetensors")
        about = {"examples": str(self.examples), "statistic": self.kind}
        with atomic_file(target) as file:
            file.write(header(about, [_span(name, t, dtype) for name, t in sorted(named.items())]))
            for _, tensor in sorted(named.items()):
                stored = tensor.detach().to("cpu", _DTYPES[dtype]).contiguous()
                file.write(stored.reshape(-1).view(torch.uint8).numpy().data)
        return target

    def _named(self, layout: Layout) -> Iterator[tuple[str, Tensor]]:
        """Tensors by the names of the checkpoint's parameters that own the bytes."""
        owners = {alias.name: alias.of for alias in layout.aliases}
        shapes = {span.name: span.shape for span in layout.spans}
        shapes |= {alias.name: alias.shape for alias in layout.aliases}
        for name, found in in_checkpoint(list(self.tensors), shapes).items():
            self._check(found, shapes[found], self.tensors[name])
            yield owners.get(found, found), self.tensors[name]

    def _check(self, name: str, shape: tuple[int, ...], tensor: Tensor) -> None:
        wanted = shape if self.kind == "fisher" else (shape[1:] * 2 if len(shape) == 2 else None)
        if tuple(tensor.shape) != wanted:
            raise UsageError(
                f"{name} is {list(shape)} in the checkpoint, its {self.kind} statistics are "
                f"{list(tensor.shape)}",
                hint="save the model that they were computed with",
            )


def _span(name: str, tensor: Tensor, dtype: str) -> TensorSpan:
    kind = "F32" if dtype == "float32" else "BF16"
    length = tensor.numel() * _DTYPES[dtype].itemsize
    return TensorSpan(name, kind, tuple(tensor.shape), 0, length)


def in_checkpoint(names: Sequence[str], known: Iterable[str]) -> dict[str, str]:
    """A model's names of parameters to the checkpoint's, for those that it has.

    One prefix is taken from the names of the model, such as the ``bert.`` of a classifier, or put
    before them: the one that makes the most of them known, of several the shortest.
    """
    there = set(known)
    best = {name: name for name in names if name in there}
    for prefix in _prefixes(names):
        taken = {name: name[len(prefix) :] for name in names if name.startswith(prefix)}
        best = max(best, _known(taken, there), key=len)
    for prefix in _prefixes(there):
        best = max(best, _known({name: prefix + name for name in names}, there), key=len)
    return best


def _prefixes(names: Iterable[str]) -> list[str]:
    """What names begin with, up to their first three dots; short ones first."""
    dots = (dot for name in names for dot in islice(_DOT.finditer(name), _DEEPEST))
    found = {dot.string[: dot.end()] for dot in dots}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _known(renamed: Mapping[str, str], there: set[str]) -> dict[str, str]:
    return {old: new for old, new in renamed.items() if new in there}


def _layout(path: Path) -> Layout:
    try:
        with FileSource(path) as source:
            if source.size and manifest.is_manifest(source.read(0, min(64, source.size))):
                raise UsageError(
                    "the file is still a manifest",
                    path=str(path),
                    hint=f"git theta checkout {path}",
                )
            layout, _ = formats.scan(source, path.name)
    except FileNotFoundError:
        raise UsageError(
            "there is no such checkpoint", path=str(path), hint="save the model first"
        ) from None
    return layout
