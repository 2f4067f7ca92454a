"""Why parameters cannot be merged, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from git_theta.adapters import CONFIG_FILE
from git_theta.core.dtypes import dtype
from git_theta.merge.units import Group
from git_theta.merge.versions import BASE, Versions

E = TypeVar("E")

# A float without sign and mantissa: the scale of other tensors. A mean of scales means nothing.
_NEVER_MERGED = ("F8_E8M0",)


def is_merged(name: str) -> bool:
    """Whether tensors of the dtype called ``name`` are ever averaged."""
    return dtype(name).kind == "float" and name not in _NEVER_MERGED


def changed(versions: Versions, group: Group) -> str:
    """Who changed the group."""
    return f"{versions.named(group.changed)} changed it"


def absent(versions: Versions, group: Group) -> str | None:
    """That some sides lack the group, if they do."""
    gone = [side for side in versions.sides if not group.is_in(side)]
    if not gone:
        return None
    kept = [side for side in group.changed if side not in gone]
    verbs = ("deleted", "changed") if group.is_in(BASE) else ("does not have", "added")
    return f"{versions.named(gone)} {verbs[0]} it, {versions.named(kept)} {verbs[1]} it"


def differing(
    versions: Versions, found: Mapping[int, E], how: str, show: Callable[[E], object]
) -> str | None:
    """That the sides differ in what ``show`` shows of what was ``found`` on each, if they do."""
    shown = {side: show(each) for side, each in found.items()}
    if len(set(map(str, shown.values()))) <= 1:
        return None
    listed = ", ".join(f"{versions.name(side)}: {text}" for side, text in shown.items())
    return f"the sides {how} ({listed})"


def unknown_config(versions: Versions, sides: Sequence[int]) -> str | None:
    """That the adapter's configuration is not known on some sides, if any has one."""
    lacking = [side for side in sides if not versions.adapter(side)]
    if all(versions.adapter(side) is None for side in sides):
        return None
    return f"{CONFIG_FILE} of {versions.named(lacking)} is not known" if lacking else None
