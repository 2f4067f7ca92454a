"""Merge adapter configurations, which are mappings.

The keys are described at https://github.com/huggingface/peft, release 0.21.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from git_theta.adapters import Fields

# Further keys that choose modules, beside the names in target_modules.
_RULES = ("exclude_modules", "layers_to_transform", "layers_pattern")
_SAVED = "modules_to_save"
_LISTS = ("target_modules", _SAVED)
# Keys that do not affect the tensors of an adapter. Any other key may.
_FREE = (
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout"),
    *("peft_version", "revision", "task_type"),
)
_ABSENT = object()


def three_way(base: Fields | None, sides: Sequence[Fields]) -> Fields:
    """Merge key by key; where sides changed a key to different values, keep ours."""
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


def joined(rest: Fields, meaning: Fields) -> Fields:
    """Return the keys of ``meaning`` that affect tensors, with the other keys of ``rest``."""
    return {
        **{key: value for key, value in rest.items() if key in _FREE},
        **{key: value for key, value in meaning.items() if key not in _FREE},
    }


def contested(base: Fields | None, sides: Sequence[Fields]) -> bool:
    """Return whether sides changed a key that affects tensors to different values."""
    keys = {key for side in sides for key in side if key not in _FREE}
    return any(len(_changed(base or {}, sides, key)) > 1 for key in keys)


def _changed(base: Fields, sides: Sequence[Fields], key: str) -> set[str]:
    return {str(_set(side.get(key))) for side in sides} - {str(_set(base.get(key)))}


def say_the_same(one: Fields, other: Fields) -> bool:
    """Return whether two configurations are equal, whatever the order of their modules."""
    first, second = (
        {**fields, **{k: _set(fields.get(k)) for k in _LISTS}} for fields in (one, other)
    )
    return first == second


def _set(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value


def with_lists(fields: Fields, base: Fields | None, sides: Sequence[Fields]) -> Fields:
    """Return ``fields`` with the union of each list that several sides changed."""
    base = base or {}
    merged = dict(fields)
    for key in _LISTS:
        values = [side.get(key) for side in sides if side.get(key) != base.get(key, _ABSENT)]
        if key == _SAVED:
            values = [value or [] for value in values]
        if len(values) > 1 and (union := _union(values)):
            merged[key] = union
    return merged


def _union(values: Sequence[Any]) -> list[str] | None:
    """Return the union of the lists, in their order; ``None`` where a value is no list."""
    if not all(isinstance(value, list) for value in values):
        return None
    return list(dict.fromkeys(str(item) for value in values for item in value))


def with_targets(fields: Fields, sides: Sequence[Fields], modules: Sequence[str]) -> Fields:
    """Return ``fields`` with target modules that match ``modules``, those of the updates.

    The sides' own names are kept where they match; else every module is listed in full. PEFT
    adapts the modules whose name is one of the list, or ends with a dot and one of it.
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
