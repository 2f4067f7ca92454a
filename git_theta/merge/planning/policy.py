"""The policy of a merge: the rules that apply, and those that git's operation fixes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from git_theta.errors import MissingToolError
from git_theta.git.operation import Operation
from git_theta.merge.planning.sources import is_statistic
from git_theta.merge.planning.versions import Versions
from git_theta.merge.rules.request import Request, Rows
from git_theta.merge.rules.rules import Method, Rule
from git_theta.merge.rules.slices import Slice, merges

Lookup = Callable[[Rule], Method]

DEFAULT = Request()

# Rules of an operation for parameters that several sides changed, whatever the user's rules are:
# adding the change of a commit is task arithmetic; a virtual ancestor is the same for everybody.
FIXED: dict[Operation, tuple[Rule, ...]] = {
    "replay": (Rule("*", "task_arithmetic"),),
    "ancestor": (Rule("*", "average"),),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The way in which contested parameters are decided.

    ``lookup`` binds a rule to the contributors at hand. With ``include_one_sided``, parameters that
    one side alone changed are merged too; with ``everything``, also those that no side changed, or
    all alike: a sum of weights that is not 1 scales them. With ``fallback_to_base``, what would be
    a conflict is taken from the ancestor, or else from ours: the virtual ancestor of a criss-cross
    history is made so. With ``allow_nan``, NaN may be in what is merged. With ``widen``, tensors of
    different float dtypes are merged in the wider one. With ``allow_stale``, statistics may be of
    another version of the model. With ``rows``, tensors whose numbers of rows differ are merged
    over the rows that all have. The result's floats are of ``out_dtype``, if it is given,
    and its layers those of ``slices``, if there are any.
    ``typed`` are those of the rules that the user typed, which a hint has to repeat.
    ``sweep`` is the table that the rules are the best of.
    """

    rules: Sequence[Rule]
    lookup: Lookup
    include_one_sided: bool = False
    fallback_to_base: bool = False
    allow_nan: bool = False
    widen: bool = False
    allow_stale: bool = False
    rows: Rows | None = None
    out_dtype: str | None = None
    slices: tuple[Slice, ...] = ()
    typed: Sequence[Rule] = ()
    sweep: Mapping[str, object] | None = None
    everything: bool = False

    @property
    def merges_slices(self) -> bool:
        """Return whether sources of slices are merged, in each slice some of the contributors."""
        return merges(self.slices)


ANY = (Rule("*.lora_*", "svd"), Rule("*prompt_embeddings", "concat"), Rule("*", "average"))
"""Rules for everything that any strategy can merge."""


def policy_for(
    operation: Operation,
    rules: Sequence[Rule],
    versions: Versions,
    request: Request = DEFAULT,
) -> Policy:
    """Return the policy of ``operation``; ``rules``, the request's first, are for merges only."""
    chosen = FIXED.get(operation, tuple(rules))
    if operation == "merge" and is_statistic(versions.path):
        chosen = tuple(_for_statistics(rules))
    return Policy(
        chosen,
        method_lookup(versions, some=merges(request.slices)),
        include_one_sided=bool(request.include_one_sided),
        fallback_to_base=operation == "ancestor",
        allow_nan=request.allow_nan,
        widen=request.widen,
        allow_stale=request.allow_stale,
        rows=request.rows,
        out_dtype=request.out_dtype if operation == "merge" else None,
        slices=request.slices if operation == "merge" else (),
        typed=request.rules if operation == "merge" else (),
        everything=request.everything,
    )


def _for_statistics(rules: Sequence[Rule]) -> Iterator[Rule]:
    """Yield the rules for a file of statistics, where the strategies for models do not apply.

    Rules that name its path apply, and those that take a side. Any other rule becomes an average.
    """
    for rule in rules:
        if rule.path != "*" or rule.strategy == "take":
            yield rule
        else:
            yield Rule(rule.match, "average")


def method_lookup(versions: Versions, *, some: bool = False) -> Lookup:
    """Return a lookup that binds each rule once, to (``some`` of) the contributors of ``versions``.

    It raises ``MergeError`` for a rule that cannot be followed and ``MissingToolError`` where
    torch is not installed.
    """
    known: dict[Rule, Method] = {}

    def lookup(rule: Rule) -> Method:
        if rule not in known:
            known[rule] = _bind(rule, versions, some)
        return known[rule]

    return lookup


def _bind(rule: Rule, versions: Versions, some: bool) -> Method:
    with needing_torch(f"the merge strategy {rule.strategy}"):
        return rule.bind(versions.names, some=some)


@contextmanager
def needing_torch(what: str) -> Iterator[None]:
    """Raise ``MissingToolError`` in the body where torch is not installed.

    Garbage is not collected meanwhile: looking through the objects that torch makes when it is
    imported, all of which stay, took 0.2 of 1.6 s.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingToolError(
            f"{what} needs torch, which is not installed",
            hint='pip install "theta-vcs[merge]"',
        ) from error
    finally:
        if collects:
            gc.enable()
