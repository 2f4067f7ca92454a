"""Files of a checkout that wait for their objects, and are given to Git as these come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from git_theta.core.layout import Buffer
from git_theta.errors import MissingObjectError, ThetaError
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace


class WaitingFiles:
    """Manifests by path. ``is_at_hand`` says if a file can be had, ``warn`` is told what failed."""

    def __init__(
        self,
        workspace: Workspace,
        is_at_hand: Callable[[Manifest], bool],
        warn: Callable[[ThetaError], None],
    ) -> None:
        self._workspace = workspace
        self._is_at_hand = is_at_hand
        self._warn = warn
        self._files: dict[str, Manifest] = {}
        self._coming: Iterator[str] | None = None
        self._fetching: Future[list[ThetaError]] | None = None

    def add(self, path: str, described: Manifest) -> None:
        """Let a file wait."""
        self._files[path] = described

    def take(self, path: str) -> Manifest:
        """Return the manifest of a file that waits no longer."""
        return self._files.pop(path)

    def ready(self) -> list[str]:
        """Wait for a file that can be had, and return it; at last those that cannot be had.

        The first call begins to fetch what all of them lack, in one go. The last file is returned
        before its objects are here, and decoded as they come: if it fails, no other has to suffer,
        for Git ends at the first that fails.
        """
        if self._files and self._coming is None:
            self._coming = self._begin()
        while self._coming and len(self._files) > 1:
            path = next(self._coming, None)
            if path is None:
                break
            if path in self._files and self._is_at_hand(self._files[path]):
                return [path]
        if len(self._files) != 1:
            self._tell()
        if not self._files:
            self._coming = None
        return [*self._files]

    def telling(self, output: Iterable[Buffer]) -> Iterator[Buffer]:
        """Yield a file's content; where an object did not come, say first why."""
        try:
            yield from output
        except MissingObjectError:
            self._tell()
            raise

    def _begin(self) -> Iterator[str]:
        """Begin to fetch, and yield each path when nothing that it needs is on its way."""
        from git_theta import transfer  # seldom needed: takes 12 ms to import

        paths, manifests = list(self._files), list(self._files.values())
        self._fetching = transfer.fetch_beside(self._workspace, manifests)
        turns = self._workspace.store.arrivals.in_turn([found.objects() for found in manifests])
        return (paths[number] for number in turns)

    def _tell(self) -> None:
        """Wait for the end of the download and say what went wrong."""
        if self._fetching is not None:
            for error in self._fetching.result():
                self._warn(error)  # each file that cannot be rebuilt will say so itself
            self._fetching = None
