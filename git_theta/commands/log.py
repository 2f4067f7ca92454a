"""The commits that changed checkpoints, and what each changed, parameter by parameter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from git_theta import manifest
from git_theta.commands.status import contents
from git_theta.core.hashes import Ref
from git_theta.errors import MergeError, ThetaError, UsageError
from git_theta.git import Repository, command
from git_theta.git.command import decode
from git_theta.manifest import Manifest
from git_theta.merge.recipe import check_recipe, describe

_FORMAT = "%x01%H%x02%P%x02%cI%x02%an%x02%s"
_NO_BLOB = re.compile(r"0+")


@dataclass(frozen=True, slots=True)
class Revision:
    """One checkpoint in one commit, compared with the commit's first parent.

    ``stored`` is the number of bytes of frames that no parent's version of the file names;
    ``recipe`` tells in a line how it was merged, if it was.
    """

    path: str
    parameters: int
    changed: int
    added: int
    removed: int
    stored: int
    recipe: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that changed checkpoints. ``date`` is ISO 8601."""

    commit: str
    parents: tuple[str, ...]
    date: str
    author: str
    subject: str
    checkpoints: tuple[Revision, ...]


def history(
    repo: Repository, rev: str = "HEAD", paths: Sequence[str] = (), limit: int | None = None
) -> Iterator[Commit]:
    """The commits from ``rev`` back that changed a checkpoint (at ``paths``), the latest first.

    A single path is followed through renames. A merge is shown where its result is none of its
    parents'. Raises ``UsageError`` where there is no such revision.
    """
    if repo.resolve(rev) is None:
        raise UsageError(f"{rev}: no such revision", hint="git log --oneline lists them")
    return islice(_commits(repo, rev, paths), limit)


def _commits(repo: Repository, rev: str, paths: Sequence[str]) -> Iterator[Commit]:
    for header, rows in _log(repo, rev, paths):
        commit, parents, date, author, subject = header.split("\2", 4)
        others = parents.split()[1:]
        found = (_revision(repo, others, *row) for row in rows)
        revisions = tuple(revision for revision in found if revision)
        if revisions:
            yield Commit(commit, tuple(parents.split()), date, author, subject, revisions)


Row = tuple[str, str, str, str]


def _log(repo: Repository, rev: str, paths: Sequence[str]) -> Iterator[tuple[str, list[Row]]]:
    """Each commit's header and its files: old blob, new blob, old path, new path."""
    options = ["--raw", "-z", "--no-abbrev", "-M", "--diff-merges=first-parent", "--root"]
    options += ["--follow"] if len(paths) == 1 else []
    args = ["git", "log", *options, f"--format={_FORMAT}", rev, "--", *paths]
    with command.start(args, cwd=repo.top, env=repo.environment(), source=None) as process:
        assert process.stdout
        try:
            header, fields = "", list[str]()
            for field in _fields(process.stdout.read):
                if field.startswith("\1"):
                    if header:
                        yield header, list(_rows(fields))
                    header, fields = field[1:], []
                else:
                    fields.append(field)
            if header:
                yield header, list(_rows(fields))
        finally:
            process.kill()


def _fields(read: Callable[[int], bytes]) -> Iterator[str]:
    rest = b""
    while piece := read(1 << 16):
        *whole, rest = (rest + piece).split(b"\0")
        yield from (decode(field).lstrip("\n") for field in whole)
    if rest.strip():
        yield decode(rest)


def _rows(fields: Sequence[str]) -> Iterator[Row]:
    rest = iter(field for field in fields if field)
    for field in rest:
        words = field.split(" ")  # :<mode> <mode> <blob> <blob> <status>
        path = next(rest)
        renamed = words[4][:1] in ("R", "C")
        yield words[2], words[3], path, next(rest) if renamed else path


def _revision(
    repo: Repository, others: Sequence[str], before: str, after: str, old: str, path: str
) -> Revision | None:
    earlier, later = _manifest(repo, before, old), _manifest(repo, after, path)
    if earlier is None and later is None:
        return None
    left, right = contents(earlier), contents(later)
    shared = left.keys() & right.keys()
    known = set(earlier.refs()) if earlier else set()
    for other in others:
        known |= _refs(repo, f"{other}:{path}")
    new = {chunk.chain[0] for chunk in later.chunks()} - known if later else set()
    return Revision(
        path=path,
        parameters=len(right),
        changed=sum(left[name] != right[name] for name in shared),
        added=len(right.keys() - shared),
        removed=len(left.keys() - shared),
        stored=sum(ref.length for ref in new),
        recipe=_recipe(later, earlier),
    )


def _manifest(repo: Repository, blob: str, path: str) -> Manifest | None:
    text = None if _NO_BLOB.fullmatch(blob) else repo.read_blob(blob)
    if text is None or not manifest.is_manifest(text):
        return None
    try:
        return manifest.parse(text)
    except ThetaError as error:
        raise error.at(path) from error


def _refs(repo: Repository, spec: str) -> set[Ref]:
    text = repo.read_blob(spec)
    return set(manifest.parse(text).refs()) if text and manifest.is_manifest(text) else set()


def _recipe(described: Manifest | None, before: Manifest | None) -> str | None:
    if described is None or described.recipe is None:
        return None
    if before and before.recipe == described.recipe:
        return None  # it was only renamed, or stored otherwise
    try:
        return describe(check_recipe(described.recipe))
    except MergeError:
        return "a recipe that this git-theta cannot read"
