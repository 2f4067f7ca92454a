"""``adapter_config.json`` of a merged adapter: ranks, scales and tokens as its tensors have them.

Source of what the keys mean: https://github.com/huggingface/peft, release 0.21.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from git_theta.adapters import (
    Fields,
    beyond_factors,
    check_supported,
    config_of,
    parse_fields,
)
from git_theta.errors import FormatError, MergeError, UsageError
from git_theta.manifest import TensorEntry
from git_theta.merge import prompts
from git_theta.merge.factors import LoraUnit
from git_theta.merge.plan import Plan
from git_theta.merge.sources import config_path
from git_theta.merge.steps import Combine, Part, Take
from git_theta.merge.units import DOWN, place_of
from git_theta.merge.versions import BASE, Versions

# What else chooses modules, beside the names in target_modules.
_RULES = ("exclude_modules", "layers_to_transform", "layers_pattern")
_SAVED = "modules_to_save"
_LISTS = ("target_modules", _SAVED)
_TOKENS = "num_virtual_tokens"
# What says nothing of the tensors of an adapter. Any other key may.
_FREE = (
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout"),
    *("peft_version", "revision", "task_type"),
)
_WHOLE = "take one side whole: git theta merge BRANCH --all --rule '*=take:side=theirs'"
_ABSENT = object()

Updates = Mapping[str, tuple[int, float]]
"""Rank and alpha (scale times rank) of the update of each module."""


def needed(plan: Plan) -> Fields | None:
    """What the configuration beside the merged adapter must say.

    ``None`` where a side has none. Raises ``MergeError`` for adapters of different types, and
    ``FormatError`` for a configuration that is malformed, if what it says is asked for.
    """
    try:
        return _needed(plan)
    except FormatError as error:
        raise error.at(config_path(plan.versions.path)) from error


def _needed(plan: Plan) -> Fields | None:
    versions = plan.versions
    sides = [contributor.adapter for contributor in versions.contributors]
    known = [fields for fields in sides if fields]
    if not known or len(known) < len(sides):
        return None
    if _types_differ(known):
        return _of_one_type(plan, known)
    fields = three_way(versions.base_adapter, known)
    if not plan.units and all(_same(side, known[0]) for side in known):
        return fields
    if not all(map(_is_understood, known)):
        if same := plan.equal_sides():
            chosen = [known[side] for side in same]
            return _joined(fields, three_way(versions.base_adapter, chosen))
        fields = _of_one_kind(fields, plan)
    fields = _with_lists(fields, versions, known)
    if all(map(_has_ranks, known)):
        updates = _updates(plan)
        fields = _with_updates(_with_targets(fields, known, list(updates)), updates)
    return _with_tokens(fields, plan)


def _types_differ(sides: Sequence[Fields]) -> bool:
    return len({str(fields.get("peft_type")) for fields in sides}) > 1


def _of_one_type(plan: Plan, sides: Sequence[Fields]) -> Fields:
    """That of the side which the result is, where the sides' adapters are of different types."""
    if same := plan.equal_sides():
        return sides[same[0]]
    names = zip(plan.versions.names, sides, strict=True)
    kinds = ", ".join(f"{name}: {fields.get('peft_type')}" for name, fields in names)
    raise MergeError(
        f"these are adapters of different types ({kinds})",
        path=plan.versions.path,
        hint=_WHOLE,
    )


def _is_understood(fields: Fields) -> bool:
    """Whether its updates are products of two factors and nothing else."""
    try:
        config_of(fields)
        check_supported(fields)
    except (FormatError, UsageError):
        return False
    return True


