"""The decision on a low-rank update: its factors are merged as their product or not at all.

PEFT has the scales of updates in a file beside the adapter, kohya in ``alpha`` tensors beside the
factors: rank times scale, and a scale of 1 where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta.adapters import CONFIG_FILE, check_supported
from git_theta.errors import ThetaError
from git_theta.manifest import TensorEntry
from git_theta.merge.planning.actions import Action, UnitMember, result_entry
from git_theta.merge.planning.conflicts import absent, changed, differing, is_merged, unknown_config
from git_theta.merge.planning.groups import Group
from git_theta.merge.planning.low_rank_names import ALPHA, DOWN, UP, is_lower_case, kind_of
from git_theta.merge.planning.policy import Policy
from git_theta.merge.planning.versions import BASE, Versions
from git_theta.merge.rules.rules import Method, Rule


@dataclass(frozen=True, slots=True)
class Pair:
    """The update ``scale`` B A of a weight: A is ``[r, in, ...]``, B ``[out, r, ...]``.

    Where there is an ``alpha``, a tensor of one number, the scale is that over the rank.
    """

    down: TensorEntry
    up: TensorEntry
    scale: float
    alpha: TensorEntry | None = None

    @property
    def entries(self) -> list[TensorEntry]:
        """Its tensors."""
        return [self.down, self.up, *([self.alpha] if self.alpha else [])]

    @property
    def rank(self) -> int:
        """Number of rows of A."""
        return self.down.shape[0]


@dataclass(frozen=True, slots=True)
class LoraUnit:
    """A LoRA update that is merged; ``sides`` are the contributors that have it.

    ``results`` are A and B of the merged update, and alpha where a side has one, which then tells
    its scale; else it is ``scale``.
    """

    name: str
    module: str
    rule: Rule
    method: Method
    sides: tuple[int, ...]
    pairs: tuple[Pair, ...]
    base: Pair | None
    scale: float
    results: tuple[TensorEntry, ...]

    @property
    def inputs(self) -> list[TensorEntry]:
        """Every factor that is read."""
        pairs = [*self.pairs, *([self.base] if self.base else [])]
        return [entry for pair in pairs for entry in pair.entries]

    @property
    def weight(self) -> int:
        """Number of bytes of these factors and of the merged ones."""
        return sum(entry.length for entry in (*self.inputs, *self.results))

    @property
    def values(self) -> dict[str, object]:
        """The method's values for the contributors that have the update."""
        return self.method.values_of(self.sides)


def with_scales(versions: Versions, group: Group) -> Group:
    """Return the group with the scales of the update, as far as they are known."""
    sides = (*versions.sides, BASE)
    return replace(group, scales=tuple(_known_scale(versions, group, side) for side in sides))


def _known_scale(versions: Versions, group: Group, side: int) -> float | None:
    try:
        config, roles = versions.config(side), group.roles(side)
        rank = roles[DOWN].shape[0] if DOWN in roles and roles[DOWN].shape else 0
        return config.scale_of(group.module, rank) if config and rank else None
    except ThetaError:
        return None  # who merges the update says so


def problem(versions: Versions, group: Group, policy: Policy) -> str | None:
    """Return the reason why no strategy can merge the update, if none can."""
    if group.is_in(BASE) and (gone := absent(versions, group)):
        return gone
    places = [side for side in (*versions.sides, BASE) if group.is_in(side)]
    found = {side: group.roles(side) for side in places}
    for side, roles in found.items():
        if reason := _no_pair(roles, group.count(side)):
            return f"{changed(versions, group)}, and {reason}"
    return differing(versions, found, "have updates of different weights", _weight) or differing(
        versions, found, "have different dtypes", lambda roles: roles[DOWN].dtype
    )


def merge(
    versions: Versions, group: Group, rule: Rule, method: Method, policy: Policy
) -> list[Action] | str:
    """Merge the update by ``method``, or return the reason why it cannot be merged."""
    if method.strategy.kind != "factors":
        return (
            f"{changed(versions, group)}, and {method.strategy.name} cannot merge LoRA factors: "
            "merge them by svd or cat"
        )
    places = [side for side in (*versions.sides, BASE) if group.is_in(side)]
    if unknown := _unknown_scale(versions, group, places):
        return unknown
    unit = _unit(versions, group, rule, method)
    if reason := _unknown_ranks(versions, unit):
        return reason
    order = [place.role for place in group.places]
    if len(order) > len(unit.results):
        return f"{versions.named(_sides(versions, group))} removed its alpha"
    return [UnitMember(unit, (DOWN, UP, ALPHA).index(role)) for role in order]


