"""Differences of two versions of a checkpoint, tensor by tensor, from their manifests alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from git_theta.core.hashes import Ref
from git_theta.errors import MergeError
from git_theta.manifest import Manifest

State = Literal["added", "modified", "renamed", "deleted", "unchanged", "conflict"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Numbers of tensors: all of the later version (of the earlier, where it was deleted),
    those that changed, and those that only one version has.

    ``stored`` is the number of bytes of the frames that the later version brought.
    """

    tensors: int
    changed: int
    added: int
    removed: int
    stored: int


def compare(
    before: Sequence[Manifest], after: Sequence[Manifest], known: Iterable[Ref] = ()
) -> Difference:
    """Compare two versions, either of which may be absent; ``known`` frames are not new.

    A version has one manifest, or one for each file of a model, cut in whatever way.
    """
    old, new = contents(*before), contents(*after)
    shared = old.keys() & new.keys()
    had = {*known, *(ref for each in before for ref in each.refs())}
    here = {chunk.chain[0] for each in after for chunk in each.chunks()}
    return Difference(
        tensors=len(new if after else old),
        changed=sum(old[name] != new[name] for name in shared),
        added=len(new.keys() - shared),
        removed=len(old.keys() - shared),
        stored=sum(ref.length for ref in here - had),
    )


def contents(*manifests: Manifest | None) -> dict[str, tuple[object, ...]]:
    """Return what each tensor is: equal bytes, dtype and shape decide "unchanged"."""
    return {
        entry.name: (entry.dtype, entry.shape, *(chunk.hash for chunk in entry.chunks))
        for manifest in there(*manifests)
        for entry in manifest.tensors
    }


def there(*manifests: Manifest | None) -> list[Manifest]:
    """Return those of the manifests that are there."""
    return [manifest for manifest in manifests if manifest]


def state_of(before: Manifest | None, after: Manifest | None, renamed: bool = False) -> State:
    """Return what happened to a checkpoint from one version to the next."""
    if before is None or after is None:
        return "added" if before is None else "deleted"
    if renamed:
        return "renamed"
    return "unchanged" if before.hash == after.hash else "modified"


def recipe_of(described: Manifest | None, before: Manifest | None) -> str | None:
    """Return in a line how a version was merged, if it was, and the one before was not so."""
    if described is None or described.recipe is None:
        return None
    if before and before.recipe == described.recipe:
        return None  # it was only renamed, or stored otherwise
    # Imported here: with what merges it takes 60 ms, and few commits have a recipe.
    from git_theta.merge.recipe import check_recipe
    from git_theta.merge.recipe_text import describe

    try:
        return describe(check_recipe(described.recipe))
    except MergeError:
        return "a recipe that this git-theta cannot read"
