"""The ``pre-receive`` hook of a host: a program that reads its rules (JSON) and where objects lie.

It refuses by a line on standard error and status 1, as hosts do. Standard library alone: it runs
without the packages of the tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)
_POINTER_LIMIT = 1024
_SNIFFED = 8000


def main(rules: dict[str, Any], storage: Path) -> str | None:
    """What is wrong with the push on standard input; ``None`` if nothing is."""
    updates = [line.split() for line in sys.stdin]
    for _, _, ref in updates:
        if not any(re.fullmatch(pattern, ref) for pattern in rules["refs"]):
            return f"{ref}: only branches, tags and pull requests can be pushed"
    tips = [new for _, new, _ in updates if new.strip("0")]
    if not tips:
        return None
    faults = (*_blob_faults(rules, storage, tips), *(_tree_fault(rules, tip) for tip in tips))
    return next((fault for fault in faults if fault), None)


def _blob_faults(rules: dict[str, Any], storage: Path, tips: list[str]) -> Iterator[str]:
    for blob, size in _new_blobs(tips):
        content = _git("cat-file", "blob", blob) if size <= (rules["largest_blob"] or size) else b""
        pointer = _POINTER.fullmatch(content) if size <= _POINTER_LIMIT else None
        if pointer and not (storage / pointer[1].decode()).is_file():
            yield f"the push refers to an LFS object that is not here: {pointer[1].decode()}"
        elif rules["largest_blob"] and size > rules["largest_blob"]:
            yield f"blob {blob} has {size} bytes, more than {rules['largest_blob']}"
        elif not rules["binary"] and b"\0" in content[:_SNIFFED]:
            yield f"blob {blob} is binary: use LFS"


def _new_blobs(tips: list[str]) -> Iterator[tuple[str, int]]:
    listed = _git("rev-list", "--objects", *tips, "--not", "--all").splitlines()
    names = b"".join(line.split(b" ")[0] + b"\n" for line in listed)
    for line in _git("cat-file", "--batch-check", stdin=names).decode().splitlines():
        name, kind, size = line.split()
        if kind == "blob":
            yield name, int(size)


def _tree_fault(rules: dict[str, Any], tip: str) -> str | None:
    if not rules["files"]:
        return None
    paths = _git("ls-tree", "-r", "-t", "--name-only", tip).decode().splitlines()
    folders = Counter(path.rpartition("/")[0] for path in paths)
    if len(paths) > rules["files"]:
        return f"{len(paths)} files, more than {rules['files']}"
    if max(folders.values(), default=0) > rules["entries"]:
        return f"a folder of more than {rules['entries']} files"
    return None


def _git(*args: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["git", *args], input=stdin, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    reason = main(json.loads(sys.argv[1]), Path(sys.argv[2]))
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        raise SystemExit(1)
