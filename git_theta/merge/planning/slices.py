"""A new model of slices: layers of several branches one after another, numbered anew.

As mergekit's ``passthrough`` with ``slices``: what comes before the layers is that of the first
slice's branch, what comes after them that of the last one's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from git_theta.errors import MergeError
from git_theta.manifest import Manifest, TensorEntry
from git_theta.merge.planning.actions import Action, Drop, Merge, Plan, Take
from git_theta.merge.planning.layers import layer_counts, layer_of, renumbered
from git_theta.merge.planning.model_config import with_fields
from git_theta.merge.planning.policy import Policy
from git_theta.merge.planning.versions import (
    BASE,
    Digest,
    Entry,
    ParameterVersions,
    Versions,
    joined,
    versions_in,
)
from git_theta.merge.rules.rules import Method, first_match
from git_theta.merge.rules.slices import MOST_LAYERS, Slice

# Tensors before the layers, by the names that mergekit's architectures have for them.
_BEFORE = re.compile(r"embed(?!_out)|\bwte\b|\bwpe\b|\bshared\b|pos_emb|word_emb|conv[12]\b")
_PASSTHROUGH = "passthrough"
_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")


def sliced(versions: Versions, policy: Policy) -> list[Action]:
    """Return the actions that build the model of ``policy.slices``.

    Tensors are taken as they are, or scaled where a rule of passthrough matches their new name.
    Raise ``MergeError`` for a model that cannot be sliced, and for layers that it does not have.
    """
    _check_rules(policy)
    sides = [_side(versions, each) for each in policy.slices]
    counts = _counts(versions, set(sides))
    order = list(_order(versions, policy.slices, sides, counts))
    kept = [*_beside(versions, sides[0], True)]
    kept += [each for pair in enumerate(order) for each in _layer(versions, *pair)]
    kept += _beside(versions, sides[-1], False)
    actions = [_action(versions, policy, side, entry) for side, entry in kept]
    return [*actions, *dropped(versions, {entry.name for _, entry in kept})]


def renumbered_versions(
    versions: Versions, policy: Policy, digest: Digest
) -> list[ParameterVersions]:
    """Return the parameters of the model of ``policy.slices``, whose sources are merged.

    A side has the layers that are taken of it, by their new numbers. Raises as ``sliced``.
    """
    columns = [[(_side(versions, each), each) for each in row.sources] for row in policy.slices]
    sides = {side for row in columns for side, _ in row}
    counts = _counts(versions, sides)
    tables: dict[int, dict[str, Entry]] = {side: {} for side in (*versions.sides, BASE)}
    number = 0
    for at, row in enumerate(columns):
        for side, each in row:
            order = _order(versions, [each], [side], counts)
            kept = [e for n, place in enumerate(order, number) for e in _layer(versions, n, place)]
            kept += _beside(versions, side, True) if at == 0 else []
            kept += _beside(versions, side, False) if at == len(columns) - 1 else []
            tables[side] |= {entry.name: entry for _, entry in kept}
        number += len(policy.slices[at].layers)
    return versions_in([tables[side] for side in versions.sides], tables[BASE], digest)


def dropped(versions: Versions, names: Set[str]) -> list[Drop]:
    """Return the tensors of the sides that are not among ``names``, those of the result."""
    every = {e.name: None for side in versions.sides for e in versions.manifest(side).tensors}
    return [Drop(name, "rule", ()) for name in every if name not in names]


def _check_rules(policy: Policy) -> None:
    others = [rule.strategy for rule in policy.typed if rule.strategy != _PASSTHROUGH]
    if others:
        raise MergeError(
            f"slices are taken as they are, and not merged by {joined(others)}",
            hint="merge the branches first, or scale tensors by a rule of passthrough",
        )


def _side(versions: Versions, wanted: Slice) -> int:
    words = {"ours": 0} | ({"theirs": 1} if len(versions.names) == 2 else {})
    words |= {"base": BASE} if versions.base else {}
    words |= {name: side for side, name in enumerate(versions.names)}
    if wanted.source not in words:
        raise MergeError(
            f"no branch of the merge is called {wanted.source!r}",
            hint=f"slices may be of: {', '.join(words)}",
        )
    return words[wanted.source]


def _counts(versions: Versions, sides: Set[int]) -> dict[int, tuple[str, int]]:
    """Return the name and number of the layers of each side."""
    counts = {side: _count(versions, side) for side in sides}
    if len({layers for layers, _ in counts.values()}) > 1:
        raise MergeError("the slices are of models whose layers have different names")
    return counts


def _count(versions: Versions, side: int) -> tuple[str, int]:
    """Return the name of a side's layers and their number."""
    manifest = versions.manifest(side)
    counts = layer_counts(entry.name for entry in manifest.tensors)
    if versions.layers or versions.recut:
        raise MergeError("slices are of models in one file, and this is one of several")
    if manifest.aliases:
        raise MergeError("slices are of models without tied tensors", hint="save as safetensors")
    if len(counts) != 1:
        listed = joined(list(counts)) if counts else "none"
        raise MergeError(f"slices are of models with one list of layers; here: {listed}")
    return next(iter(counts.items()))


