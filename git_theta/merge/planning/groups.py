"""Parameters that have a meaning only together: the two factors of a LoRA update.

A side's A and B belong to each other: one side's A times another's B is noise, so they are
decided on as one. Names are PEFT's: ``MODULE.lora_A.weight``, ``MODULE.lora_B.weight``, or with
an adapter's name in between, or ``MODULE.lora_embedding_A``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from git_theta.manifest import TensorEntry
from git_theta.merge.planning.versions import BASE, Identity, ParameterVersions

DOWN, UP = "A", "B"
"""The roles of a pair's factors; any other role (a bias, DoRA's magnitudes) makes it no pair."""

PROMPT = "prompt_embeddings"
"""PEFT's name of the tensor of a soft prompt, ``[tokens, width]``."""

_PREFIX = "base_model.model."
_MARK = ".lora_"
_ROLE = re.compile(r"[A-Za-z_]+")
_ROLES = {"A": DOWN, "B": UP, "embedding_A": DOWN, "embedding_B": UP}


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a parameter in an adapter: ``role`` in the update of ``module``.

    ``stem`` is the module's name in the file. ``adapter`` is its name, where a file holds several.
    """

    stem: str
    adapter: str
    role: str

    @property
    def module(self) -> str:
        """Name of the module in the adapter's configuration."""
        return self.stem.removeprefix(_PREFIX)


def place_of(name: str) -> Place | None:
    """Return the parameter's place in a LoRA update, if its name is that of one."""
    stem, _, rest = name.partition(_MARK)
    word, *words = rest.split(".")
    if not stem or not _ROLE.fullmatch(word):
        return None
    last, adapter = (words[-1], ".".join(words[:-1])) if words else ("weight", "")
    # An embedding's factors are parameters themselves: what follows is the adapter's name.
    if word not in ("A", "B") and last != "weight" and not adapter:
        last, adapter = "weight", last
    role = _ROLES.get(word, word)
    return Place(stem, adapter, role if last == "weight" else f"{role}.{last}")


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are decided on together, in the order of the file; mostly one.

    ``places`` are where they belong in an adapter, for those of a LoRA update.
    """

    parameters: tuple[ParameterVersions, ...]
    places: tuple[Place, ...] = ()

    @property
    def is_lora(self) -> bool:
        """Return whether it is a LoRA update."""
        return bool(self.places)

    @property
    def name(self) -> str:
        """Name of the group in messages: its first parameter's."""
        return self.parameters[0].name

    def identity(self, side: int) -> tuple[Identity | None, ...]:
        """Return a key of a side that is equal where all parameters are."""
        return tuple(parameter.identity(side) for parameter in self.parameters)

    def is_in(self, side: int) -> bool:
        """Return whether a side has any of its parameters."""
        return any(self.identity(side))

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


def groups(parameters: Iterable[ParameterVersions]) -> list[Group]:
    """Group parameters that are decided on together, in the order of their first members."""
    found: dict[object, list[tuple[ParameterVersions, Place | None]]] = {}
    for parameter in parameters:
        place = place_of(parameter.name)
        key = (place.stem, place.adapter) if place else parameter.name
        found.setdefault(key, []).append((parameter, place))
    return [
        Group(tuple(c for c, _ in members), tuple(p for _, p in members if p))
        for members in found.values()
    ]
