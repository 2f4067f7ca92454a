"""Any number of branches merged at once: a strategy sees all of them, and one commit is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from git_theta.errors import GitError, MergeError, ThetaError
from git_theta.git import Repository
from git_theta.git.command import decode, encode
from git_theta.merge import adapter_config
from git_theta.merge.folding import Folded, fold
from git_theta.merge.heads import Heads, merge_message
from git_theta.merge.merging import carry_out, conflict_error, make_plan, policy_for
from git_theta.merge.plan import Plan
from git_theta.merge.request import Request, all_rules
from git_theta.merge.rules import as_behind
from git_theta.merge.shards import with_other_files
from git_theta.merge.sources import adapter_of, config_path, contributor, version
from git_theta.merge.versions import Versions
from git_theta.workspace import Workspace

if TYPE_CHECKING:
    from git_theta.merge.computing import Surveys


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided, nothing done: the tree that git merged, and a plan per checkpoint.

    ``conflicts`` are other files that git could not merge. ``files`` are configurations of merged
    adapters, by path.
    """

    heads: Heads
    tree: str
    plans: tuple[Plan, ...]
    conflicts: tuple[str, ...]
    files: dict[str, bytes]

    @property
    def is_joint(self) -> bool:
        """Whether files depend on each other, and nothing is in conflict.

        Git's driver sees one file at a time: it cannot write an adapter's configuration, and
        surveys a model in several files anew for each. But git alone makes one ancestor of several.
        """
        is_clear = not (self.conflicts or self.heads.is_crossed)
        is_clear = is_clear and not any(plan.conflicts for plan in self.plans)
        return is_clear and (bool(self.files) or any(plan.shards for plan in self.plans))


def prepare(workspace: Workspace, heads: Heads, request: Request) -> Prepared:
    """Plan the merge.

    Raises ``MergeError`` for a rule that cannot be followed, and for several common ancestors
    where git is not to merge.
    """
    if heads.is_crossed and (request.every or len(heads.others) > 1):
        raise MergeError(
            "these branches merged each other before, so they have several common ancestors",
            hint="merge one branch after another: git theta merge BRANCH (without --all)",
        )
    repo = workspace.repo
    folded = fold(repo, heads)
    rules = all_rules(request, repo)
    if heads.head not in heads.contributors:
        others = [head.name for head in heads.others]
        rules = [as_behind(rule, heads.head.name, others) for rule in rules]
    plans, conflicts = [], list(folded.conflicts)
    sides = [(head.name, head.commit) for head in heads.contributors]
    for path in _paths(repo, heads, folded, request):
        try:
            versions = _versions(repo, heads, path)
        except ThetaError as error:
            raise error.at(path) from error
        if versions.base is None and folded.contested.get(path):
            # Renamed on one branch and changed on another: git's driver can, for two branches.
            conflicts.append(path)
            continue
        policy = policy_for("merge", rules, versions, request.every, request.allow_nan)
        plan = make_plan(versions, policy, workspace)
        plans.append(with_other_files(plan, workspace, sides, heads.base))
    files = _files(repo, folded.tree, plans)
    left = tuple(path for path in conflicts if path not in files)
    return Prepared(heads, folded.tree, tuple(plans), left, files)


def _files(repo: Repository, tree: str, plans: Sequence[Plan]) -> dict[str, bytes]:
    """What is written beside merged adapters; git may have left a conflict there."""
    found: dict[str, bytes] = {}
    for plan in plans:
        if not plan.conflicts:
            before = repo.read_blob(f"{tree}:{config_path(plan.versions.path)}")
            found.update(adapter_config.files(plan, before))
    return found


def _paths(repo: Repository, heads: Heads, folded: Folded, request: Request) -> list[str]:
    """The checkpoints to be merged: those that more heads changed, or with ``every`` one did."""
    paths = set(folded.contested)
    if request.every:
        before = {entry.path: entry.blob for entry in repo.tree(heads.base)}
        for head in heads.contributors:
            changed = (e for e in repo.tree(head.commit) if before.get(e.path) != e.blob)
            found = [entry for entry, _ in repo.manifests(changed) if entry.path in before]
            paths |= {entry.path for entry in found}
    return sorted(paths)


def _versions(repo: Repository, heads: Heads, path: str) -> Versions:
    base = repo.read_blob(f"{heads.base}:{path}")
    texts = [(head, repo.read_blob(f"{head.commit}:{path}")) for head in heads.contributors]
    present = (
        contributor(repo, head.name, text, path, head.commit)
        for head, text in texts
        if text is not None
    )
    ancestor = version(base, "the common ancestor")
    adapter = adapter_of(repo, ancestor, heads.base, path)
    return Versions(tuple(present), ancestor, path, adapter)


