"""What the filter process does with the files that git hands it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from git_theta import manifest, materialise, transfer
from git_theta.checkpoint import clean, smudge
from git_theta.errors import ManifestError, PointerError, ThetaError
from git_theta.git import SmudgeRequest
from git_theta.incoming import Incoming, receive
from git_theta.manifest import Manifest
from git_theta.tensor import Buffer
from git_theta.workspace import Workspace

_POINTER = b"version https://git-lfs.github.com/spec/"


class Session:
    """One ``git`` command's worth of files.

    ``warn`` is told what the user should know. With ``can_defer`` a hook is there that turns
    manifests in the work tree into files after git is done.
    """

    def __init__(
        self, workspace: Workspace, warn: Callable[[str], None], can_defer: bool = False
    ) -> None:
        self._workspace = workspace
        self._warn = warn
        self._can_defer = can_defer
        self._waiting: dict[str, Manifest] = {}
        self._announced = False

    # --- clean: from the work tree to git --------------------------------------------------------

    def clean(self, path: str, content: Iterator[bytes]) -> Iterable[Buffer]:
        """The manifest of a file, its objects stored; a manifest passes through unchanged."""
        repo = self._workspace.repo
        file = (repo.work_tree or Path()) / path
        with receive(content, file, repo.theta_dir / "tmp") as incoming:
            yield self._cleaned(path, incoming)

    def _cleaned(self, path: str, incoming: Incoming) -> bytes:
        if not incoming.source.size:
            return b""
        if incoming.head.startswith(_POINTER):
            raise _pointer_error(path, "git lfs pull, then git add it again")
        if manifest.is_manifest(incoming.head):
            text = incoming.text()
            manifest.parse(text)  # a damaged one must not be committed
            return text
        known = self._unchanged(path, incoming)
        if known is not None:
            return known
        result = clean(
            incoming.source, path, self._workspace.workshop, self._parents(path), incoming.hash
        )
        if result.warning:
            self._warn(f"{path}: {result.warning}")
        return manifest.dump(result.manifest)

    def _unchanged(self, path: str, incoming: Incoming) -> bytes | None:
        """The text that git has for these very bytes: nothing to store, and no spurious diff."""
        for text in self._texts(path):
            parent = _parse(text)
            if parent and (parent.size, parent.hash) == (incoming.source.size, incoming.hash):
                return text
        return None

    def _texts(self, path: str) -> Iterator[bytes]:
        """What the index, then HEAD have for ``path``."""
        for spec in (f":{path}", f"HEAD:{path}"):
            text = self._workspace.repo.read_blob(spec)
            if text is not None and manifest.is_manifest(text):
                yield text

    def _parents(self, path: str) -> Iterator[Manifest]:
        """The file itself in the index and HEAD, then every other checkpoint of HEAD.

        A checkpoint that was renamed, or split into other shards, is found there by its tensors.
        """
        repo = self._workspace.repo
        others = (text for entry, text in repo.manifests(repo.tree("HEAD")) if entry.path != path)
        for text in chain(self._texts(path), others):
            if parent := _parse(text):
                yield parent

    # --- smudge: from git to the work tree -------------------------------------------------------

    def smudge(self, request: SmudgeRequest, content: Iterator[bytes]) -> Iterable[Buffer] | None:
        """The file that a manifest stands for; ``None`` to be asked again when objects are here."""
        first = next(content, b"")
        while first and len(first) < len(_POINTER) and (more := next(content, b"")):
            first += more
        if first.startswith(_POINTER):
            raise _pointer_error(request.path, f"git lfs migrate export --include={request.path!r}")
        if not manifest.is_manifest(first):
            return chain([first], content)  # committed before the path was tracked
        text = first + b"".join(content)
        if not self._workspace.workshop.settings.smudge:
            return [text]
        described = manifest.parse(text)
        if self._is_deferred(request, described):
            materialise.defer(self._workspace, request.path)
            return [text]
        if all(map(self._workspace.store.has, described.objects())):
            return self._restored(request.path, described)
        if request.can_delay:
            self._waiting[request.path] = described
            return None
        transfer.fetch(self._workspace, described.objects())
        return self._restored(request.path, described)

    def _is_deferred(self, request: SmudgeRequest, described: Manifest) -> bool:
        """Whether a large file is left to the hook.

        Only a checkout may be delayed: ``git archive`` and ``git cat-file --filters`` want the
        content itself.
        """
        limit = self._workspace.workshop.settings.direct_above
        return self._can_defer and request.can_delay and described.size > limit

    def available(self) -> list[str]:
        """Fetch what all waiting files lack in one go; then every one of them can be had."""
        if self._announced or not self._waiting:
            self._announced = False
            return []
        self._announced = True
        objects = {oid: size for m in self._waiting.values() for oid, size in m.objects().items()}
        try:
            transfer.fetch(self._workspace, objects)
        except ThetaError as error:
            self._warn(str(error))  # each file that cannot be rebuilt will say so itself
        return list(self._waiting)

    def delayed(self, path: str) -> Iterable[Buffer]:
        """A file that waited for its objects."""
        return self._restored(path, self._waiting.pop(path))

    def _restored(self, path: str, described: Manifest) -> Iterator[memoryview]:
        return smudge(described, self._workspace.workshop, path)


def _parse(text: bytes) -> Manifest | None:
    try:
        return manifest.parse(text)
    except ManifestError:
        return None  # what git has is damaged or newer; the file at hand does not depend on it


def _pointer_error(path: str, command: str) -> PointerError:
    return PointerError(
        "a Git LFS pointer stands here, but the path is tracked by git-theta",
        path=path,
        hint=command,
    )
