"""Hosts of Git repositories, each by its own rules: a real server that refuses what they refuse.

The rules are what the hosts document (``docs/hosts.md`` has the sources). A push meets them where
it would there: Git's side in a ``pre-receive`` hook, that of LFS in its batch requests.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from git_theta.git.pointers import parse_pointer, pointer_text
from tests.support.hosts import receive
from tests.support.servers import Server, StartResponse

_ANY = "refs/.+"
_MIB, _GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Rules:
    """What a host refuses and deletes.

    ``refs``: patterns of the accepted refs. ``largest_object``: bytes of an LFS object.
    ``largest_blob``: bytes of a file in Git. ``binary``: whether such a file may be binary.
    ``files``, ``entries``: how many a commit may have, and a folder. ``collects``: the LFS objects
    that are deleted: those no pointer names (``unnamed``) or whose canonical pointer is not there
    (``uncanonical``). ``rate``: requests in so many seconds.
    """

    name: str
    refs: tuple[str, ...] = (_ANY,)
    largest_object: int | None = None
    largest_blob: int | None = None
    binary: bool = True
    files: int | None = None
    entries: int | None = None
    collects: str | None = None
    rate: tuple[int, float] | None = None


GITHUB = Rules("GitHub", largest_object=2 * _GIB, largest_blob=100 * _MIB)
GITLAB = Rules("GitLab", collects="unnamed")
GITEA = Rules("Gitea", collects="uncanonical")
HUGGING_FACE = Rules(
    "Hugging Face",
    refs=("refs/heads/.+", "refs/tags/.+", "refs/pr/[0-9]+"),
    largest_object=500 * 10**9,
    largest_blob=10 * _MIB,
    binary=False,
    files=100_000,
    entries=10_000,
    rate=(1000, 300),
)
HOSTS = (GITHUB, GITLAB, GITEA, HUGGING_FACE)


def table(rules: Iterable[Rules] = HOSTS) -> str:
    """The rules as a table of ``docs/hosts.md``."""
    columns = [_column(host) for host in rules]
    names = [cell for cell, _ in columns[0]]
    rows = [[name, *(column[number][1] for column in columns)] for number, name in enumerate(names)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("|" + "|".join(f" {cell} " for cell in row) + "|" for row in rows)


def _column(rules: Rules) -> list[tuple[str, str]]:
    collected = {
        None: "no",
        "unnamed": "that no pointer names",
        "uncanonical": "whose canonical pointer is not there",
    }
    rate = f"{rules.rate[0]:,} in {rules.rate[1]} s" if rules.rate else "-"
    return [
        ("", rules.name),
        ("accepted refs", "any" if _ANY in rules.refs else "branches, tags, `refs/pr/N`"),
        ("a pointer needs its object", "yes"),
        ("largest LFS object", _size(rules.largest_object)),
        ("largest file in Git", _size(rules.largest_blob)),
        ("binary files in Git", "yes" if rules.binary else "no"),
        ("files of a commit", f"{rules.files:,}" if rules.files else "-"),
        ("files of a folder", f"{rules.entries:,}" if rules.entries else "-"),
        ("requests", rate),
        ("deletes LFS objects", collected[rules.collects]),
    ]


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    units = ((_GIB, "GiB"), (_MIB, "MiB"), (10**9, "GB"))
    unit, name = next((unit, name) for unit, name in units if size % unit == 0)
    return f"{size // unit} {name}"


class Host(Server):
    """A server with one host's rules. ``turned_away`` counts the requests it answered with 429.

    With ``agent``, it asks clients that offer this custom transfer (as `git-xet` does) to use it.
    """

    def __init__(self, root: Path, rules: Rules) -> None:
        super().__init__(root)
        self.rules = rules
        self.agent: str | None = None
        self.turned_away = 0
        self._recent: deque[float] = deque()

    def repository(self, name: str = "team/model.git") -> str:
        """The URL of a new bare repository that accepts pushes as the rules say."""
        url = super().repository(name)
        storage = self.root / "lfs" / name.removesuffix(".git")
        words = (sys.executable, "-I", "-S", receive.__file__, json.dumps(asdict(self.rules)))
        hook = self.bare(name).path / "hooks" / "pre-receive"
        hook.write_text(f"#!/bin/sh\nexec {shlex.join([*words, str(storage)])}\n")
        hook.chmod(0o755)
        return url

    def collect(self, name: str = "team/model.git") -> set[str]:
        """Do the host's housekeeping, and return the LFS objects that it deleted."""
        bare, objects = self.bare(name), self.objects(name.removesuffix(".git"))
        bare.git("gc", "-q", "--prune=now")
        if self.rules.collects is None:
            return set()
        found = (
            _named(bare.path)
            if self.rules.collects == "unnamed"
            else _canonical(bare.path, objects)
        )
        for oid in objects.keys() - found:
            objects[oid].unlink()
        return objects.keys() - found

    def _app(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        wait = self._wait()
        if wait:
            self.turned_away += 1
            environ["wsgi.input"].read()
            start("429 Too Many Requests", [("Retry-After", str(wait))])
            return [b"too many requests"]
        if environ["PATH_INFO"].endswith("/objects/batch"):
            return self._batch(environ, start)
        return super()._app(environ, start)

    def _wait(self) -> int:
        """Seconds until the next request is allowed; 0: this one is."""
        if self.rules.rate is None:
            return 0
        count, seconds = self.rules.rate
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - seconds:
            self._recent.popleft()
        if len(self._recent) >= count:
            return 1 + int(self._recent[0] + seconds - now)
        self._recent.append(now)
        return 0

    def _batch(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer a batch request as the LFS server does, but for objects that are too large."""
        asked = json.loads(environ["wsgi.input"].read())
        limit = self.rules.largest_object if asked["operation"] == "upload" else None
        large = [o for o in asked["objects"] if limit is not None and o["size"] > limit]
        chosen = {**asked, "objects": [o for o in asked["objects"] if o not in large]}
        chosen["transfers"] = ["basic"]
        content = json.dumps(chosen).encode()
        changed = {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))}
        said: list[Any] = [("200 OK", [("Content-Type", "application/vnd.git-lfs+json")])]
        answer = b'{"transfer": "basic", "objects": []}'
        if chosen["objects"]:
            answer = b"".join(super()._app({**environ, **changed}, lambda *args: said.append(args)))
        status, headers = said[-1][:2]
        if answer.startswith(b"{") and status.startswith("200"):
            error = {"code": 422, "message": f"Size must be less than or equal to {limit}"}
            parsed = json.loads(answer)
            parsed["objects"] += [{**o, "error": error} for o in large]
            if self.agent in asked.get("transfers", ()):
                parsed["transfer"] = self.agent
            answer = json.dumps(parsed).encode()
            headers = [(key, value) for key, value in headers if key.lower() != "content-length"]
        start(status, headers)
        return [answer]


def _named(bare: Path) -> set[str]:
    """The objects that a pointer among all blobs of a repository names, reachable or not."""
    listed = _git(bare, "cat-file", "--batch-all-objects", "--batch-check").splitlines()
    blobs = [line.split()[0] for line in listed if line.split()[1] == b"blob"]
    texts = (_git(bare, "cat-file", "blob", blob.decode()) for blob in blobs)
    return {pointer[0] for pointer in map(parse_pointer, texts) if pointer}


def _canonical(bare: Path, objects: dict[str, Path]) -> set[str]:
    """The objects whose canonical pointer is a blob of a repository."""
    names = {
        oid: _git(bare, "hash-object", "--stdin", stdin=pointer_text(oid, file.stat().st_size))
        for oid, file in objects.items()
    }
    listed = b"".join(names.values())
    found = _git(bare, "cat-file", "--batch-check", stdin=listed).splitlines()
    return {oid for oid, line in zip(names, found, strict=True) if not line.endswith(b"missing")}


def _git(bare: Path, *args: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["git", *args], cwd=bare, input=stdin, capture_output=True, check=True)
    return done.stdout
