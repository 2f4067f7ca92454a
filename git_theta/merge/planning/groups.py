"""Parameters that have a meaning only together, and are decided on as one.

The two factors of a low-rank update: one side's A times another's B is noise. Codes and their
scales of a quantized weight: likewise. Values of a sparse tensor whose places are not the same on
all sides: one side's values at another's places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from git_theta.manifest import TensorEntry
from git_theta.merge.planning import low_rank_names, quantized_names, sparse_names
from git_theta.merge.planning.low_rank_names import Place
from git_theta.merge.planning.versions import BASE, ParameterVersions

PROMPT = "prompt_embeddings"
"""PEFT's name of the tensor of a soft prompt, ``[tokens, width]``."""

Kind = Literal["single", "low-rank", "quantized", "sparse"]


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are decided on together, in the order of the file; mostly one.

    ``places`` are where they belong in an adapter, for those of a low-rank update, and ``scales``
    what the adapter's configuration multiplies it by, the ancestor's last: the two files of an
    adapter are one. ``partner`` is the name of a tensor that a single one looks like a factor
    beside.
    """

    parameters: tuple[ParameterVersions, ...]
    kind: Kind = "single"
    places: tuple[Place, ...] = ()
    partner: str | None = None
    scales: tuple[float | None, ...] = ()

    @property
    def is_lora(self) -> bool:
        """Return whether it is a low-rank update."""
        return self.kind == "low-rank"

    @property
    def name(self) -> str:
        """Name of the group in messages: its first parameter's."""
        return self.parameters[0].name

    def identity(self, side: int) -> tuple[object, ...]:
        """Return a key of a side that is equal where all parameters are, and what scales them."""
        scale = self.scales[side] if self.scales and self.is_in(side) else None
        return (*(parameter.identity(side) for parameter in self.parameters), scale)

    def is_in(self, side: int) -> bool:
        """Return whether a side has any of its parameters."""
        return any(parameter.identity(side) for parameter in self.parameters)

    @property
    def changed(self) -> list[int]:
        """The sides on which any parameter is not the common ancestor's."""
        sides = range(len(self.parameters[0].entries))
        return [side for side in sides if self.identity(side) != self.identity(BASE)]

    @property
    def module(self) -> str:
        """The module that a LoRA update is for."""
        return self.places[0].module

    def count(self, side: int) -> int:
        """Return the number of its parameters that a side has."""
        return sum(parameter.entry(side) is not None for parameter in self.parameters)

    def roles(self, side: int) -> dict[str, TensorEntry]:
        """Return a side's tensors by their roles in a LoRA update."""
        members = zip(self.places, self.parameters, strict=True)
        return {
            place.role: entry
            for place, parameter in members
            if isinstance(entry := parameter.entry(side), TensorEntry)
        }


def groups(parameters: Sequence[ParameterVersions]) -> list[Group]:
    """Group parameters that are decided on together, in the order of their first members."""
    by_name = {parameter.name: parameter for parameter in parameters}
    places, partners = low_rank_names.places_of(by_name), low_rank_names.partners(by_name)
    quantized_stems = _quantized(by_name)
    unknown = quantized_names.unknown_modules(by_name, quantized_stems)
    moved = _moved(parameters)
    found: dict[tuple[Kind, str, str], list[ParameterVersions]] = {}
    for name, parameter in by_name.items():
        key: tuple[Kind, str, str] = ("single", name, "")
        if place := places.get(name):
            key = ("low-rank", place.stem, place.adapter)
        elif (stem := quantized_names.stem_of(name)) in quantized_stems:
            key = ("quantized", stem, "")
        elif (module := name.rpartition(".")[0]) in unknown:
            key = ("quantized", module, "unknown")
        elif (sparse := sparse_names.stem_of(name)) in moved:
            key = ("sparse", str(sparse), "")
        found.setdefault(key, []).append(parameter)
    return [
        Group(
            tuple(members),
            kind,
            tuple(places[each.name] for each in members if kind == "low-rank"),
            partners.get(members[0].name) if kind == "single" else None,
        )
        for (kind, _, _), members in found.items()
    ]


def _quantized(parameters: Mapping[str, ParameterVersions]) -> set[str]:
    """Return the stems of the tensors of quantized weights."""
    stems: dict[str, list[ParameterVersions]] = {}
    for name, parameter in parameters.items():
        stems.setdefault(quantized_names.stem_of(name), []).append(parameter)
    return {
        stem
        for stem, members in stems.items()
        if len(members) > 1 and quantized_names.has_codes(members)
    }


def _moved(parameters: Sequence[ParameterVersions]) -> set[str | None]:
    """Return the stems of sparse tensors whose values are not at the same places everywhere."""
    return {
        sparse_names.stem_of(each.name)
        for each in parameters
        if sparse_names.has_places(each.name)
        and len({each.identity(side) for side in (BASE, *range(len(each.entries)))}) > 1
    }
