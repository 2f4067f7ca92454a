"""``adapter_config.json`` of a merged adapter: ranks, scales and tokens as its tensors have them.

Source of what the keys mean: https://github.com/huggingface/peft, release 0.21.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from git_theta.adapters import Fields, config_of, parse_fields
from git_theta.errors import FormatError, MergeError
from git_theta.manifest import TensorEntry
from git_theta.merge import prompts
from git_theta.merge.factors import LoraUnit
from git_theta.merge.plan import Plan
from git_theta.merge.sources import config_path
from git_theta.merge.steps import Combine, Part, Take
from git_theta.merge.units import DOWN, place_of
from git_theta.merge.versions import Versions

# What else chooses modules, beside the names in target_modules.
_RULES = ("exclude_modules", "layers_to_transform", "layers_pattern")
_LISTS = ("target_modules", "modules_to_save")
_ABSENT = object()

Updates = Mapping[str, tuple[int, float]]
"""Rank and alpha (scale times rank) of the update of each module."""


def needed(plan: Plan) -> Fields | None:
    """What the configuration beside the merged adapter must say.

    ``None`` where a side has none. Raises ``MergeError`` for adapters of different types.
    """
    versions = plan.versions
    sides = [contributor.adapter for contributor in versions.contributors]
    known = [fields for fields in sides if fields]
    if not known or len(known) < len(sides):
        return None
    if len({fields.get("peft_type") for fields in known}) > 1:
        kinds = ", ".join(
            f"{c.name}: {(c.adapter or {}).get('peft_type')}" for c in versions.contributors
        )
        raise MergeError(f"these are adapters of different types ({kinds})", path=versions.path)
    updates = dict(_updates(plan))
    fields = _with_lists(three_way(versions), versions, known)
    fields = _with_targets(fields, known, list(updates))
    return _with_tokens(_with_updates(fields, updates), plan)


def as_git_merges(plan: Plan) -> bool:
    """Whether a merge of its lines gives the configuration that is needed."""
    wanted = needed(plan)
    return wanted is None or _same(wanted, three_way(plan.versions))


def text_of(fields: Fields) -> bytes:
    """The file, as PEFT writes it."""
    return json.dumps(fields, indent=2, sort_keys=True).encode()


def files(plan: Plan, before: bytes | None) -> dict[str, bytes]:
    """The file that must be written beside the merged adapter, if ``before`` will not do."""
    wanted = needed(plan)
    if wanted is None or (before is not None and _says(before, wanted)):
        return {}
    return {config_path(plan.versions.path): text_of(wanted)}


def _says(text: bytes, wanted: Fields) -> bool:
    try:
        return _same(parse_fields(text), wanted)
    except FormatError:
        return False  # git left conflict markers in it


def _same(one: Fields, other: Fields) -> bool:
    """Whether configurations say the same: the order of modules means nothing."""
    first, second = (
        {**fields, **{k: _set(fields.get(k)) for k in _LISTS}} for fields in (one, other)
    )
    return first == second


def _set(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value


def three_way(versions: Versions) -> dict[str, Any]:
    """Key by key what one side changed; ours, where several changed it to different values."""
    base = versions.base_adapter or {}
    sides = [contributor.adapter or {} for contributor in versions.contributors]
    merged = {}
    for key in dict.fromkeys(key for fields in sides for key in fields):
        values = [fields.get(key, _ABSENT) for fields in sides]
        changed = [value for value in values if value != base.get(key, _ABSENT)]
        agreed = changed and all(value == changed[0] for value in changed)
        chosen = changed[0] if agreed else values[0]
        if chosen is not _ABSENT:
            merged[key] = chosen
    return merged


def _with_lists(fields: Fields, versions: Versions, sides: Sequence[Fields]) -> dict[str, Any]:
    """With everything that any side has in lists that several sides changed."""
    base = versions.base_adapter or {}
    merged = dict(fields)
    for key in _LISTS:
        values = [side.get(key) for side in sides if side.get(key) != base.get(key, _ABSENT)]
        if len(values) > 1 and (joined := _union(values)):
            merged[key] = joined
    return merged


def _union(values: Sequence[Any]) -> list[str] | None:
    """What any of the lists has, in their order; ``None`` where one is no list."""
    if not all(isinstance(value, list) for value in values):
        return None
    return list(dict.fromkeys(str(item) for value in values for item in value))


def _with_targets(
    fields: dict[str, Any], sides: Sequence[Fields], modules: Sequence[str]
) -> dict[str, Any]:
    """With target modules that are those of the updates: by the sides' words for them, or all.

    PEFT adapts the modules whose name is, or ends like, one of the list.
    """
    target = fields.get("target_modules")
    rules_differ = any(len({str(side.get(key)) for side in sides}) > 1 for key in _RULES)
    words = target if isinstance(target, list) else None
    if not modules or (words is None and len({str(s.get("target_modules")) for s in sides}) == 1):
        return fields
    if not rules_differ:
        for candidate in (words, _union([side.get("target_modules") for side in sides])):
            if candidate and all(_any_means(candidate, module) for module in modules):
                kept = [word for word in candidate if any(_means(word, m) for m in modules)]
                return fields | {"target_modules": kept}
    return fields | dict.fromkeys(_RULES) | {"target_modules": sorted(modules)}


def _any_means(words: Sequence[str], module: str) -> bool:
    return any(_means(word, module) for word in words)


def _means(word: str, module: str) -> bool:
    return module == word or module.endswith(f".{word}")


def _updates(plan: Plan) -> dict[str, tuple[int, float]]:
    """The merged adapter's updates, by module."""
    found = {}
    for step in plan.kept:
        place = place_of(step.name)
        if place is None or place.role != DOWN:
            continue
        if isinstance(step, Part) and isinstance(step.unit, LoraUnit):
            rank, scale = step.entry.shape[0], step.unit.scale
        elif isinstance(step, Take) and isinstance(step.entry, TensorEntry):
            fields = plan.versions.adapter(step.side)
            if not fields:
                continue
            rank = step.entry.shape[0]
            scale = config_of(fields).scale_of(place.module, rank)
        else:
            continue
        found[place.module] = rank, scale * rank
    return found


def _with_updates(fields: dict[str, Any], updates: Updates) -> dict[str, Any]:
    """With ranks and alphas as the updates have them; as it is, where it says just that."""
    if not updates or _fits(fields, updates):
        return fields
    (rank, alpha), _ = Counter(updates.values()).most_common(1)[0]
    return fields | {
        "r": rank,
        "lora_alpha": _number(alpha),
        "rank_pattern": {name: r for name, (r, _) in updates.items() if r != rank},
        "alpha_pattern": {name: _number(a) for name, (_, a) in updates.items() if a != alpha},
        "use_rslora": False,
    }


def _fits(fields: Fields, updates: Updates) -> bool:
    config = config_of(fields)
    return all(
        config.rank_of(name) == rank and config.scale_of(name, rank) * rank == alpha
        for name, (rank, alpha) in updates.items()
    )


def _number(value: float) -> float:
    """Whole numbers as such: PEFT's alphas are."""
    return int(value) if value.is_integer() else value


def _with_tokens(fields: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """With the number of tokens that the prompt has."""
    for step in plan.kept:
        if step.name == prompts.NAME and not isinstance(step, Combine):
            parts = prompts.parts_of(fields)
            return fields | {"num_virtual_tokens": step.entry.shape[0] // parts}
    return fields
