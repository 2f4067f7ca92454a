"""Renamed tensors, followed as Git follows renamed files.

A wrapper adds a prefix to all names (``module.``, ``_orig_mod.``, ``model.``): by name alone every
tensor is deleted and another one added. Equal content under a new name is a rename. So is near
content, by a sample, where the name ends alike or changes as other names do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from git_theta.manifest import TensorEntry
from git_theta.merge.planning.actions import Action, Conflict, Take
from git_theta.merge.planning.versions import Entry, Versions, entries

Near = Callable[[TensorEntry, TensorEntry], bool]

# Smaller tensors are equal by chance: biases of zeros, norms of ones.
_TELLING = 4096


@dataclass(frozen=True, slots=True)
class Renames:
    """``names`` maps names of the ancestor to those of the result; ``notes`` are for the user.

    ``disputed`` are tensors that sides renamed differently: the names, and a reason.
    """

    names: Mapping[str, str]
    notes: tuple[str, ...] = ()
    disputed: Mapping[str, str] = field(default_factory=dict)


def find_renames(versions: Versions, near: Near) -> Renames:
    """Return the tensors of the ancestor that a side has by another name.

    ``near`` returns whether two tensors of one dtype and shape hold nearly the same numbers.
    """
    if versions.base is None:
        return Renames({})
    before = entries(versions.base)
    tables = [entries(contributor.manifest) for contributor in versions.contributors]
    found = [_renames(before, table, near) for table in tables]
    names: dict[str, str] = {}
    disputed: dict[str, str] = {}
    for old in before:
        new = {side: each[old] for side, each in enumerate(found) if old in each}
        if len(set(new.values())) > 1:
            told = ", ".join(f"{versions.name(side)}: {name}" for side, name in new.items())
            disputed |= dict.fromkeys(new.values(), f"the sides renamed {old} differently ({told})")
        elif new:
            (name, *_) = new.values()
            # Where a side has both names, they are two tensors to it.
            if not any(old in table and name in table for table in tables):
                names[old] = name
    return Renames(names, _notes(versions, found, names), disputed)


def _notes(
    versions: Versions, found: Sequence[Mapping[str, str]], names: Mapping[str, str]
) -> tuple[str, ...]:
    notes = []
    for side, each in enumerate(found):
        followed = [old for old in each if names.get(old) == each[old]]
        if followed:
            example = f"{followed[0]} is {each[followed[0]]}"
            number = f"{len(followed):,} tensors" if len(followed) > 1 else "1 tensor"
            notes.append(f"{versions.name(side)} renamed {number}: {example}")
    return tuple(notes)


def _renames(before: Mapping[str, Entry], after: Mapping[str, Entry], near: Near) -> dict[str, str]:
    """Return the new names on one side by the old ones."""
    gone = {n: e for n, e in before.items() if n not in after and isinstance(e, TensorEntry)}
    new = {n: e for n, e in after.items() if n not in before and isinstance(e, TensorEntry)}
    found = _by_content(gone, new)
    affixes = Counter(_affixes(old, name) for old, name in found.items())
    taken, ends = set(found.values()), _by_end(new)
    for old in [name for name in gone if name not in found]:
        for name in _candidates(old, ends, affixes):
            if name not in taken and _is_like(gone[old], new[name]) and near(gone[old], new[name]):
                found[old] = name
                taken.add(name)
                break
    return found | _tied(before, after, found, affixes)


def _tied(
    before: Mapping[str, Entry],
    after: Mapping[str, Entry],
    found: Mapping[str, str],
    affixes: Counter[tuple[str, str]],
) -> dict[str, str]:
    """Return the new names of tied tensors, whose owners were ``found``."""
    new = {n: e for n, e in after.items() if n not in before and not isinstance(e, TensorEntry)}
    ends = _by_end(new)
    names: dict[str, str] = {}
    for old, entry in before.items():
        if old in after or isinstance(entry, TensorEntry):
            continue
        owner = found.get(entry.of, entry.of)
        alike = (name for name in _candidates(old, ends, affixes) if new[name].of == owner)
        if (name := next(alike, None)) and name not in names.values():
            names[old] = name
    return names


def _by_content(gone: Mapping[str, TensorEntry], new: Mapping[str, TensorEntry]) -> dict[str, str]:
    by_content: dict[object, list[str]] = {}
    for name, entry in new.items():
        by_content.setdefault(_content(entry), []).append(name)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for old, entry in gone.items():
        names = [name for name in by_content.get(_content(entry), []) if name not in taken]
        # Of several with one content (biases of zeros), the one whose name ends most alike.
        names.sort(key=lambda name: -_common_end(old, name))
        alike = [name for name in names if _common_end(old, name) == _common_end(old, names[0])]
        if len(alike) == 1 and (entry.length >= _TELLING or _common_end(old, alike[0])):
            found[old] = alike[0]
            taken.add(alike[0])
    return found


def _content(entry: TensorEntry) -> object:
    return entry.dtype, entry.shape, tuple(chunk.hash for chunk in entry.chunks)


def _is_like(one: TensorEntry, other: TensorEntry) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and bool(one.length)


def _common_end(one: str, other: str) -> int:
    """Return how many parts of two dotted names agree from the end."""
    count = 0
    for a, b in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if a != b:
            break
        count += 1
    return count


def _affixes(old: str, new: str) -> tuple[str, str]:
    """Return what names begin with that end alike: ``("", "module.")``."""
    shared = _common_end(old, new)
    ends = ".".join(old.split(".")[-shared:]) if shared else ""
    return old.removesuffix(ends), new.removesuffix(ends)


# Wrappers in wrappers add a few parts; names with thousands are somebody's attack.
_PARTS = 8


def _ends(name: str) -> list[str]:
    """Return the name, and what is left of it without its first parts."""
    found = [name]
    while "." in found[-1] and len(found) <= _PARTS:
        found.append(found[-1].partition(".")[2])
    return found


def _by_end(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names by each end that they have; every name is an end of itself."""
    found: dict[str, list[str]] = {}
    for name in names:
        for end in _ends(name):
            found.setdefault(end, []).append(name)
    return found


