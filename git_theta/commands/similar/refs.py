"""The revisions to compare: as they are typed, and all branches and tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from git_theta.errors import UsageError
from git_theta.git import Repository, revisions
from git_theta.git.command import decode

_FOLDERS = ("refs/heads/", "refs/tags/", "refs/remotes/")
_FIELDS = ("refname", "objectname", "objecttype", "*objectname", "*objecttype", "symref")
_FORMAT = "%00".join(f"%({name})" for name in _FIELDS)


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision as it ``is_typed``, or a ref as `git branch` shows it, and its commit."""

    name: str
    commit: str
    is_typed: bool = field(default=False, compare=False)


def find(repo: Repository, words: Sequence[str]) -> list[Revision]:
    """Return the first of ``words``, and those that the others name: revisions, or globs of refs.

    Without others, all branches, remote ones too, and tags are meant. Of several refs at one
    commit the first counts, branches before others. Raises ``UsageError`` for what names nothing.
    """
    first, *others = words
    found = [Revision(first, revisions.commit_of(repo, first), True)]
    for word in others or ["*"]:
        if any(mark in word for mark in "*?["):
            matching = _by_commit(each for each in _refs(repo) if fnmatchcase(each.name, word))
            known = {each.commit for each in found}
            found += [each for each in matching if each.commit not in known]
            if others and not matching:
                raise UsageError(f"{word}: no such branch or tag", hint="git branch -a")
        else:
            found.append(Revision(word, revisions.commit_of(repo, word), True))
    return found


def _by_commit(refs: Iterable[Revision]) -> list[Revision]:
    found: dict[str, Revision] = {}
    for each in refs:
        found.setdefault(each.commit, each)
    return [*found.values()]


def _refs(repo: Repository) -> Iterator[Revision]:
    listed = decode(repo.git("for-each-ref", f"--format={_FORMAT}", *_FOLDERS))
    for line in listed.splitlines():
        ref, target, kind, peeled, peeled_kind, symbolic = line.split("\0")
        # origin/HEAD is another branch, and a tag may be of anything.
        if symbolic or (peeled_kind or kind) != "commit":
            continue
        name = next(ref.removeprefix(each) for each in _FOLDERS if ref.startswith(each))
        yield Revision(name, peeled or target)