def _of_one_kind(fields: Fields, plan: Plan) -> Fields:
    """With what makes updates more than products of factors, on a side as which all of them are.

    It is said once for the whole adapter: updates of different kinds cannot be in one.
    """
    versions = plan.versions
    adapters = {side: versions.adapter(side) or {} for side in (*versions.sides, BASE)}
    kinds = {side: beyond_factors(adapter) for side, adapter in adapters.items()}
    steps = [step for step in plan.kept if place_of(step.name)]
    # Of sides that have the same tensors, one may have changed what it says of them.
    order = sorted(kinds, key=lambda side: kinds[side] == kinds[BASE])
    alike = (side for side in order if all(_is_of(kinds[side], step, kinds) for step in steps))
    chosen = next(alike, None)
    if chosen is None:
        shown = (f"{versions.name(n)}: {', '.join(kinds[n]) or 'plain'}" for n in versions.sides)
        raise MergeError(
            f"updates of different kinds cannot be in one adapter ({'; '.join(shown)})",
            path=versions.path,
            hint=_WHOLE,
        )
    keys = {key for kind in kinds.values() for key in kind}
    rest = {key: value for key, value in fields.items() if key not in keys}
    return rest | {key: value for key, value in adapters[chosen].items() if key in keys}


def _is_of(kind: Fields, step: Take | Combine | Part, kinds: Mapping[int, Fields]) -> bool:
    """Whether the update is of this kind, as it comes from some side."""
    if not isinstance(step, Take):
        return not kind
    return any(kinds[side] == kind for side in (step.holders or (step.side,)))


def _has_ranks(fields: Fields) -> bool:
    """Whether rows of A are the rank that the configuration has for the module."""
    is_other = fields.get("target_parameters") or fields.get("use_bdlora")
    return fields.get("peft_type") == "LORA" and not is_other


def as_git_merges(plan: Plan) -> bool:
    """Whether a merge of its lines gives the configuration that is needed.

    Not where several sides say different things of what tensors mean: git leaves a conflict then,
    and whoever settles it cannot see what the tensors were merged by.
    """
    wanted = needed(plan)
    if wanted is None:
        return True
    versions = plan.versions
    base = versions.base_adapter or {}
    sides = [contributor.adapter or {} for contributor in versions.contributors]
    keys = {key for side in sides for key in side if key not in _FREE}
    is_contested = any(len(_changed(base, sides, key)) > 1 for key in keys)
    return not is_contested and _same(wanted, three_way(base, sides))


def _changed(base: Fields, sides: Sequence[Fields], key: str) -> set[str]:
    """The values, other than the ancestor's, that sides have for a key."""
    return {str(_set(side.get(key))) for side in sides} - {str(_set(base.get(key)))}


def text_of(fields: Fields) -> bytes:
    """The file, as PEFT writes it."""
    return json.dumps(fields, indent=2, sort_keys=True).encode()


def files(plan: Plan, before: bytes | None) -> dict[str, bytes]:
    """The file that must be written beside the merged adapter, if ``before`` will not do."""
    wanted = needed(plan)
    if wanted is None:
        return {}
    found = _parsed(before)
    sides = [contributor.adapter or {} for contributor in plan.versions.contributors]
    if found is not None and not _types_differ(sides):
        # What git or a person made of the rest of it stays.
        wanted = _joined(found, wanted)
    if found is not None and _same(found, wanted):
        return {}
    return {config_path(plan.versions.path): text_of(wanted)}


def _parsed(text: bytes | None) -> Fields | None:
    try:
        return None if text is None else parse_fields(text)
    except FormatError:
        return None  # git left conflict markers in it


def _same(one: Fields, other: Fields) -> bool:
    """Whether configurations say the same: the order of modules means nothing."""
    first, second = (
        {**fields, **{k: _set(fields.get(k)) for k in _LISTS}} for fields in (one, other)
    )
    return first == second


