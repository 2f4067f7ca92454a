"""Ranks and scales of a merged adapter's updates, and a configuration with exactly these."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

from git_theta.adapters import Fields, config_of
from git_theta.manifest import TensorEntry
from git_theta.merge.planning.actions import Merge, Plan, Take, UnitMember
from git_theta.merge.planning.lora import LoraUnit
from git_theta.merge.planning.low_rank_names import DOWN, place_of
from git_theta.merge.planning.versions import BASE, Versions

Updates = Mapping[str, tuple[int, float]]
"""Rank and alpha (scale times rank) of the update of each module."""


def updates_of(plan: Plan) -> Updates:
    """Return rank and alpha of the merged adapter's updates, by module."""
    found = {}
    for action in plan.kept:
        place = place_of(action.name)
        entry = action.entry
        if not (place and place.role == DOWN and isinstance(entry, TensorEntry) and entry.shape):
            continue
        rank = entry.shape[0]
        scale = _scale(plan.versions, action, place.module, rank) if rank else None
        if scale is not None:
            found[place.module] = rank, scale * rank
    return found


def _scale(
    versions: Versions, action: Take | Merge | UnitMember, module: str, rank: int
) -> float | None:
    """Return the factor that the product is multiplied by; ``None`` where it is not known.

    Of sides that have the same factors, one may have changed the scale alone: its scale counts.
    """
    if isinstance(action, UnitMember) and isinstance(action.unit, LoraUnit):
        return action.unit.scale
    if not isinstance(action, Take):
        return None

    def on(side: int) -> float | None:
        config = versions.config(side)
        return config.scale_of(module, rank) if config else None

    before = on(BASE)
    scales = [on(side) for side in (action.holders or (action.side,))]
    return next((scale for scale in scales if scale != before), scales[0])


def with_updates(fields: Fields, updates: Updates) -> Fields:
    """Return ``fields`` with the ranks and alphas of the updates; unchanged where it has them."""
    if not updates or _fits(fields, updates):
        return fields
    plain = _with_patterns(fields, updates, lambda name: name)
    # A pattern matches every module whose name ends with it, unless it begins with ^.
    exact = _with_patterns(fields, updates, lambda name: f"^{re.escape(name)}")
    return plain if _fits(plain, updates) else exact


def _with_patterns(fields: Fields, updates: Updates, key: Callable[[str], str]) -> Fields:
    (rank, alpha), _ = Counter(updates.values()).most_common(1)[0]
    return {
        **fields,
        "r": rank,
        "lora_alpha": _number(alpha),
        "rank_pattern": {key(name): r for name, (r, _) in updates.items() if r != rank},
        "alpha_pattern": {key(name): _number(a) for name, (_, a) in updates.items() if a != alpha},
        "use_rslora": False,
    }


def _fits(fields: Fields, updates: Updates) -> bool:
    config = config_of(fields)
    return all(
        config.rank_of(name) == rank and config.scale_of(name, rank) * rank == alpha
        for name, (rank, alpha) in updates.items()
    )


def _number(value: float) -> float:
    """Return a whole number as an ``int``, as PEFT's alphas are."""
    return int(value) if value.is_integer() else value
