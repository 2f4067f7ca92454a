"""Commits that are made while training continues, and never end it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from git_theta.api.checkpoint import StrPath
from git_theta.api.commit import commit_sources, open_sources
from git_theta.core.layout import Source

_LOG = logging.getLogger(__name__)


class BackgroundCommits:
    """Commits files one set after another, in a thread, to a branch of a repository.

    Any error is only a warning in the log ``git_theta.integrations``, and the next set of files is
    tried again. The end of the program waits for the last commit.
    """

    def __init__(self, branch: str | None, repo: StrPath) -> None:
        self._branch = branch
        # Before the program changes its folder.
        self._repo = Path(repo).absolute()
        # Begun when it is needed: strategies that start processes pickle callbacks.
        self._pool: ThreadPoolExecutor | None = None
        self._pending: list[Future[str | None]] = []

    def submit(self, files: Callable[[], Mapping[StrPath, StrPath]], message: str) -> None:
        """Commit files, which are opened now: they may be deleted before their turn comes.

        ``files`` maps paths in the repository, relative to its folder, to files.
        """
        stack = ExitStack()
        try:
            sources = open_sources(stack, files())
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="git-theta-commit")
            work = self._pool.submit(self._commit, stack, sources, message)
        except Exception as error:  # a training that took days is worth more than a commit
            stack.close()
            _warn(error)
            return
        self._pending = [each for each in self._pending if not each.done()]
        self._pending.append(work)

    def wait(self) -> None:
        """Return when everything that was submitted is committed, or was given up."""
        for each in self._pending:
            each.result()
        self._pending = []

    def _commit(self, stack: ExitStack, sources: Mapping[str, Source], message: str) -> str | None:
        with stack:
            try:
                made = commit_sources(sources, message, self._branch, self._repo)
            except Exception as error:
                _warn(error)
                return None
        _LOG.info("committed %s: %s", made[:12], message)
        return made


def _warn(error: Exception) -> None:
    _LOG.warning("a checkpoint was not committed, and training goes on: %s", error)


def message_of(title: str, figures: Mapping[str, float]) -> str:
    """Return a commit's subject: ``run: step 1,000, loss 0.71, learning rate 1e-05``."""
    parts = (f"{name.replace('_', ' ')} {_number(value)}" for name, value in figures.items())
    return f"{title}: {', '.join(parts)}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
