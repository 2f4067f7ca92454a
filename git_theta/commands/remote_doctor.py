"""All that can be checked of a remote without pushing to it, and the command that mends it."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

from git_theta.commands.doctor import Finding, attempt, hook_findings
from git_theta.core.messages import plural
from git_theta.errors import GitError
from git_theta.git import Repository, pointer_refs, refusals
from git_theta.git.command import decode
from git_theta.git.lfs import Lfs
from git_theta.git.remotes import (
    Remote,
    fetch_remote,
    find_remote,
    push_urls,
    refs_of,
    without_password,
)
from git_theta.transfer.needs import history_entries, needed_objects, silent
from git_theta.transfer.remote_check import needs_of
from git_theta.workspace import Workspace, open_workspace

# Bytes of the largest object that a host takes: GitHub Free, and what Hugging Face documents.
_LARGEST = {"github.com": 2 << 30, "huggingface.co": 500 * 10**9}

# An object that nobody has: a host that is asked for it alone answers, or says why not.
_NOBODYS = {"0" * 64: 1}

_ENDPOINT = re.compile(r"^Endpoint=(https?://\S+)", re.MULTILINE)
_SCP_LIKE = re.compile(r"(?:[^@/]+@)?([\w.-]+):[^/]")
_PATH = re.compile(r"lfs\.customtransfer\.(.+)\.path")
_ALONE = "standalonetransferagent"
_BUILT_IN = "lfs-standalone-file"


def examine_remote(name: str) -> list[Finding]:
    """Look at the remote called ``name``, and at what a push to it and a fetch from it meet."""
    with open_workspace() as workspace:
        if workspace.repo.has_remote(name):
            return list(_look(workspace, name))
    return [Finding("remote", False, f"there is no remote called {name}", "git remote -v")]


def _look(workspace: Workspace, name: str) -> Iterator[Finding]:
    repo, remote = workspace.repo, find_remote(workspace.repo, name)
    endpoint = _endpoint(repo, name)
    yield from _urls(repo, name)
    yield from hook_findings(repo)
    yield from _agents(repo)
    yield from _sizes(workspace, (_written(repo, name), remote.url, endpoint or ""))
    if endpoint:
        yield from _locks(repo, name, endpoint)
    answers = list(attempt("refs", partial(_refs, repo, remote)))
    yield from answers
    reachable = all(finding.ok for finding in answers)
    look = partial(_objects if reachable else _server, workspace, remote, endpoint)
    yield from attempt("objects", look)


# --- where it is, and how objects get there ------------------------------------------------------


def _urls(repo: Repository, name: str) -> Iterator[Finding]:
    written, url = _written(repo, name), fetch_remote(repo, name).url
    shown = without_password(url)
    origin = f" ({without_password(written)} by url.*.insteadOf)" if url != written else ""
    yield Finding("url", True, shown + origin)
    pushed = push_urls(repo, name)
    if url not in pushed:
        places = ", ".join(map(without_password, pushed))
        detail = f"pushes go to {places}, fetches come from {shown}"
        fix = f"git remote set-url --push {shlex.quote(name)} {shlex.quote(shown)}"
        yield Finding("url", False, detail, f"{fix} (unless one copies the other)")


def _written(repo: Repository, name: str) -> str:
    return repo.config_value(f"remote.{name}.url") or name


def _endpoint(repo: Repository, name: str) -> str | None:
    """Return the URL to which git-lfs sends requests for a remote; ``None`` if it is not HTTP."""
    options = ("-c", f"remote.lfsdefault={name}")
    found = _ENDPOINT.search(decode(repo.git(*options, "lfs", "env", check=False)))
    return found[1] if found else None


def _agents(repo: Repository) -> Iterator[Finding]:
    """Look for the programs that are configured to transfer objects in git-lfs's place."""
    listed = decode(repo.git("config", "--null", "--get-regexp", r"^lfs\.", check=False))
    settings = dict(record.split("\n", 1) for record in listed.split("\0") if "\n" in record)
    paths = {match[1]: settings[key] for key in settings if (match := _PATH.fullmatch(key))}
    for agent, path in paths.items():
        if shutil.which(path) is None:
            fix = f"git config --unset {shlex.quote(f'lfs.customtransfer.{agent}.path')}"
            detail = f"{agent} is run as {path}, which does not exist"
            yield Finding("transfer agent", False, detail, f"install it, or: {fix}")
    for key, agent in settings.items():
        if key.endswith(_ALONE) and agent not in (*paths, _BUILT_IN):
            detail = f"{key} is {agent}, and lfs.customtransfer.{agent}.path is not set"
            fix = f"git config --unset {shlex.quote(key)}"
            yield Finding("transfer agent", False, detail, fix)