def complete(
    workspace: Workspace, prepared: Prepared, message: str | None, commit: bool
) -> list[str]:
    """Merge the checkpoints, then bring index and work tree to the result, and commit it.

    Gives notes for the user. Until all tensors are merged nothing is changed; a work tree that
    could not be brought to the result is put back as it was.
    """
    check_mergeable(prepared)
    repo = workspace.repo
    texts, notes = dict(prepared.files), []
    surveys: Surveys = {}
    for plan in prepared.plans:
        merged = carry_out(plan, workspace, surveys)
        texts[plan.versions.path] = merged.text
        notes += [f"{plan.versions.path}: {note}" for note in merged.notes]
    tree = _tree_with(repo, prepared.tree, texts)
    _check_out(repo, tree)
    _begin_merge(repo, prepared.heads, message or merge_message(repo, prepared.heads))
    if commit:
        repo.git("commit", "--quiet", "--no-edit", show_errors=True)
    return notes


def check_mergeable(prepared: Prepared) -> None:
    """Refuse what nothing decides, before any tensor is loaded."""
    for plan in prepared.plans:
        if plan.conflicts:
            # First: the configuration of an adapter may be in conflict until it is merged.
            raise conflict_error(plan, "nothing was changed", "git theta merge ...")
    if prepared.conflicts:
        raise MergeError(
            f"git cannot merge these files of the branches: {', '.join(prepared.conflicts)}",
            hint="merge the branches one after another; nothing was changed",
        )


def check_ready(repo: Repository) -> None:
    """Refuse to begin where git would: in the middle of something, or with staged changes."""
    if repo.work_tree is None:
        raise MergeError("a merge needs a work tree", hint="git worktree add, then merge there")
    if (repo.git_dir / "MERGE_HEAD").exists():
        raise MergeError("a merge is under way", hint="git commit, or git merge --abort")
    if decode(repo.git("diff-index", "--cached", "--name-only", "HEAD")):
        raise MergeError("changes are staged", hint="git commit, or git stash")


def _tree_with(repo: Repository, tree: str, texts: dict[str, bytes]) -> str:
    """``tree`` with other content for some files, their modes kept."""
    with TemporaryDirectory(dir=repo.theta_dir, prefix=".tmp-") as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        repo.git("read-tree", tree, env=env)
        records = list(_records(repo, texts, env))
        repo.git("update-index", "-z", "--index-info", stdin=b"".join(records), env=env)
        return decode(repo.git("write-tree", env=env)).strip()


def _records(repo: Repository, texts: dict[str, bytes], env: dict[str, str]) -> Iterator[bytes]:
    for path, text in texts.items():
        listed = repo.git("ls-files", "--stage", "-z", "--", f":(literal,top){path}", env=env)
        mode = decode(listed).split(" ", 1)[0] or "100644"
        blob = decode(repo.git("hash-object", "-w", "--no-filters", "--stdin", stdin=text)).strip()
        yield f"{mode} {blob} 0\t".encode() + encode(path) + b"\0"


def _check_out(repo: Repository, tree: str) -> None:
    """Bring index and work tree from HEAD to ``tree``, or leave them as they are."""
    repo.git("update-index", "-q", "--refresh", check=False)
    two_way = ("read-tree", "-m", "-u", "HEAD", tree)
    try:
        repo.git(two_way[0], "--dry-run", *two_way[1:])
    except GitError as error:
        raise MergeError(
            f"local changes would be overwritten: {error.message}",
            details=error.details,
            hint="git commit or git stash them; nothing was changed",
        ) from error
    try:
        repo.git(*two_way, show_errors=True)
    except BaseException:
        _put_back(repo, tree)
        raise


def _put_back(repo: Repository, tree: str) -> None:
    """Undo a checkout that failed half-way: the files that it touched had no local changes."""
    listed = decode(repo.git("diff-tree", "-r", "-z", "--name-status", "HEAD", tree)).split("\0")
    status = dict(zip(listed[1::2], listed[::2], strict=False))
    for path in (path for path, letter in status.items() if letter == "A"):
        with suppress(OSError):
            (repo.top / path).unlink()
    before = b"".join(encode(path) + b"\0" for path, letter in status.items() if letter != "A")
    repo.git("read-tree", "HEAD")
    repo.git("checkout-index", "-f", "-q", "-z", "--stdin", stdin=before)
    repo.git("update-index", "-q", "--refresh", check=False)


def _begin_merge(repo: Repository, heads: Heads, message: str) -> None:
    """Write what tells git that a merge is under way: `git merge --abort` then works."""
    repo.git("update-ref", "ORIG_HEAD", "HEAD")
    (repo.git_dir / "MERGE_MSG").write_text(message + "\n", "utf-8", "surrogateescape")
    (repo.git_dir / "MERGE_MODE").write_text("no-ff", "utf-8")
    commits = "".join(f"{head.commit}\n" for head in heads.others)
    (repo.git_dir / "MERGE_HEAD").write_text(commits, "utf-8")
