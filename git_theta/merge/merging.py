"""A merge of one checkpoint from its versions to the text of a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from git_theta import manifest, transfer
from git_theta.errors import MergeError, ThetaError
from git_theta.manifest import Manifest
from git_theta.merge.decision import Policy
from git_theta.merge.execute import Executed, execute
from git_theta.merge.methods import resolver
from git_theta.merge.operation import Operation
from git_theta.merge.patterns import by_kind, pattern_of
from git_theta.merge.plan import Plan, plan
from git_theta.merge.reading import Reader
from git_theta.merge.recipe import recipe_of
from git_theta.merge.rules import Rule, first_match
from git_theta.merge.sources import is_statistic
from git_theta.merge.steps import Conflict
from git_theta.merge.versions import Versions
from git_theta.workspace import Workspace

if TYPE_CHECKING:
    from git_theta.merge.computing import Surveys

_SHOWN = 5
_LISTED = "git theta strategies lists them"

# What an operation does with parameters that more sides changed, whatever the rules say: adding
# the change of a commit is task arithmetic, and a virtual ancestor is made the same by everybody.
_FIXED: dict[Operation, tuple[Rule, ...]] = {
    "replay": (Rule("*", "task_arithmetic"),),
    "ancestor": (Rule("*", "average"),),
}


@dataclass(frozen=True, slots=True)
class Merged:
    """The text of the merged manifest, and what the user should know."""

    text: bytes
    notes: tuple[str, ...] = ()


def policy_for(
    operation: Operation,
    rules: Sequence[Rule],
    versions: Versions,
    every: bool = False,
    allow_nan: bool = False,
) -> Policy:
    """How ``operation`` decides; ``rules`` are for merges only."""
    chosen = _FIXED.get(operation, tuple(rules))
    if operation == "merge" and is_statistic(versions.path):
        chosen = tuple(_for_statistics(rules))
    return Policy(chosen, resolver(versions), every, operation == "ancestor", allow_nan)


def _for_statistics(rules: Sequence[Rule]) -> Iterator[Rule]:
    """Rules for a file of statistics: what models are merged by means nothing there.

    Those that name its path hold, and those that take a side. Else, where anything would be
    merged, statistics are averaged.
    """
    for rule in rules:
        if rule.path != "*" or rule.strategy == "take":
            yield rule
        else:
            yield Rule(rule.match, "average")


def make_plan(versions: Versions, policy: Policy, workspace: Workspace) -> Plan:
    """What becomes of each parameter; see ``plan.plan``."""
    reader = Reader(workspace.storage)

    def digest(entry: manifest.TensorEntry) -> str:
        transfer.fetch(
            workspace, {ref.oid: ref.size for chunk in entry.chunks for ref in chunk.chain}
        )
        return reader.digest(entry)

    return plan(versions, policy, digest)


def carry_out(plan: Plan, workspace: Workspace, surveys: Surveys | None = None) -> Merged:
    """Merge as planned; raises ``MergeError`` that lists the conflicts where there are some.

    ``surveys`` are those that files of one model share.
    """
    if plan.conflicts:
        raise conflict_error(plan)
    try:
        done = execute(plan, workspace, surveys)
    except ThetaError as error:
        raise error.at(plan.versions.path) from error
    return Merged(manifest.dump(_with_recipe(done, plan)), done.notes)


def _with_recipe(done: Executed, plan: Plan) -> Manifest:
    sides = [contributor.manifest for contributor in plan.versions.contributors]
    if any(done.manifest is side for side in [*sides, plan.versions.base]):
        return done.manifest
    return replace(done.manifest, recipe=recipe_of(plan, done.device))


def conflict_error(
    plan: Plan, state: str = "the file in the work tree is ours", command: str | None = None
) -> MergeError:
    """What is in conflict, by pattern and reason, and how ``command`` settles it."""
    conflicts, path = plan.conflicts, plan.versions.path
    lines = [_conflict_line(*kind) for kind in by_kind(conflicts)]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"... and {len(lines) - _SHOWN} more kinds"]
    number = "1 parameter is" if len(conflicts) == 1 else f"{len(conflicts)} parameters are"
    return MergeError(
        f"{number} in conflict; {state}",
        path=path or None,
        details=lines,
        hint=f"{command or f'git theta resolve {path}'} {_remedy(plan)}",
    )


def _remedy(plan: Plan) -> str:
    """Options that settle conflicts: where a rule was for one already, a side can be taken."""
    versions = plan.versions
    fixed = [rule for rules in _FIXED.values() for rule in rules]
    rules = [rule for rule in plan.policy.rules if not any(rule is each for each in fixed)]
    stuck = (c for c in plan.conflicts if first_match(rules, c.name, versions.path))
    found = next(stuck, None)
    if found is None:
        return f"--strategy NAME ({_LISTED})"
    words = ("ours", "theirs") if len(versions.names) == 2 else ()
    names = dict.fromkeys((*words, *versions.names))
    return f"--rule '{pattern_of(found.name)}=take:side=SIDE', where SIDE is {', '.join(names)}"


def _conflict_line(pattern: str, group: Sequence[Conflict]) -> str:
    name = group[0].name if len(group) == 1 else f"{pattern} ({len(group)})"
    return f"{name}: {group[0].reason}"
