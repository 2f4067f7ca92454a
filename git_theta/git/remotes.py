"""Remotes as a push sees them: one URL, which may have a name, and the refs that are there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from git_theta.errors import GitError, TransferError, UsageError
from git_theta.git import refusals
from git_theta.git.command import decode
from git_theta.git.repository import Repository

# Settings by which git-lfs puts objects elsewhere than beside the commits (git-lfs-config(5)).
_REDIRECT = re.compile(
    r"(lfs\.(.*\.)?(url|pushurl|standalonetransferagent)|remote\..*\.lfs(push)?url)"
)

_LINE = re.compile(r"([0-9a-f]{40,64})\t(refs/[^\t]+)")


@dataclass(frozen=True, slots=True)
class Remote:
    """A place to push to: ``spec`` is what git and git-lfs are told, a remote's name or a URL.

    ``title`` is how to call it in messages, ``folder`` where it lies if on this machine, ``key``
    what records about it are filed under: the URL, and the settings that send objects elsewhere.
    """

    spec: str
    title: str
    url: str
    folder: Path | None
    key: str
    redirected: bool


def find_remote(repo: Repository, name: str, url: str | None = None) -> Remote:
    """Return the remote called ``name`` (or at that URL or path), as a push to ``url`` sees it.

    A remote may have several push URLs: git runs its hook for each, and what one has says nothing
    of the others. So a name stands for its first URL alone, and the others for themselves.
    Raises ``UsageError`` for what is neither a remote nor a URL nor a folder.
    """
    urls = push_urls(repo, name)
    if not (urls or url or {":", "/"} & set(name) or folder_of(name, repo.top)):
        raise UsageError(f"there is no remote called {name}", hint="git remote -v")
    chosen = url or (urls[0] if urls else name)
    return _remote(repo, name if urls else chosen, name if urls == [chosen] else chosen, chosen)


def fetch_remote(repo: Repository, name: str) -> Remote:
    """Return the remote called ``name`` (or at that URL or path), as a fetch sees it."""
    named = repo.has_remote(name)
    url = repo.remote_urls(name)[0] if named else name
    return _remote(repo, name, name, url)


def _remote(repo: Repository, title: str, spec: str, url: str) -> Remote:
    if spec.startswith("-") or url.startswith("-"):
        raise UsageError(f"{url!r} cannot be the URL of a remote", hint="git remote -v")
    folder = folder_of(url, repo.top)
    redirects = _redirects(repo)
    place = folder.as_uri() if folder else without_password(url)
    key = hashlib.sha256(f"{place}\0{redirects}".encode("utf-8", "surrogateescape")).hexdigest()
    return Remote(spec, title, url, folder, key[:40], bool(redirects))


def push_urls(repo: Repository, name: str) -> list[str]:
    """Return where pushes to a remote go; nothing where there is no remote of that name."""
    return repo.remote_urls(name, push=True)


# Nobody is asked anything: no terminal (ssh and git open it), no window, no terminal of git's own.
_SILENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
}


def refs_of(
    repo: Repository, remote: Remote, *patterns: str, silently: bool = False
) -> dict[str, str]:
    """Return the refs on a remote (that match a pattern) with what they point to.

    Raises ``TransferError`` where it does not answer, and ``silently`` also where it would ask the
    user for a password.
    """
    asked = ("ls-remote", "--quiet", "--", remote.url, *patterns)
    env = _SILENT if silently else None
    try:
        listed = decode(repo.git(*asked, env=env, has_terminal=not silently))
    except GitError as error:
        raise _no_answer(remote, error) from error
    found = map(_LINE.fullmatch, listed.splitlines())
    return {match[2]: match[1] for match in found if match}


def _no_answer(remote: Remote, error: GitError) -> TransferError:
    refusal = refusals.find(refusals.words_of(error))
    if refusal is None:
        text = f"cannot list the refs of {remote.title}: {error.message}"
        return TransferError(text, details=error.details, hint="git remote -v; git ls-remote")
    text = f"cannot list the refs of {remote.title}: {refusal.meaning}"
    return TransferError(text, details=(error.message, *error.details), hint=refusal.hint)


def folder_of(url: str, base: Path) -> Path | None:
    """Return the folder of a remote on this machine, or ``None``."""
    parts = urlsplit(url)
    folder = Path(unquote(parts.path)) if parts.scheme == "file" else base / url
    return folder.resolve() if folder.is_dir() else None


def without_password(url: str) -> str:
    """Return a URL that may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _redirects(repo: Repository) -> str:
    """Return what sends objects elsewhere than commits; empty where nothing does."""
    found = repo.config_of("lfs", "remote")
    named = [f"{key} {value}" for key, value in found.items() if _REDIRECT.fullmatch(key)]
    texts = [repo.read_blob(place) for place in (":.lfsconfig", "HEAD:.lfsconfig")]
    file = repo.top / ".lfsconfig"
    if file.is_file():
        texts.append(file.read_bytes())
    return "\0".join([*named, *(decode(text) for text in texts if text)])