def _order(
    versions: Versions,
    slices: Sequence[Slice],
    sides: Sequence[int],
    counts: dict[int, tuple[str, int]],
) -> Iterator[tuple[int, int]]:
    """Yield side and layer of each layer of the result."""
    if sum(len(each.layers) for each in slices) > MOST_LAYERS:
        raise MergeError(f"slices have more than {MOST_LAYERS:,} layers together")
    for side, each in zip(sides, slices, strict=True):
        _, count = counts[side]
        if each.last >= count:
            raise MergeError(
                f"{versions.name(side)} has the layers 0 to {count - 1}, and no {each.last}"
            )
        yield from ((side, layer) for layer in each.layers)


def _layer(
    versions: Versions, number: int, place: tuple[int, int]
) -> Iterator[tuple[int, TensorEntry]]:
    side, layer = place
    for entry in versions.manifest(side).tensors:
        found = layer_of(entry.name)
        if found and found[1] == layer:
            yield side, replace(entry, name=renumbered(entry.name, number))


def _beside(versions: Versions, side: int, is_before: bool) -> Iterator[tuple[int, TensorEntry]]:
    """Yield the tensors of a side that are in no layer, and before or after them."""
    for entry in versions.manifest(side).tensors:
        if layer_of(entry.name) is None and comes_before(entry.name) is is_before:
            yield side, entry


def comes_before(name: str) -> bool:
    """Return whether a tensor that is in no layer belongs before them."""
    return bool(_BEFORE.search(name))


def _action(versions: Versions, policy: Policy, side: int, entry: TensorEntry) -> Action:
    scaling = [rule for rule in policy.rules if rule.strategy == _PASSTHROUGH]
    rule = first_match(scaling, entry.name, versions.path)
    if rule is None:
        return Take(entry.name, side, entry, "rule", ())
    method = policy.lookup(rule)
    own = Method(method.strategy, {**method.values, "side": []})
    return Merge(entry.name, rule, own, (entry,), None)


def config_files(plan: Plan, read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """Return the configuration of a model of slices by path, with its number of layers.

    ``read`` returns a file as git merged it.
    """
    slices = plan.policy.slices
    if not slices:
        return {}
    layers = [n for each in slices for n in each.layers]

    def wanted(fields: dict[str, Any]) -> dict[str, Any]:
        counts: dict[str, Any] = {
            key: len(layers) for key in _COUNTS if isinstance(fields.get(key), int)
        }
        kinds = fields.get("layer_types")
        if counts and isinstance(kinds, list) and len(kinds) > max(layers):
            counts["layer_types"] = [kinds[layer] for layer in layers]
        return counts

    path = str(PurePosixPath(plan.versions.path).with_name("config.json"))
    found = with_fields(read(path), wanted)
    return {path: found} if found else {}


def is_sliceable(manifest: Manifest) -> bool:
    """Return whether a checkpoint has layers."""
    return bool(layer_counts(entry.name for entry in manifest.tensors))
