"""The inputs of a merge in commits: manifests, and the files beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from git_theta import manifest
from git_theta.adapters import CONFIG_FILE, Fields, parse_fields
from git_theta.errors import MergeError, naming
from git_theta.git import Repository
from git_theta.git.beside import change_of, is_at
from git_theta.manifest import Manifest
from git_theta.merge.planning.groups import PROMPT
from git_theta.merge.planning.versions import UNKNOWN, Contributor, Versions

STATISTICS = ("fisher", "gram")


def version(text: bytes | None, name: str) -> Manifest | None:
    """Return the manifest in a version of the file; ``None`` for no file, or an empty one.

    Raises ``MergeError`` where something else is stored.
    """
    if not text:
        return None
    if not manifest.is_manifest(text):
        raise MergeError(
            f"{name} does not store this file with git-theta, so it cannot be merged",
            hint="in that version: git theta track it, git add --renormalize it, commit",
        )
    return manifest.parse(text)


def contributor(
    repo: Repository,
    name: str,
    text: bytes | None,
    path: str,
    rev: str | None,
    hint: str | None = None,
) -> Contributor:
    """Return one side, with the files beside the checkpoint in commit ``rev``, if it is known.

    ``hint`` is the command where the file is empty.
    """
    found = version(text, name)
    if found is None:
        raise MergeError(f"{name} has an empty file here", path=path, hint=hint)
    statistics = statistics_of(repo, rev, path) if rev else {}
    return Contributor(name, found, statistics, adapter_of(repo, found, rev, path))


def statistics_of(repo: Repository, rev: str, path: str) -> dict[str, Manifest]:
    """Return the statistics of a checkpoint by kind, as in ``model.fisher.safetensors``."""
    found = {}
    for kind in STATISTICS:
        name = PurePosixPath(path)
        text = repo.read_blob(f"{rev}:{name.with_name(f'{name.stem}.{kind}.safetensors')}")
        if text and manifest.is_manifest(text):
            found[kind] = manifest.parse(text)
    return found


def is_statistic(path: str) -> bool:
    """Return whether a file has the name of a checkpoint's statistics."""
    return path.endswith(tuple(f".{kind}.safetensors" for kind in STATISTICS))


def adapter_of(
    repo: Repository, found: Manifest | None, rev: str | None, path: str
) -> Fields | None:
    """Return the configuration beside an adapter in commit ``rev``.

    ``None`` for no configuration, or no adapter; ``UNKNOWN`` where the commit is not known.
    """
    if found is None or not _is_adapter(found):
        return None
    if rev is None:
        return UNKNOWN
    place = config_path(path)
    text = repo.read_blob(f"{rev}:{place}")
    with naming(f"{rev}:{place}"):
        return parse_fields(text) if text is not None else None


def with_configurations(
    repo: Repository, versions: Versions, base: bytes, ours: bytes, theirs: bytes
) -> Versions:
    """Return the versions with an adapter's configurations, as far as these texts tell commits.

    Ours are in the index, which Git changes last, and theirs and the base in the commit whose
    change is replayed.
    """
    if all(contributor.adapter is None for contributor in versions.contributors):
        return versions
    path, (own, other) = versions.path, versions.contributors
    change = change_of(repo, path, base, theirs, config_path(path))
    places = (rev for rev in ("", "HEAD") if is_at(repo, rev, path, ours))
    before, after = (change.before, change.after) if change else (None, None)
    return replace(
        versions,
        contributors=(
            replace(own, adapter=adapter_of(repo, own.manifest, next(places, None), path)),
            replace(other, adapter=adapter_of(repo, other.manifest, after, path)),
        ),
        base_adapter=adapter_of(repo, versions.base, before, path),
    )


def config_path(path: str) -> str:
    """Return the path of the configuration of the adapter at ``path``."""
    return str(PurePosixPath(path).with_name(CONFIG_FILE))


def _is_adapter(found: Manifest) -> bool:
    return any(".lora_" in entry.name or entry.name == PROMPT for entry in found.tensors)