def _set(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value


def _joined(rest: Fields, meaning: Fields) -> Fields:
    """What a configuration says of its tensors, with the other keys of another one."""
    return {
        **{key: value for key, value in rest.items() if key in _FREE},
        **{key: value for key, value in meaning.items() if key not in _FREE},
    }


def three_way(base: Fields | None, sides: Sequence[Fields]) -> Fields:
    """Key by key what one side changed; ours, where several changed it to different values."""
    base = base or {}
    merged = {}
    for key in dict.fromkeys(key for fields in sides for key in fields):
        values = [fields.get(key, _ABSENT) for fields in sides]
        changed = [value for value in values if value != base.get(key, _ABSENT)]
        agreed = changed and all(value == changed[0] for value in changed)
        chosen = changed[0] if agreed else values[0]
        if chosen is not _ABSENT:
            merged[key] = chosen
    return merged


def _with_lists(fields: Fields, versions: Versions, sides: Sequence[Fields]) -> Fields:
    """With everything that any side has in lists that several sides changed."""
    base = versions.base_adapter or {}
    merged = dict(fields)
    for key in _LISTS:
        values = [side.get(key) for side in sides if side.get(key) != base.get(key, _ABSENT)]
        if key == _SAVED:
            values = [value or [] for value in values]
        if len(values) > 1 and (joined := _union(values)):
            merged[key] = joined
    return merged


def _union(values: Sequence[Any]) -> list[str] | None:
    """What any of the lists has, in their order; ``None`` where one is no list."""
    if not all(isinstance(value, list) for value in values):
        return None
    return list(dict.fromkeys(str(item) for value in values for item in value))


def _with_targets(fields: Fields, sides: Sequence[Fields], modules: Sequence[str]) -> Fields:
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
                return {**fields, "target_modules": kept}
    return {**fields, **dict.fromkeys(_RULES), "target_modules": sorted(modules)}


def _any_means(words: Sequence[str], module: str) -> bool:
    return any(_means(word, module) for word in words)


def _means(word: str, module: str) -> bool:
    return module == word or module.endswith(f".{word}")


def _updates(plan: Plan) -> Updates:
    """The merged adapter's updates, by module."""
    found = {}
    for step in plan.kept:
        place = place_of(step.name)
        entry = step.entry
        if not (place and place.role == DOWN and isinstance(entry, TensorEntry) and entry.shape):
            continue
        rank = entry.shape[0]
        scale = _scale(plan.versions, step, place.module, rank) if rank else None
        if scale is not None:
            found[place.module] = rank, scale * rank
    return found


def _scale(versions: Versions, step: Take | Combine | Part, module: str, rank: int) -> float | None:
    """What the product is multiplied by; ``None`` where nothing says so.

    Of sides that have the same factors, one may have changed the scale alone: then that holds.
    """
    if isinstance(step, Part) and isinstance(step.unit, LoraUnit):
        return step.unit.scale
    if not isinstance(step, Take):
        return None

    def on(side: int) -> float | None:
        config = versions.config(side)
        return config.scale_of(module, rank) if config else None

    before = on(BASE)
    scales = [on(side) for side in (step.holders or (step.side,))]
    return next((scale for scale in scales if scale != before), scales[0])


def _with_updates(fields: Fields, updates: Updates) -> Fields:
    """With ranks and alphas as the updates have them; as it is, where it says just that."""
    if not updates or _fits(fields, updates):
        return fields
    plain = _described(fields, updates, lambda name: name)
    # A pattern is for every module whose name ends like it, unless it begins with ^.
    exact = _described(fields, updates, lambda name: f"^{re.escape(name)}")
    return plain if _fits(plain, updates) else exact


def _described(fields: Fields, updates: Updates, key: Callable[[str], str]) -> Fields:
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
    """Whole numbers as such: PEFT's alphas are."""
    return int(value) if value.is_integer() else value


def _with_tokens(fields: Fields, plan: Plan) -> Fields:
    """With the number of tokens that the prompt has."""
    step = next((step for step in plan.kept if step.name == prompts.NAME), None)
    if isinstance(step, Part):
        return {**fields, _TOKENS: step.entry.shape[0] // prompts.parts_of(fields)}
    if isinstance(step, Take) and _TOKENS in (own := plan.versions.adapter(step.side) or {}):
        return {**fields, _TOKENS: own[_TOKENS]}
    return fields
