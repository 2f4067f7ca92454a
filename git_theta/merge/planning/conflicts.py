"""Messages about conflicts: why parameters cannot be merged, and how to resolve that."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

from git_theta.adapters import CONFIG_FILE
from git_theta.core.dtypes import dtype
from git_theta.core.grouping import by_pattern, pattern_of
from git_theta.core.messages import as_typed
from git_theta.errors import ConflictError, MergeError
from git_theta.git.operation import Operation
from git_theta.merge.planning.actions import Conflict, Plan
from git_theta.merge.planning.groups import Group
from git_theta.merge.planning.policy import FIXED, Policy
from git_theta.merge.planning.sources import config_path
from git_theta.merge.planning.versions import BASE, Versions
from git_theta.merge.rules.request import OUT_DTYPES, Request, typed_options
from git_theta.merge.rules.rules import Rule, first_match

_SHOWN = 5
_LISTED = "git theta strategies lists them"
_ALLOWING = ("--allow-nan", "--allow-stale")

E = TypeVar("E")

# From wide to narrow; where neither of two holds the other, the next wider one does.
_WIDTHS = ("F64", "F32", "BF16", "F16")

# A float without sign and mantissa: the scale of other tensors. A mean of scales means nothing.
_NEVER_MERGED = ("F8_E8M0",)


def is_merged(name: str) -> bool:
    """Return whether tensors of the dtype called ``name`` are ever averaged."""
    return dtype(name).kind == "float" and name not in _NEVER_MERGED


def wider(names: Iterable[str]) -> str | None:
    """Return the float dtype that holds all numbers of those called ``names``, if there is one."""
    found = set(names)
    if not found <= set(_WIDTHS):
        return None
    return "F32" if found == {"BF16", "F16"} else min(found, key=_WIDTHS.index)


def changed(versions: Versions, group: Group) -> str:
    """Return a clause that names the sides that changed the group."""
    return f"{versions.named(group.changed)} changed it"


def absent(versions: Versions, group: Group) -> str | None:
    """Return a clause that names the sides that lack the group, if any does."""
    gone = [side for side in versions.sides if not group.is_in(side)]
    if not gone:
        return None
    kept = [side for side in group.changed if side not in gone]
    verbs = ("deleted", "changed") if group.is_in(BASE) else ("does not have", "added")
    return f"{versions.named(gone)} {verbs[0]} it, {versions.named(kept)} {verbs[1]} it"


def differing(
    versions: Versions, found: Mapping[int, E], how: str, show: Callable[[E], object]
) -> str | None:
    """Return a clause that lists ``show`` of what was ``found`` on each side, if they differ."""
    shown = {side: show(each) for side, each in found.items()}
    if len(set(map(str, shown.values()))) <= 1:
        return None
    listed = ", ".join(f"{versions.name(side)}: {text}" for side, text in shown.items())
    return f"the sides {how} ({listed})"


def unknown_config(versions: Versions, sides: Sequence[int]) -> str | None:
    """Return a clause that names the sides whose configuration is not known, if one has any."""
    lacking = [side for side in sides if not versions.adapter(side)]
    if all(versions.adapter(side) is None for side in sides):
        return None
    return f"{CONFIG_FILE} of {versions.named(lacking)} is not known" if lacking else None


def by_kind(conflicts: Iterable[Conflict]) -> list[tuple[str, list[Conflict]]]:
    """Group conflicts by pattern and reason, in their natural order."""
    return by_pattern(conflicts, lambda each: each.name, lambda each: each.reason)


def conflict_error(
    plan: Plan, state: str = "the file in the work tree is ours", command: str | None = None
) -> ConflictError:
    """Return an error that lists the conflicts, and how ``command`` resolves them."""
    conflicts, path = plan.conflicts, plan.versions.path
    lines = [_conflict_line(*kind) for kind in by_kind(conflicts)]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"... and {len(lines) - _SHOWN} more kinds"]
    number = "1 tensor is" if len(conflicts) == 1 else f"{len(conflicts):,} tensors are"
    return ConflictError(
        f"{number} in conflict; {state}",
        path=path or None,
        details=lines,
        hint=f"{command or resolving(path)} {_remedy(plan)}",
    )


def _remedy(plan: Plan) -> str:
    """Return options that resolve the conflicts: take a side where a rule matched already.

    Options that the user typed are repeated, as they decided on the other tensors.
    """
    versions, policy = plan.versions, plan.policy
    fixed = [rule for rules in FIXED.values() for rule in rules]
    rules = [rule for rule in policy.rules if not any(rule is each for each in fixed)]
    stuck = [
        each.name
        for each in plan.conflicts
        if each.is_final or first_match(rules, each.name, versions.path)
    ]
    patterns = list(dict.fromkeys(map(_glob, stuck)))[:_SHOWN]
    options = [f"--rule {shlex.quote(f'{glob}=take:side=SIDE')}" for glob in patterns]
    options += typed(policy.typed, policy)
    if len(stuck) < len(plan.conflicts):
        options.append(f"--strategy NAME ({_LISTED})")
    words = ("ours", "theirs") if len(versions.names) == 2 else ()
    names = dict.fromkeys((*words, *versions.names))
    sides = f", where SIDE is {', '.join(names)}" if stuck else ""
    return " ".join(options) + sides


def typed(rules: Sequence[Rule], asked: Policy | Request) -> list[str]:
    """Return the options that the user typed, as a shell takes them."""
    options = typed_options(rules)
    flags = {"--allow-nan": asked.allow_nan, "--widen": asked.widen}
    flags["--allow-stale"] = asked.allow_stale
    options += [flag for flag, is_set in flags.items() if is_set]
    options += [f"--rows {asked.rows}"] if asked.rows else []
    options += [f"--out-dtype {n}" for n, dtype in OUT_DTYPES.items() if dtype == asked.out_dtype]
    # Those of a recipe, in which every tensor is merged, are in its file.
    slices = () if asked.everything else asked.slices
    options += [f"--slice {as_typed(str(each))}" for each in slices]
    return options


@contextmanager
def saying_how(command: str, rules: Sequence[Rule], asked: Policy | Request) -> Iterator[None]:
    """Give an error in the body a command as its hint, if options settle it.

    These are what the hint begins or ends with, or a rule that takes one side of the error's
    tensor. ``command`` is what merges, ``rules`` are those that the user typed; ``asked`` has the
    flags.
    """
    try:
        yield
    except MergeError as error:
        hint, known = error.hint or "", typed(rules, asked)
        for option in _ALLOWING:
            if hint.endswith(option):
                error.hint = " ".join([command, *known, option])
        if hint.startswith("--"):
            error.hint = " ".join([command, *known, hint])
        if error.tensor and not hint:
            rule = f"{literal(error.tensor)}=take:side=ours"
            words = [command, f"--rule {shlex.quote(rule)}", *known]
            error.hint = f"{' '.join(words)} (or side=theirs)"
        raise


def resolving(path: str) -> str:
    """Return the command that resolves a conflict in which git has left ``path``."""
    return f"git theta resolve {typed_here(path)}"


def typed_here(path: str) -> str:
    """Return a path as it is typed in the folder where the user called git.

    Git runs drivers and hooks at the top, and says in ``GIT_PREFIX`` where it was called.
    """
    prefix = os.environ.get("GIT_PREFIX")
    return as_typed(os.path.relpath(path, prefix) if prefix else path)


def literal(name: str) -> str:
    """Return a pattern that matches a name alone, and can stand in a rule."""
    return re.sub(r"[\[*?]", r"[\g<0>]", name).replace("=", "?")


def taking(path: str, side: Literal["ours", "theirs"]) -> str:
    """Return the command that takes one side of a file that git has left in conflict."""
    word = typed_here(path)
    return f"git checkout --{side} -- {word} && git add {word}"


@contextmanager
def taking_whole(path: str, doing: Operation) -> Iterator[None]:
    """Give an error in the body, of adapters that cannot be one, the command that takes theirs.

    Options of `git theta merge`, which the error has, are of no use where git left a conflict.
    """
    try:
        yield
    except MergeError as error:
        if (error.hint or "").startswith("--"):
            both = f"{typed_here(path)} {typed_here(config_path(path))}"
            merged = f"git checkout MERGE_HEAD -- {both}"
            error.hint = merged if doing == "merge" else taking(path, "theirs")
        raise


def _glob(name: str) -> str:
    """Return the pattern of a name, unless it is one that all names match."""
    found = pattern_of(name)
    return name if found == "*" else found


def _conflict_line(pattern: str, group: Sequence[Conflict]) -> str:
    name = group[0].name if len(group) == 1 else f"{pattern} ({len(group)})"
    return f"{name}: {group[0].reason}"