def _candidates(
    old: str, ends: Mapping[str, Sequence[str]], affixes: Counter[tuple[str, str]]
) -> list[str]:
    """Return names that ``old`` may have become: as others did, else by an added or cut prefix."""
    found = [
        begins + old.removeprefix(was)
        for (was, begins), _ in affixes.most_common(_PARTS)
        if old.startswith(was)
    ]
    found += [*ends.get(old, []), *_ends(old)[1:]]
    return [name for name in dict.fromkeys(found) if name in ends.get(name, ())]


def explained(
    actions: Sequence[Action], versions: Versions, disputed: Mapping[str, str]
) -> list[Action]:
    """Return the actions; a conflict about a deleted tensor tells what it may have become."""
    tables = [entries(contributor.manifest) for contributor in versions.contributors]
    before = entries(versions.base) if versions.base else {}
    return [_explain(action, versions, before, tables, disputed) for action in actions]


def _explain(
    action: Action,
    versions: Versions,
    before: Mapping[str, Entry],
    tables: Sequence[Mapping[str, Entry]],
    disputed: Mapping[str, str],
) -> Action:
    if action.name in disputed and isinstance(action, Take):
        return Conflict(action.name, disputed[action.name])
    entry = before.get(action.name)
    if not isinstance(action, Conflict) or not isinstance(entry, TensorEntry):
        return action
    for side, table in enumerate(tables):
        if action.name in table:
            continue
        new = {n: e for n, e in table.items() if n not in before and isinstance(e, TensorEntry)}
        for name in _candidates(action.name, _by_end(new), Counter()):
            if _is_like(entry, new[name]):
                reason = f"{action.reason}; {versions.name(side)} may have renamed it to {name}"
                return replace(action, reason=reason)
    return action


def doubled(actions: Sequence[Action], versions: Versions) -> tuple[str, ...]:
    """Return a note where the result has tensors by two names that no version has by both."""
    tables = [entries(contributor.manifest).keys() for contributor in versions.contributors]
    tables += [entries(versions.base).keys()] if versions.base else []
    seen: dict[object, list[str]] = {}
    for action in actions:
        entry = action.entry if isinstance(action, Take) else None
        if isinstance(entry, TensorEntry) and entry.length >= _TELLING:
            seen.setdefault(_content(entry), []).append(action.name)
    pairs = [
        (names[0], other)
        for names in seen.values()
        for other in names[1:]
        if not any(names[0] in table and other in table for table in tables)
    ]
    if not pairs:
        return ()
    (one, other), number = pairs[0], len(pairs)
    what = "a tensor" if number == 1 else f"{number:,} tensors"
    return (f"the result has {what} by two names: {one} and {other} are equal",)
