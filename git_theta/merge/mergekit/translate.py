"""A recipe of mergekit as contributors and rules that have its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from git_theta.core.messages import plural
from git_theta.errors import MergeError
from git_theta.merge.mergekit.document import Document, OutputSlice, Source
from git_theta.merge.mergekit.methods import METHODS, Given, Known, Values
from git_theta.merge.mergekit.places import (
    Part,
    Place,
    order_of,
    slice_of,
    sliced,
    unfit,
    whole,
)
from git_theta.merge.mergekit.settings import At
from git_theta.merge.mergekit.spread import rules_for
from git_theta.merge.planning.layers import layer_counts
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
    parts = [_roles(each, document.method, known, problems) for each in document.slices]
    counts = layer_counts(names)
    layers = max(counts.values(), default=0)
    is_whole = len(parts) == 1 and all(
        each.layers in (None, (0, layers)) for each in parts[0].sources
    )
    if not is_whole:
        problems += unfit(parts, document.method, layers)
    if problems:
        raise refusal(problems)
    places = whole(parts[0], names, counts) if is_whole else sliced(parts, names)
    contributors = order_of(parts)
    chosen = _chosen(places, contributors, known, document, problems)
    if problems or not chosen:
        raise refusal(problems or ["the models have no tensors in common"])
    base = parts[0].base.model if parts[0].base else None
    slices = () if is_whole else tuple(slice_of(part) for part in parts)
    return Followed(contributors, base, tuple(rules_for(chosen)), slices)


def _chosen(
    places: Iterable[Place],
    contributors: Sequence[str],
    known: Known,
    document: Document,
    problems: list[str],
) -> dict[str, Rule]:
    """Return the rule of each tensor of the result by its name; note what cannot be done."""
    chosen = {}
    for place in places:
        merged = place.part.merged
        given = Given(
            (place.part.parameters, document.shared),
            [source.parameters for source in merged],
            At(place.name, place.depth),
            place.part.base is not None,
            [At(name, place.depth) for name in place.inputs],
        )
        try:
            strategy, values = known.values(given)
            models = [source.model for source in merged]
            if len(models) == 1 < len(contributors) and not values.get("normalize"):
                raise MergeError(f"slices: {document.method} of one model in a slice")
            rule = Rule("*", strategy, _by_model(values, models, contributors))
            rule.bind(contributors, some=place.part.merged[0].layers is not None)
            chosen[place.name] = rule
        except MergeError as error:
            problems.append(error.message.removeprefix("rule '*': "))
    return chosen


def _by_model(
    values: Values, models: Sequence[str], contributors: Sequence[str]
) -> Mapping[str, Any]:
    """Return values with those of each model by its name, where a slice has not all of them."""
    if list(models) == list(contributors):
        return values
    return {
        key: dict(zip(models, value, strict=True)) if isinstance(value, list) else value
        for key, value in values.items()
    }


def _stack(document: Document) -> Followed:
    """Return how a model of layers of others is built."""
    slices, problems = [], []
    for each in document.slices:
        (source,) = each.sources
        if source.layers is None or not 0 <= source.layers[0] < source.layers[1]:
            problems.append(f"{source.model}: a slice without layers")
        else:
            slices.append(Slice(source.model, source.layers[0], source.layers[1] - 1))
        if source.parameters:
            problems.append(f"{source.model}: a slice that is scaled")
    if document.shared or any(each.parameters for each in document.slices):
        problems.append("parameters: a stack that is scaled")
    if problems:
        raise refusal(problems)
    models = dict.fromkeys(each.sources[0].model for each in document.slices)
    return Followed(tuple(models), None, slices=tuple(slices))


def refusal(problems: Sequence[str]) -> MergeError:
    """Return the error that lists what of a recipe cannot be followed."""
    listed = list(dict.fromkeys(problems))
    return MergeError(
        f"this recipe cannot be followed, for {plural(len(listed), 'reason')}", details=listed
    )


def _roles(found: OutputSlice, method: str, known: Known, problems: list[str]) -> Part:
    """Return which models of a slice are merged, and the base that is not."""
    sources, base = list(found.sources), found.base
    is_sliced = any(source.layers for source in sources)
    if len({source.model for source in sources}) < len(sources):
        problems.append("a model is listed twice")
    if base is None and known.base in ("needed", "first"):
        problems.append(f"base_model: {method} needs one")
    own = next((source for source in sources if source.model == base), None)
    if own is None and base is not None and not is_sliced:
        own = Source(base)
        sources.append(own)
    elif own is None and base is not None and known.base != "merged":
        problems.append(
            f"slices: {base} is not among the sources of a slice, and {method} needs it"
        )
    if known.base == "first" and own:
        sources.sort(key=lambda source: source is not own)
    elif known.base != "merged" and own:
        sources.remove(own)
    if len(sources) < known.fewest or (known.most and len(sources) > known.most):
        problems.append(f"{method} merges other numbers of models than {len(sources)}")
    is_apart = known.base not in ("merged", "first")
    return Part(tuple(sources), own if is_apart else None, found.parameters)


def mapped(followed: Followed, revisions: Mapping[str, str]) -> tuple[list[str], str | None]:
    """Return the revisions of the contributors and of the base."""
    base = None if followed.base is None else revisions[followed.base]
    return [revisions[model] for model in followed.contributors], base
