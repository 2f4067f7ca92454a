"""The versions of one checkpoint that are merged, as manifests, and identities of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from git_theta.adapters import Config, Fields, config_of
from git_theta.core.layout import Alias
from git_theta.manifest import Manifest, TensorEntry
from git_theta.merge.planning.cuts import Recut
from git_theta.merge.planning.layers import Counts, layer_counts
from git_theta.merge.planning.vocabularies import Vocabularies

BASE = -1
"""The index of the common ancestor; contributors have the indices 0, 1, ..."""

NONE: Mapping[str, str] = {}
"""No new names of tensors."""

UNKNOWN: Fields = {}
"""Stands for an adapter's configuration that may exist, in a commit that is not known."""

Entry = TensorEntry | Alias
Digest = Callable[[TensorEntry], str]
Identity = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Contributor:
    """One side of a merge: its name, its checkpoint, and its statistics by kind.

    ``adapter`` is the content of ``adapter_config.json`` beside the checkpoint, if there is one.
    """

    name: str
    manifest: Manifest
    statistics: Mapping[str, Manifest] = field(default_factory=dict)
    adapter: Fields | None = None
    _tables: dict[str, dict[str, Entry]] = field(default_factory=dict, compare=False, repr=False)

    def statistic(self, kind: str, name: str) -> TensorEntry | None:
        """Return the statistic of the parameter called ``name``, if there is one."""
        if kind not in self.statistics:
            return None
        if kind not in self._tables:
            self._tables[kind] = entries(self.statistics[kind])
        found = self._tables[kind].get(name)
        owner = self._tables[kind][found.of] if isinstance(found, Alias) else found
        return owner if isinstance(owner, TensorEntry) else None


