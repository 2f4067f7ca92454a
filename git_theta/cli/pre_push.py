"""The pre-push hook, for which every push waits: it starts without click and decodes nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from git_theta import transfer
from git_theta.cli import whole_files
from git_theta.cli.exit_handling import complain, run_and_leave
from git_theta.cli.progress import Meter
from git_theta.cli.text import uploaded_line
from git_theta.commands.whole_files import in_range
from git_theta.core.system import ancestors
from git_theta.git import Entry, Repository
from git_theta.git.command import decode
from git_theta.workspace import open_workspace


def run_hook(words: Sequence[str]) -> NoReturn:
    """Do the work of the hook, whose arguments are ``words`` (githooks(5)), and exit."""
    remote, url = words[0], words[1] if len(words) > 1 else None
    run_and_leave(partial(before_push, remote, url))


def before_push(remote: str, url: str | None) -> None:
    """Upload the objects that the pushed commits need, and warn of files that are whole."""
    updates = transfer.parse_updates(decode(sys.stdin.buffer.read()))
    with open_workspace(progress=Meter(), complain=complain, read_settings_once=True) as workspace:
        repo = workspace.repo
        suspects = list[Entry]()
        options = (workspace, remote, url, updates, complain, _mirrors())
        uploaded = transfer.before_push(*options, others=suspects.append)
        # Looked for only where there may be any: it takes five programs.
        whole = in_range(repo, *_pushed(repo, remote, updates)) if suspects else []
        for line in whole_files.lines(repo, whole):
            complain(line)
    if uploaded.sent:
        sent = uploaded.sent.values()
        print("git-theta: " + uploaded_line(len(sent), sum(sent), uploaded.remote), file=sys.stderr)


def _mirrors() -> bool:
    """Tell whether a `git push --mirror` started us: git lists no deletions of such a push."""
    pushes = (words for words in ancestors() if "push" in words)
    return any(len(word) > 2 and "--mirror".startswith(word) for words in pushes for word in words)


def _pushed(
    repo: Repository, remote: str, updates: list[transfer.RefUpdate]
) -> tuple[list[str], list[str]]:
    """Return what is pushed, and what this repository knows to be there."""
    tips = [update.local for update in updates if not update.deletes]
    there = [update.remote for update in updates if repo.has(update.remote)]
    return tips, [*there, f"--remotes={remote}"] if repo.has_remote(remote) else there
