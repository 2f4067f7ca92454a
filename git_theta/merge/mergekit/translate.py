"""A recipe of mergekit as contributors and rules that have its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from git_theta.core.messages import plural
from git_theta.errors import MergeError
from git_theta.merge.mergekit.document import Document, Source
from git_theta.merge.mergekit.methods import METHODS, Given, Known
from git_theta.merge.mergekit.settings import At
from git_theta.merge.mergekit.spread import rules_for
from git_theta.merge.planning.layers import depth_of, layer_counts
from git_theta.merge.rules.rules import Rule
from git_theta.merge.rules.slices import Slice


@dataclass(frozen=True, slots=True)
class Followed:
    """The models that are merged, the base that task vectors begin at, and the rules."""

    contributors: tuple[str, ...]
    base: str | None
    rules: tuple[Rule, ...] = ()
    slices: tuple[Slice, ...] = ()


def follow(document: Document, names: Sequence[str]) -> Followed:
    """Return how a recipe is followed for models whose tensors are called ``names``.

    Raises ``MergeError``, which lists all that cannot be done.
    """
    problems = list(document.problems)
    known = METHODS.get(document.method)
    if known is None:
        problems.append(f"merge_method {document.method} is not known here")
    if problems or known is None:
        raise refusal(problems)
    if document.is_stack:
        return _stack(document)
    sources, base = _roles(document, known, problems)
    counts = layer_counts(names)
    layers = max(counts.values(), default=0)
    if any(source.layers not in (None, (0, layers)) for source in sources):
        problems.append(f"slices: it takes some of the {plural(layers, 'layer')}, and not all")
    chosen: dict[str, Rule] = {}
    for name in () if problems else names:
        own = [source.parameters for source in sources]
        given = Given(document.shared, own, At(name, depth_of(name, counts)), base is not None)
        try:
            strategy, values = known.values(given)
            rule = Rule("*", strategy, values)
            rule.bind([source.model for source in sources])
            chosen[name] = rule
        except MergeError as error:
            problems.append(error.message.removeprefix("rule '*': "))
    if problems or not chosen:
        raise refusal(problems or ["the models have no tensors in common"])
    return Followed(tuple(source.model for source in sources), base, tuple(rules_for(chosen)))


def _stack(document: Document) -> Followed:
    """Return how a model of layers of others is built."""
    slices, problems = [], []
    for source in document.sources:
        if source.layers is None or not 0 <= source.layers[0] < source.layers[1]:
            problems.append(f"{source.model}: a slice without layers")
        else:
            slices.append(Slice(source.model, source.layers[0], source.layers[1] - 1))
        if source.parameters:
            problems.append(f"{source.model}: a slice that is scaled")
    if any(document.shared):
        problems.append("parameters: a stack that is scaled")
    if problems:
        raise refusal(problems)
    models = dict.fromkeys(source.model for source in document.sources)
    return Followed(tuple(models), None, slices=tuple(slices))


def refusal(problems: Sequence[str]) -> MergeError:
    """Return the error that lists what of a recipe cannot be followed."""
    listed = list(dict.fromkeys(problems))
    return MergeError(
        f"this recipe cannot be followed, for {plural(len(listed), 'reason')}", details=listed
    )


def _roles(
    document: Document, known: Known, problems: list[str]
) -> tuple[list[Source], str | None]:
    """Return the models that are merged, and the base that is not."""
    base, sources = document.base, list(document.sources)
    if len({source.model for source in sources}) < len(sources):
        problems.append("a model is listed twice")
    if base is None and known.base in ("needed", "first"):
        problems.append(f"base_model: {document.method} needs one")
    others = [source for source in sources if source.model != base]
    if known.base == "merged":
        missing = base is not None and len(others) == len(sources)
        sources = [*sources, Source(base)] if missing and base else sources
        base = None
    elif known.base == "first" and base is not None:
        sources, base = [Source(base), *others], None
    else:
        sources = others
    if len(sources) < known.fewest or (known.most and len(sources) > known.most):
        problems.append(f"{document.method} merges other numbers of models than {len(sources)}")
    return sources, base


def mapped(followed: Followed, revisions: Mapping[str, str]) -> tuple[list[str], str | None]:
    """Return the revisions of the contributors and of the base."""
    base = None if followed.base is None else revisions[followed.base]
    return [revisions[model] for model in followed.contributors], base
