"""The checkpoints that a file is compared with when it is added."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from git_theta import manifest
from git_theta.checkpoint.parents import Parent
from git_theta.errors import ManifestError
from git_theta.git import Entry, Repository, attributes
from git_theta.git.lfs_files import LONGEST
from git_theta.manifest import Manifest

# Bytes of manifests whose parsed form is kept, which takes ten times as much.
_KEPT = 16 << 20


class ParentCache:
    """Manifests, each read and parsed once; those that were not used for long are dropped."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._parents: OrderedDict[str | bytes, tuple[int, Parent | None]] = OrderedDict()
        self._size = 0

    def of_blob(self, entry: Entry) -> Parent | None:
        """Return the manifest that an entry is, as for ``of_text``."""
        if entry.blob not in self._parents:
            text = next((text for _, text in self._repo.manifests([entry])), b"")
            self._keep(entry.blob, text)
        return self._get(entry.blob)

    def of_text(self, text: bytes) -> Parent | None:
        """Return the manifest ``text``, ``None`` where it is damaged or of a newer version."""
        if text not in self._parents:
            self._keep(text, text)
        return self._get(text)

    def _get(self, key: str | bytes) -> Parent | None:
        self._parents.move_to_end(key)
        return self._parents[key][1]

    def _keep(self, key: str | bytes, text: bytes) -> None:
        parsed = parse(text)
        self._parents[key] = len(text), Parent(parsed) if parsed else None
        self._size += len(text)
        while self._size > _KEPT and len(self._parents) > 1:
            _, (size, _) = self._parents.popitem(last=False)
            self._size -= size


class KnownCheckpoints:
    """What the index and HEAD have, read and parsed once for all files of a git command.

    Adding 40 shards of a new model looks for the tensors of each one in all that HEAD has.
    """

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._cache = ParentCache(repo)
        self._head: tuple[object, str | None] | None = None
        self._tracked: tuple[str | None, dict[str, Entry]] = (None, {})

    def texts(self, path: str) -> Iterator[bytes]:
        """Yield the manifests of ``path`` itself in the index and in HEAD."""
        staged = self._repo.peek_staged(path, LONGEST)
        if staged and manifest.is_manifest(staged.head):
            whole = staged.size == len(staged.head)
            yield staged.head if whole else self._repo.read_blob(staged.id) or b""
        committed = self._committed(path)
        if committed and manifest.is_manifest(committed):
            yield committed

    def _committed(self, path: str) -> bytes | None:
        head = self._commit()
        if head is None or head != self._tracked[0]:
            return self._repo.read_blob(f"{head}:{path}") if head else None
        # Of hundreds of new files none is in the list that the first one was looked for in.
        entry = self._tracked[1].get(path)
        return self._repo.read_blob(entry.blob) if entry else None

    def parents(self, path: str, texts: Iterable[bytes]) -> Iterator[Parent]:
        """``texts`` first, then every other checkpoint of HEAD.

        A checkpoint that was renamed, or split into other shards, is found there by its tensors.
        """
        yield from filter(None, map(self.parent, texts))
        for entry in self._in_head().values():
            if entry.path != path and (parent := self._cache.of_blob(entry)):
                yield parent

    def parent(self, text: bytes) -> Parent | None:
        """Return the manifest ``text``, ``None`` where it is damaged or of a newer version."""
        return self._cache.of_text(text)

    def _commit(self) -> str | None:
        """Return the id of HEAD's commit.

        It is asked for again when the index is another: a command that commits, such as a rebase,
        writes the index before it hands us the next file.
        """
        stamp = self._repo.index_stamp()
        if self._head is None or self._head[0] != stamp:
            self._head = stamp, self._repo.head()
        return self._head[1]

    def _in_head(self) -> dict[str, Entry]:
        head = self._commit()
        if head and head != self._tracked[0]:
            files = {entry.path: entry for entry in self._repo.tree(head)}
            # By attribute first: other blobs may be large, and are not for us to read.
            filters = attributes.effective(self._repo, files)
            ours = {name: entry for name, entry in files.items() if filters[name] == "theta"}
            self._tracked = head, ours
        return self._tracked[1] if head else {}


def parse(text: bytes) -> Manifest | None:
    """Return the manifest, or ``None`` where what git has is damaged or newer than this git-theta.

    The file at hand does not depend on it.
    """
    try:
        return manifest.parse(text)
    except ManifestError:
        return None
