"""The work of the filter process on the files that git hands it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from threading import Thread

from git_theta import manifest
from git_theta.checkpoint.limits import excess
from git_theta.checkpoint.verify import cut_alike, is_file_of
from git_theta.core.layout import Buffer
from git_theta.errors import ManifestError, ThetaError
from git_theta.filters import as_it_is, unconverted
from git_theta.filters.conflicts import dropped_side, marker_error, octopus_error
from git_theta.filters.incoming import Packets, check_empty, clean_incoming
from git_theta.filters.parents import KnownCheckpoints
from git_theta.filters.waiting import WaitingFiles
from git_theta.git import attributes
from git_theta.git.filter_server import SmudgeRequest
from git_theta.git.lfs_files import LONGEST, PREFIX, is_pointer
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace

_MARKER = b"<<<<<<< "
# Encodes chunks that are not stored yet.
_ENCODER = "git_theta.checkpoint.chunk_encoder"
# Enough of a file to tell a pointer, a manifest, or one with conflict markers.
_HEAD = 256


class Session:
    """One ``git`` command's worth of files.

    ``warn`` is told what the user should know. With ``can_defer`` a hook is there that turns
    manifests in the work tree into files after git is done. With ``as_text`` git is about to merge
    the manifests that it smudges as lines of text. With ``only_compares`` git stores nothing of
    what it has cleaned, so that a file that somebody is writing is merely different.
    With ``for_drivers`` git hands what is smudged to its diff drivers, and ours reads manifests.
    With ``renormalizes`` what git holds whole, or as a pointer, becomes a manifest too.
    """

    def __init__(
        self,
        workspace: Workspace,
        warn: Callable[[str | ThetaError], None],
        can_defer: bool = False,
        as_text: bool = False,
        only_compares: bool = False,
        for_drivers: bool = False,
        renormalizes: bool = False,
    ) -> None:
        self._workspace = workspace
        self._warn = warn
        self._can_defer = can_defer
        self._as_text = as_text
        self._waiting = WaitingFiles(workspace, self._is_at_hand, warn)
        self._broken: dict[str, ManifestError] = {}
        self._given: dict[str, bytes] = {}
        self._only_compares = only_compares
        self._for_drivers = for_drivers
        self._renormalizes = renormalizes
        self._written: dict[str, int] = {}
        # Git reads no file before it has had the answer to the one before it.
        self._answered = time.time_ns()
        self._known = KnownCheckpoints(workspace.repo)

    # --- clean: from the work tree to git --------------------------------------------------------

    def clean(self, path: str, content: Iterator[bytes]) -> Iterable[Buffer]:
        """Yield the manifest of a file, its objects stored; a manifest passes through unchanged."""
        packets = Packets(content)
        head = bytes(packets.take(_HEAD))
        if is_pointer(head):
            text = head + bytes(packets.take(LONGEST))
            as_it_is.check_pointer(self._workspace.repo, path, text)
            yield text
            return
        if head.startswith(_MARKER) and manifest.PREFIX in head:
            raise marker_error(path)
        packets.push_back(head)
        if manifest.is_manifest(head):
            text = bytes(packets.take(manifest.MAX_BYTES + 1))
            as_it_is.check_manifest(self._workspace.repo, path, text)
        elif head:
            unchanged, packets = self._unconverted(path, packets)
            if unchanged is not None:
                yield from unchanged
                return
            text = self._cleaned(path, packets)
        else:
            if not self._only_compares:
                check_empty(self._file(path), self._since(path))
            return
        if warning := dropped_side(self._workspace.repo, path, text):
            self._warn(warning)
        yield text
        self._answered = time.time_ns()

    def _unconverted(self, path: str, packets: Packets) -> tuple[Iterator[Buffer] | None, Packets]:
        if self._renormalizes:
            return None, packets
        return unconverted.kept(self._workspace.repo, path, packets)

    def _file(self, path: str) -> Path:
        return (self._workspace.repo.work_tree or Path()) / path

    def _since(self, path: str) -> int | None:
        """Return the earliest time (ns) at which git can have begun to read ``path``."""
        # What git itself wrote a moment ago nobody else did.
        return None if path in self._written else self._answered

    def _cleaned(self, path: str, content: Packets) -> bytes:
        texts = list(dict.fromkeys(self._texts(path)))
        if not texts and _ENCODER not in sys.modules:
            # With numpy; imported while the first chunks come.
            Thread(target=import_module, args=[_ENCODER]).start()
        file, storage = self._file(path), self._workspace.storage
        parents, since = self._known.parents(path, texts), self._since(path)
        result = clean_incoming(content, file, path, storage, parents, since, self._only_compares)
        if result.warning:
            self._warn(f"{path}: {result.warning}")
        limit = storage.settings.expand_limit
        if excess(result.manifest) > limit:
            self._warn(
                f"{path}: it is {result.manifest.size:,} bytes of nearly nothing; checking it out "
                f"needs more than theta.expandLimit={limit}"
            )
        made = manifest.dump(result.manifest)
        # The text that git has for these very bytes: no spurious difference.
        same = (text for text in texts if self._stands_for(text, result.manifest))
        return made if made in texts else next(same, made)

    def _texts(self, path: str) -> Iterator[bytes]:
        """Yield the manifests of ``path``: this git command's, the index's, HEAD's."""
        if path in self._given:
            yield self._given[path]
        yield from self._known.texts(path)

    def _stands_for(self, text: bytes, cleaned: Manifest) -> bool:
        """Return whether ``text`` is of the same file, and all that it names is here and whole.

        Else adding a file again could not mend what was lost.
        """
        parent = self._known.parent(text)
        return (
            parent is not None
            and self._is_same_file(parent.manifest, cleaned)
            and not self._workspace.storage.unsound(parent.manifest.objects())
        )

    def _is_same_file(self, parent: Manifest, cleaned: Manifest) -> bool:
        """Tell equal files apart from equal cuts.

        Another ``theta.chunkSize``, or a format that is not installed here, cuts a file at other
        places; it is not modified for that.
        """
        if parent.hash == cleaned.hash:
            return True
        if parent.size != cleaned.size or cut_alike(parent, cleaned):
            return False
        from git_theta.checkpoint.smudge import smudge  # imports numpy, as below

        storage = self._workspace.storage
        stream = Packets(smudge(cleaned, storage))
        return is_file_of(parent, stream, storage.settings.workers)

    # --- smudge: from git to the work tree -------------------------------------------------------

    def smudge(self, request: SmudgeRequest, content: Iterator[bytes]) -> Iterable[Buffer] | None:
        """Return the file of a manifest; ``None`` to be asked again when its objects are here."""
        self._written[request.path] = time.time_ns()
        first = next(content, b"")
        while first and len(first) < len(PREFIX) and (more := next(content, b"")):
            first += more
        if is_pointer(first):
            return self._pointed(request.path, first + b"".join(content))
        if not manifest.is_manifest(first):
            return chain([first], content)  # committed before the path was tracked
        text = first + b"".join(content)
        if request.blob is None:
            # `git am` and `git merge -s recursive` read what they merged before the index has it.
            self._given[request.path] = text
        if self._as_text:
            self._warn(octopus_error(request.path, os.environ))
            return [text]  # git puts its merge, conflict markers and all, in the file's place
        if not self._workspace.storage.settings.smudge or self._is_for_our_driver(request.path):
            return [text]
        try:
            described = manifest.parse(text)
        except ManifestError as error:
            if not request.can_delay:
                raise
            self._broken[request.path] = error
            return None
        return self._file_of(request, described, text)

    def _file_of(
        self, request: SmudgeRequest, described: Manifest, text: bytes
    ) -> Iterable[Buffer] | None:
        """Return the file of a manifest that can be read, or the manifest where it is deferred."""
        if self._is_deferred(request, described):
            from git_theta.filters import deferred  # which an add does not need

            deferred.defer(self._workspace, request.path)
            return [text]
        if request.can_delay and not self._is_at_hand(described):
            self._waiting.add(request.path, described)
            return None
        from git_theta import transfer  # seldom needed: takes 12 ms to import

        transfer.fetch(self._workspace, described.objects())
        return self._restored(request.path, described)

    def _pointed(self, path: str, text: bytes) -> Iterable[Buffer]:
        """Return the file of a pointer that was committed without git-theta.

        Where it cannot be had, the pointer: a checkout that fails could not even be mended.
        """
        if not self._workspace.storage.settings.smudge or self._is_for_our_driver(path):
            return [text]
        from git_theta.filters.lfs_content import content_of, pieces_of  # seldom needed, as above

        if file := content_of(self._workspace, text):
            return pieces_of(file)
        self._warn(as_it_is.pointer_error(self._workspace.repo, path, "--renormalize "))
        return [text]

    def _is_for_our_driver(self, path: str) -> bool:
        """Tell whether the driver of `git diff` gets this, to whom a full copy is of no use."""
        if not self._for_drivers:
            return False
        return attributes.effective(self._workspace.repo, [path], "diff").get(path) == "theta"

    def _is_deferred(self, request: SmudgeRequest, described: Manifest) -> bool:
        """Return whether a large file is left to the hook.

        Only a checkout may be delayed: ``git archive`` and ``git cat-file --filters`` want the
        content itself.
        """
        limit = self._workspace.storage.settings.direct_above
        return self._can_defer and request.can_delay and described.size > limit

    def available(self) -> list[str]:
        """Return files that can be had now; see ``WaitingFiles``.

        Git asks until nothing is left, and ends at the first file that fails: those that cannot be
        rebuilt are named when it has the others.
        """
        ready = self._waiting.ready()
        if len(ready) == 1:
            return ready
        return [*ready, *self._broken]

    def _is_at_hand(self, described: Manifest) -> bool:
        """Return whether all objects are here, and may be decoded: git ends where they may not."""
        size_of, limit = self._workspace.store.size, self._workspace.storage.settings.expand_limit
        return excess(described) <= limit and all(
            size_of(oid) == size for oid, size in described.objects().items()
        )

    def delayed(self, path: str) -> Iterable[Buffer]:
        """Return a file that waited for its objects, or for the others since it cannot be had."""
        if error := self._broken.pop(path, None):
            raise error
        return self._waiting.telling(self._restored(path, self._waiting.take(path)))

    def settle(self) -> None:
        """Spare git from reading what it has just written, once it has written its index.

        It takes a file of the same second for one that may have changed: each first `git status`
        after a checkout read all of it.
        """
        if self._written and "GIT_INDEX_FILE" not in os.environ:
            from git_theta.git import index_stats  # which an add does not need

            files = {path: (self._file(path), since) for path, since in self._written.items()}
            index_stats.settle(self._workspace.repo.index_file, files)

    def _restored(self, path: str, described: Manifest) -> Iterator[memoryview]:
        # Imported here: with numpy it takes 70 ms, which an add of what is here need not pay.
        from git_theta.checkpoint.smudge import smudge

        return smudge(described, self._workspace.storage, path)