@dataclass(frozen=True, slots=True)
class Versions:
    """All sides of a merge, ours first, and their common ancestor, if there is one.

    ``path`` is the checkpoint's, which rules can match. ``base_adapter`` is the ancestor's
    ``Contributor.adapter``. Where branches cut a model into files differently, ``recut`` is the
    model, and ``shells`` has, by side, the manifest whose skeleton stands in for a file that the
    side does not have. ``layers`` are the numbers of layers of a model in several files,
    ``vocabularies`` the tokenizers by which rows are matched. ``notes`` are for the user.
    """

    contributors: tuple[Contributor, ...]
    base: Manifest | None
    path: str = ""
    base_adapter: Fields | None = None
    shells: Mapping[int, Manifest] = field(default_factory=dict, repr=False)
    recut: Recut | None = field(default=None, repr=False)
    layers: Counts = field(default_factory=dict, repr=False)
    vocabularies: Vocabularies | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    _configs: dict[int, Config] = field(default_factory=dict, compare=False, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the contributors."""
        return tuple(contributor.name for contributor in self.contributors)

    @property
    def sides(self) -> range:
        """Indices of the contributors."""
        return range(len(self.contributors))

    def manifest(self, side: int) -> Manifest:
        """Return the checkpoint of a contributor, or of the common ancestor (``BASE``)."""
        found = self.base if side == BASE else self.contributors[side].manifest
        assert found is not None, "nothing is taken from an ancestor that is not there"
        return found

    def with_vocabularies(self, found: Vocabularies | None, *notes: str) -> Versions:
        """Return the versions with their tokenizers, or with a note why there are none."""
        return replace(self, vocabularies=found, notes=(*self.notes, *notes))

    def layer_counts(self) -> Counts:
        """Return the number of layers of each list of layers in the model."""
        manifests = [contributor.manifest for contributor in self.contributors]
        return self.layers or layer_counts(e.name for m in manifests for e in m.tensors)

    def shell(self, side: int) -> Manifest:
        """Return the checkpoint whose skeleton is that of a side."""
        return self.shells.get(side) or self.manifest(side)

    def adapter(self, side: int) -> Fields | None:
        """Return the adapter's configuration on a side, or of the common ancestor (``BASE``)."""
        return self.base_adapter if side == BASE else self.contributors[side].adapter

    def config(self, side: int) -> Config | None:
        """Return the scales in ``adapter``, if it is known; ``FormatError`` if it is malformed."""
        fields = self.adapter(side)
        if fields and side not in self._configs:
            self._configs[side] = config_of(fields)
        return self._configs.get(side)

    def name(self, side: int) -> str:
        """Return the name of a side in messages."""
        return "the common ancestor" if side == BASE else self.names[side]

    def named(self, sides: Sequence[int]) -> str:
        """Return the names of sides for a sentence."""
        return joined([self.name(side) for side in sides])


@dataclass(frozen=True, slots=True)
class ParameterVersions:
    """One parameter in every version: its entry, and an identity that is equal where it is.

    Both are ``None`` where a version lacks it.
    """

    name: str
    base: Entry | None
    entries: tuple[Entry | None, ...]
    base_identity: Identity | None
    identities: tuple[Identity | None, ...]

    def entry(self, side: int) -> Entry | None:
        """Return the side's entry of the parameter."""
        return self.base if side == BASE else self.entries[side]

    def identity(self, side: int) -> Identity | None:
        """Return the side's identity of the parameter."""
        return self.base_identity if side == BASE else self.identities[side]

    def holders(self, identity: Identity | None) -> tuple[int, ...]:
        """Return the sides whose parameter has this identity."""
        return tuple(side for side, own in enumerate(self.identities) if own == identity)


def parameter_versions(
    versions: Versions, digest: Digest, names: Mapping[str, str] = NONE
) -> list[ParameterVersions]:
    """Return every parameter of any version: ours in the order of the file, then the others.

    Those that only the ancestor has come last. ``digest`` returns the BLAKE3 hash of all bytes of
    a tensor. It is called only where versions cut a tensor into chunks of different lengths.
    ``names`` are the result's, by the ancestor's, of tensors that a side renamed.
    """
    manifests = [contributor.manifest for contributor in versions.contributors]
    tables = [renamed(entries(manifest), names) for manifest in manifests]
    old = renamed(entries(versions.base), names) if versions.base else {}
    return versions_in(tables, old, digest)


def versions_in(
    tables: Sequence[Mapping[str, Entry]], old: Mapping[str, Entry], digest: Digest
) -> list[ParameterVersions]:
    """Return every parameter of the sides' ``tables``, and then of the ancestor's, by name."""
    ordered = dict.fromkeys(name for table in (*tables, old) for name in table)
    return [_versions_of(name, old, tables, digest) for name in ordered]


def entries(manifest: Manifest) -> dict[str, Entry]:
    """Return the tensors and aliases of a checkpoint by name."""
    found: dict[str, Entry] = {entry.name: entry for entry in manifest.tensors}
    found.update((alias.name, alias) for alias in manifest.aliases)
    return found


def renamed(table: Mapping[str, Entry], names: Mapping[str, str]) -> Mapping[str, Entry]:
    """Return tensors and tied names by their new ``names``."""
    if not names:
        return table
    found: dict[str, Entry] = {}
    for name, entry in table.items():
        known: Entry = replace(entry, name=names.get(name, name))
        if not isinstance(known, TensorEntry):
            known = replace(known, of=names.get(known.of, known.of))
        found[known.name] = known
    return found


def _versions_of(
    name: str, old: Mapping[str, Entry], tables: Sequence[Mapping[str, Entry]], digest: Digest
) -> ParameterVersions:
    everything = (old, *tables)
    entries = [table.get(name) for table in everything]
    owners = [_owner(table, entry) for table, entry in zip(everything, entries, strict=True)]
    tied = all(isinstance(entry, Alias) for entry in entries if entry)
    contents = [None] * len(owners) if tied else _contents(owners, digest)
    base, *rest = map(_identity, entries, contents)
    return ParameterVersions(name, entries[0], tuple(entries[1:]), base, tuple(rest))


def _owner(table: Mapping[str, Entry], entry: Entry | None) -> TensorEntry | None:
    owner = table[entry.of] if isinstance(entry, Alias) else entry
    assert not isinstance(owner, Alias), "a manifest's aliases view tensors"
    return owner


def _contents(owners: Sequence[TensorEntry | None], digest: Digest) -> list[object]:
    present = [owner for owner in owners if owner]
    lengths = {owner.length for owner in present}
    cuts = {tuple(chunk.length for chunk in owner.chunks) for owner in present}
    if len(cuts) > len(lengths):
        return [digest(owner) if owner else None for owner in owners]
    return [tuple(chunk.hash for chunk in owner.chunks) if owner else None for owner in owners]


def _identity(entry: Entry | None, content: object) -> Identity | None:
    if entry is None:
        return None
    # A name that is tied everywhere in the same way follows its owner: then no content is given.
    of = entry.of if isinstance(entry, Alias) else None
    return (entry.dtype, entry.shape, entry.offset, entry.strides, of, content)


def joined(names: Sequence[str]) -> str:
    """Return names for a sentence: ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
