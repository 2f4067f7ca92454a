"""Imports a history of fine-tunes from git-lfs and exports it again, with figures.

MiniLM is trained on, every weight of it, and committed with git-lfs after every few steps. Then the
history is imported, every version compared with what was committed, and exported again: the same
commits must come back.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.fine_tunes import ROOT, FineTunes, training
from benchmarks.pages import write_block
from benchmarks.sandbox import LFS, Project, folder_bytes
from benchmarks.table import seconds, size, table

LIMIT = 0.35
"""Of what git-lfs stores, for the whole history."""

_PAGE = ROOT / "docs" / "migrating.md"


def make_history(project: Project, fine_tunes: FineTunes, commits: int, steps: int) -> list[str]:
    """Commit the base and ``commits`` - 1 fine-tunes of it; return the SHA-256 of each file."""
    with tempfile.TemporaryDirectory() as name:
        file, scratch, digests = fine_tunes.base, Path(name), list[str]()
        for number in range(commits):
            if number:
                training().fine_tune("dense", fine_tunes.model, file, steps, scratch)
                file = scratch / "model.safetensors"
            project.put(file)
            digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
            project.git("add", project.checkpoint)
            project.git("commit", "-q", "-m", f"After {number * steps} steps")
    return digests


def stored_digest(project: Project, commit: str) -> str:
    """Return the SHA-256 of the checkpoint as a checkout of ``commit`` gives it."""
    project.git("checkout", "-q", commit)
    digest = hashlib.sha256(project.file.read_bytes()).hexdigest()
    project.git("checkout", "-q", "main")
    return digest


def run(root: Path, commits: int, steps: int) -> list[tuple[str, str]]:
    """Return the rows of the table; the script ends where a byte or an id differs."""
    project = Project(root, LFS)
    digests = make_history(project, FineTunes(steps), commits, steps)
    project.git("theta", "install")
    old, lfs = project.git("rev-list", "main"), folder_bytes(project.work / ".git" / "lfs")
    begin = time.perf_counter()
    project.git("theta", "migrate", "import")
    imported = time.perf_counter() - begin
    objects = folder_bytes(project.work / ".git" / "theta" / "objects")
    new = project.git("rev-list", "--reverse", "main").split()
    if [stored_digest(project, commit) for commit in new[-commits:]] != digests:
        sys.exit("a version is not what was committed")
    begin = time.perf_counter()
    project.git("theta", "migrate", "export")
    exported = time.perf_counter() - begin
    if project.git("rev-list", "main") != old:
        sys.exit("the export did not give the same commits")
    if objects > LIMIT * lfs:
        sys.exit(f"{objects / lfs:.3f} of what git-lfs stores is more than {LIMIT}")
    return [
        ("commits", f"{commits}"),
        ("objects of git-lfs", size(lfs)),
        ("objects of git-theta", f"{size(objects)} ({objects / lfs:.2f}x)"),
        ("import, every version verified", seconds(imported)),
        ("export", seconds(exported)),
    ]


def main() -> None:
    """Run it, print the table, and with ``--docs`` renew the one in the documentation."""
    parser = argparse.ArgumentParser(prog="scripts/migration", description=__doc__)
    parser.add_argument("--commits", type=int, default=12, help="of the history (12)")
    parser.add_argument("--steps", type=int, default=10, help="of training between two (10)")
    parser.add_argument("--docs", action="store_true", help=f"renew the table in {_PAGE.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="git-theta-") as root:
        made = table(("", ""), run(Path(root), options.commits, options.steps))
    print(made)
    if options.docs:
        write_block(_PAGE, "migration", made)


if __name__ == "__main__":
    main()
