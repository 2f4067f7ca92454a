"""Configurations of adapters as mappings: what sides say, made one.

Source of what the keys mean: https://github.com/huggingface/peft, release 0.21.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from git_theta.adapters import Fields

# What else chooses modules, beside the names in target_modules.
_RULES = ("exclude_modules", "layers_to_transform", "layers_pattern")
_SAVED = "modules_to_save"
_LISTS = ("target_modules", _SAVED)
# What says nothing of the tensors of an adapter. Any other key may.
_FREE = (
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout"),
    *("peft_version", "revision", "task_type"),
)
_ABSENT = object()


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


def joined(rest: Fields, meaning: Fields) -> Fields:
    """What a configuration says of its tensors, with the other keys of another one."""
    return {
        **{key: value for key, value in rest.items() if key in _FREE},
        **{key: value for key, value in meaning.items() if key not in _FREE},
    }


def contested(base: Fields | None, sides: Sequence[Fields]) -> bool:
    """Whether several sides changed to different values what says something of tensors."""
    keys = {key for side in sides for key in side if key not in _FREE}
    return any(len(_changed(base or {}, sides, key)) > 1 for key in keys)


def _changed(base: Fields, sides: Sequence[Fields], key: str) -> set[str]:
    return {str(_set(side.get(key))) for side in sides} - {str(_set(base.get(key)))}


def say_the_same(one: Fields, other: Fields) -> bool:
    """Whether configurations say the same: the order of modules means nothing."""
    first, second = (
        {**fields, **{k: _set(fields.get(k)) for k in _LISTS}} for fields in (one, other)
    )
    return first == second


def _set(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value


def with_lists(fields: Fields, base: Fields | None, sides: Sequence[Fields]) -> Fields:
    """With everything that any side has in lists that several sides changed."""
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
    """What any of the lists has, in their order; ``None`` where one is no list."""
    if not all(isinstance(value, list) for value in values):
        return None
    return list(dict.fromkeys(str(item) for value in values for item in value))


def with_targets(fields: Fields, sides: Sequence[Fields], modules: Sequence[str]) -> Fields:
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