def _unknown_ranks(versions: Versions, unit: LoraUnit) -> str | None:
    """Return the reason why nothing says the scale of another rank, if nothing does."""
    ranks = [pair.rank for pair in (*unit.pairs, *([unit.base] if unit.base else []))]
    if len(unit.results) > len((DOWN, UP)) or versions.adapter(unit.sides[0]) is not None:
        return None
    if len(set(ranks)) > 1:
        listed = ", ".join(map(str, ranks))
        return f"its ranks differ ({listed}), and there is no {CONFIG_FILE} to say the scales"
    if unit.results[0].shape[0] != ranks[0]:
        return f"its rank would change, and there is no {CONFIG_FILE} beside it to say so"
    return None


def _sides(versions: Versions, group: Group) -> tuple[int, ...]:
    """Return the contributors that have the update."""
    return tuple(side for side in versions.sides if group.is_in(side))


def _unit(versions: Versions, group: Group, rule: Rule, method: Method) -> LoraUnit:
    sides = _sides(versions, group)
    pairs = tuple(_pair(versions, group, side) for side in sides)
    base = _pair(versions, group, BASE) if group.is_in(BASE) else None
    rank = method.strategy.rank_of(
        method.values_of(sides), [pair.rank for pair in pairs], base.rank if base else 0
    )
    first = pairs[0]
    alphas = [pair.alpha for pair in pairs if pair.alpha]
    return LoraUnit(
        name=group.name,
        module=group.module,
        rule=rule,
        method=method,
        sides=sides,
        pairs=pairs,
        base=base,
        # With the rank of ours, the configuration of ours stays valid.
        scale=first.scale if rank == first.rank else 1.0,
        results=(
            result_entry(first.down, (rank, *first.down.shape[1:])),
            result_entry(first.up, (first.up.shape[0], rank, *first.up.shape[2:])),
            *(result_entry(alpha, alpha.shape) for alpha in alphas[:1]),
        ),
    )


def _pair(versions: Versions, group: Group, side: int) -> Pair:
    roles, config = group.roles(side), versions.config(side)
    rank = roles[DOWN].shape[0]
    scale = config.scale_of(group.module, rank) if config else 1.0
    return Pair(roles[DOWN], roles[UP], scale, roles.get(ALPHA))


def _no_pair(roles: Mapping[str, TensorEntry], count: int) -> str | None:
    """Return the reason why ``count`` parameters, by role, are not a pair of factors, if so."""
    if kind := kind_of(roles):
        return f"it is a {kind} update, whose factors no strategy can merge"
    if set(roles) - {ALPHA} != {DOWN, UP} or count != len(roles):
        return f"it is not a pair of LoRA factors ({', '.join(sorted(roles)) or 'tied'})"
    down, up, alpha = roles[DOWN], roles[UP], roles.get(ALPHA)
    if alpha and not (is_merged(alpha.dtype) and math.prod(alpha.shape) == 1):
        return f"its alpha is {alpha.dtype} {list(alpha.shape)}"
    if not (is_merged(down.dtype) and down.dtype == up.dtype):
        return f"its factors are {down.dtype} and {up.dtype}"
    shapes = down.shape, up.shape
    if (
        min(map(len, shapes)) < 2
        or not 0 < down.shape[0] == up.shape[1]
        or math.prod(up.shape[2:]) != 1
        or (is_lower_case(down.name) and down.shape[0] > min(up.shape[0], down.shape[1]))
    ):
        return f"{list(down.shape)} and {list(up.shape)} are not a pair of LoRA factors"
    return None


def _weight(roles: Mapping[str, TensorEntry]) -> str:
    """Return the shape of the weight that the factors update."""
    down, up = roles[DOWN], roles[UP]
    return str([up.shape[0], *down.shape[1:]])


def _unknown_scale(versions: Versions, group: Group, sides: Sequence[int]) -> str | None:
    """Return the reason why the scales of the updates are not known or not usable, if so."""
    if unknown := unknown_config(versions, sides):
        return unknown
    for side in sides:
        try:
            config = versions.config(side)
            if config is not None:
                check_supported(versions.adapter(side) or {})
                scale = config.scale_of(group.module, group.roles(side)[DOWN].shape[0])
                if not (scale and math.isfinite(scale)):
                    return f"of {versions.name(side)}: it is scaled by {scale:g}"
        except ThetaError as error:
            return f"of {versions.name(side)}: {error.message}"
    return None
