"""Drives the life of a model through git-theta, and through git-lfs beside it.

A base is committed, fine-tuned with LoRA (merged), densely on a branch and sparsely on main; the
branches are merged by averaging, and the vocabulary is trimmed. The fine-tunes are real, made on
one processor core with peft and transformers, and kept in .cache. At the end every commit is
checked out with both tools and compared byte for byte.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.fine_tunes import CACHE, ROOT, FineTunes
from benchmarks.pages import write_block
from benchmarks.sandbox import LFS, THETA, Project
from benchmarks.table import size, table
from benchmarks.weights import is_average, trim_vocabulary
from git_theta import manifest

LIMIT = 0.33
"""Of what git-lfs stores, for the whole pipeline."""

_STEPS = 60
_WORDS = 30_000
"""Kept of 30,522 word pieces; the last ones are single characters of other scripts."""

_PAGE = ROOT / "docs" / "pipeline.md"
_PLOT = _PAGE.with_suffix(".png")


@dataclass(frozen=True)
class Row:
    """A commit: by how many bytes each repository grew, and how many tensors we stored how."""

    commit: str
    lfs: int
    theta: int
    encodings: dict[str, int]


def run(root: Path, fine_tunes: FineTunes) -> list[Row]:
    """Make every commit with both tools below ``root``; the script ends where bytes differ."""
    base = fine_tunes.base
    lora, dense, sparse = (f().file for f in (fine_tunes.lora, fine_tunes.dense, fine_tunes.sparse))
    merged, trimmed = root / "merged.safetensors", root / "trimmed.safetensors"
    twins = Twins(root)
    twins.commit("base", base)
    twins.commit("LoRA fine-tune, merged", lora)
    twins.git("checkout", "-q", "-b", "rte")
    twins.commit("dense fine-tune (rte)", dense)
    twins.git("checkout", "-q", "main")
    twins.commit("sparse fine-tune", sparse)
    twins.merge("merge of rte", "rte", merged)
    if not is_average(merged, lora, ours=sparse, theirs=dense):
        sys.exit(f"{merged} is not the average of the two branches")
    trim_vocabulary(merged, trimmed, _WORDS)
    twins.commit("trimmed vocabulary", trimmed)
    twins.verify()
    return twins.rows


class Twins:
    """A repository with each tool, in which the same is committed; ours comes first."""

    def __init__(self, root: Path) -> None:
        self.rows: list[Row] = []
        self._projects = [Project(root / tool.name, tool) for tool in (THETA, LFS)]
        self._commits: list[tuple[Project, str, Path]] = []
        self.git("config", "theta.merge.strategy", "average")

    def git(self, *arguments: str) -> None:
        """Run a git command in both."""
        for project in self._projects:
            project.git(*arguments)

    def commit(self, name: str, file: Path) -> None:
        """Commit ``file`` as the next version of the checkpoint."""
        self._measure(name, file, lambda project: _commit(project, name, file))

    def merge(self, name: str, branch: str, result: Path) -> None:
        """Merge ``branch``. git-theta does it and writes ``result``; git-lfs is given that."""

        def step(project: Project) -> None:
            if project.tool is THETA:
                project.git("merge", "-q", "-m", name, branch)
                shutil.copyfile(project.file, result)
            else:
                project.git("merge", "-q", "--no-commit", "--strategy", "ours", branch)
                _commit(project, name, result)

        self._measure(name, result, step)

    def verify(self) -> None:
        """Check every commit out with both tools and compare it with what was committed."""
        for project, commit, file in self._commits:
            project.git("checkout", "-q", commit)
            if not filecmp.cmp(project.file, file, shallow=False):
                sys.exit(f"{project.tool.name} gave other bytes back than {file}, at {commit}")

    def _measure(self, name: str, file: Path, step: Callable[[Project], None]) -> None:
        grown = {}
        for project in self._projects:
            before = project.stored()
            step(project)
            grown[project.tool.name] = project.stored() - before
            self._commits.append((project, project.git("rev-parse", "HEAD").strip(), file))
        encodings = _encodings(self._projects[0])
        self.rows.append(Row(name, grown[LFS.name], grown[THETA.name], encodings))


def _commit(project: Project, name: str, file: Path) -> None:
    project.put(file)
    project.git("add", project.checkpoint)
    project.git("commit", "-q", "-m", name)


def _encodings(project: Project) -> dict[str, int]:
    """The encodings of the tensors that HEAD's commit changed, the most frequent first."""
    before, now = (_hashes(project, revision) for revision in ("HEAD~1", "HEAD"))
    shown = json.loads(project.git("theta", "show", f"HEAD:{project.checkpoint}", "--json"))
    changed = [
        "+".join(row["encodings"])
        for row in shown["tensors"]
        if now[row["name"]] != before.get(row["name"])
    ]
    return dict(Counter(changed).most_common())


def _hashes(project: Project, revision: str) -> dict[str, list[str]]:
    """The content hashes of every tensor's chunks; none where there is no checkpoint yet."""
    if not project.git("ls-tree", "--name-only", revision, project.checkpoint):
        return {}
    described = manifest.parse(project.git("show", f"{revision}:{project.checkpoint}").encode())
    return {entry.name: [chunk.hash for chunk in entry.chunks] for entry in described.tensors}


def report(rows: list[Row]) -> str:
    """The table: each commit's bytes with both tools, ours as a share of theirs, and the sums."""
    head = ["commit", "git-lfs", "git-theta", "", "tensors that changed, by encoding"]
    lines = [
        [row.commit, size(row.lfs), size(row.theta), _share(row.theta, row.lfs), _words(row)]
        for row in rows
    ]
    lfs, theta = sum(row.lfs for row in rows), sum(row.theta for row in rows)
    return table(head, [*lines, ["**all**", size(lfs), size(theta), _share(theta, lfs), ""]])


def _share(theta: int, lfs: int) -> str:
    return f"{theta / lfs:.3f}x"


def _words(row: Row) -> str:
    return ", ".join(f"{count} {encoding}" for encoding, count in row.encodings.items())


def share(rows: list[Row]) -> float:
    """What git-theta stored in all, as a multiple of what git-lfs stored."""
    return sum(row.theta for row in rows) / sum(row.lfs for row in rows)


def write_docs(rows: list[Row]) -> None:
    """Put the table and the plot into the documentation."""
    os.environ["MPLCONFIGDIR"] = str(CACHE / "matplotlib")  # its list of fonts
    from benchmarks.plot import write_plot  # a second

    write_block(_PAGE, "table", report(rows))
    commits = [(row.commit, row.lfs, row.theta) for row in rows]
    write_plot(commits, _PLOT)


def main(arguments: list[str]) -> None:
    """Run the pipeline and print what each commit stored; fail above the limit."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="git-theta-pipeline-") as scratch:
        rows = run(Path(scratch), FineTunes(options.steps))
    print(report(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    if options.docs:
        write_docs(rows)
    if share(rows) > LIMIT:
        sys.exit(f"git-theta stored {share(rows):.2f}x of what git-lfs did; {LIMIT}x is the limit")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--steps", type=int, default=_STEPS, help=f"of each fine-tune (default {_STEPS})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--docs", action="store_true", help="renew docs/pipeline.md and its plot")
    options = parser.parse_args(arguments)
    if options.docs and options.steps != _STEPS:
        parser.error(f"--docs is for {_STEPS} steps")
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