def _sizes(workspace: Workspace, urls: Iterable[str]) -> Iterator[Finding]:
    limits = {host: _LARGEST[host] for host in map(_host, urls) if host in _LARGEST}
    for host, limit in limits.items():
        chosen = workspace.storage.settings.object_size
        if chosen > limit:
            detail = f"theta.objectSize is {chosen:,} bytes, {host} takes objects of {limit:,}"
            yield Finding("sizes", False, detail, "git config theta.objectSize 1g")
        large = [size for size in _of_head(workspace).values() if size > limit]
        if large:
            detail = f"{plural(len(large), 'object')} of HEAD above {limit:,} bytes, for {host}"
            yield Finding("sizes", False, detail, "push to a host that takes larger ones")


def _host(url: str) -> str:
    """Return the host of a URL, also of one as ``git@host:path``; empty if it has none."""
    scp = _SCP_LIKE.match(url)
    with suppress(ValueError):  # of .lfsconfig, which comes with any commit
        return (urlsplit(url).hostname if "://" in url else scp and scp[1]) or ""
    return ""


def _of_head(workspace: Workspace) -> Mapping[str, int]:
    repo = workspace.repo
    head = repo.resolve("HEAD")
    entries = history_entries(repo, [head] if head else [])
    return needed_objects(repo, repo.local_entries(entries), silent)


def _locks(repo: Repository, name: str, endpoint: str) -> Iterator[Finding]:
    """Ask for locks where git-lfs is told to ask before each push: without an answer none goes."""
    asked = ("config", "--type=bool", "--get-urlmatch", "lfs.locksverify", endpoint)
    if decode(repo.git(*asked, check=False)).strip() != "true":
        return
    try:
        repo.git("lfs", "locks", "--verify", "--limit=1", f"--remote={name}")
    except GitError as error:
        refusal = refusals.find(refusals.words_of(error))
        reason = refusal.meaning if refusal else error.message
        fix = f"git config {shlex.quote(f'lfs.{endpoint}.locksverify')} false"
        yield Finding(
            "locks", False, f"asked for before each push (lfs.locksverify): {reason}", fix
        )


# --- what is there -------------------------------------------------------------------------------


def _refs(repo: Repository, remote: Remote) -> Iterator[Finding]:
    refs = refs_of(repo, remote, "refs/heads/*", "refs/tags/*")
    yield Finding("refs", True, f"{remote.title} answers: {plural(len(refs), 'ref')}")


def _objects(workspace: Workspace, remote: Remote, endpoint: str | None) -> Iterator[Finding]:
    """Ask for all objects that the remote's branches and tags need, and for their pointers."""
    sizes = needs_of(workspace, remote, silent).sizes
    if not sizes or _agent(workspace.repo, endpoint):
        yield from _server(workspace, remote, endpoint)
        return
    missing, count = Lfs(workspace.repo).lacking(remote, sizes), plural(len(sizes), "object")
    detail = f"{endpoint or remote.title} has {count} that branches and tags need"
    if missing:
        detail = f"{remote.title} lacks {len(missing):,} of {count} that its branches and tags need"
    fix = f"git theta push --all {shlex.quote(remote.title)}"
    yield Finding("objects", not missing, detail, fix if missing else None)
    yield from _pointers(workspace, remote, sizes, fix)


def _server(workspace: Workspace, remote: Remote, endpoint: str | None) -> Iterator[Finding]:
    """Ask the LFS server about an object that nobody has."""
    if agent := _agent(workspace.repo, endpoint):
        yield Finding("objects", True, f"go through {agent}, which cannot be asked what is there")
        return
    Lfs(workspace.repo).lacking(remote, _NOBODYS)
    yield Finding("objects", True, f"{endpoint or remote.title} answers")


def _agent(repo: Repository, endpoint: str | None) -> str:
    """Return the agent that transfers without asking a server, if one does."""
    asked = (
        ("--get-urlmatch", f"lfs.{_ALONE}", endpoint) if endpoint else ("--get", f"lfs.{_ALONE}")
    )
    return decode(repo.git("config", *asked, check=False)).strip()


def _pointers(
    workspace: Workspace, remote: Remote, sizes: Mapping[str, int], fix: str
) -> Iterator[Finding]:
    if not workspace.storage.settings.pointers:
        yield Finding("pointers", True, "switched off by theta.pointers")
        return
    there = pointer_refs.refs_on(workspace.repo, remote)
    unnamed = sizes.keys() - pointer_refs.named_on(workspace.repo, remote, there)
    if unnamed:
        detail = f"{plural(len(unnamed), 'object')} without one: some hosts delete such objects"
        yield Finding("pointers", False, detail, fix)
    else:
        branches = "branches git-theta/objects/..., for the host takes no other refs"
        used = branches if pointer_refs.uses_branches(there) else f"{pointer_refs.NAMESPACE}..."
        yield Finding("pointers", True, f"in {used}")
