"""A small world to break: a remote, a working repository, a colleague's clone, known contents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save

FILE = "model.safetensors"
_BIN = Path(sys.executable).parent
_CONFIG = """\
[init]
\tdefaultBranch = main
[user]
\tname = Harness
\temail = harness@localhost
[gc]
\tauto = 0
[core]
\t# The world is copied for each fault: inodes and change times differ, contents do not.
\ttrustctime = false
\tcheckStat = minimal
[lfs "transfer"]
\tmaxretries = 1
"""


class BrokenError(AssertionError):
    """Something was lost, or is wrong without a word."""


def checkpoint(version: int) -> bytes:
    """A safetensors file of 140 kB; each version moves some tensors of the one before."""
    random = np.random.default_rng(0)
    weights = {f"layer.{i}.weight": random.standard_normal((64, 64), np.float32) for i in range(8)}
    weights |= {f"layer.{i}.bias": random.standard_normal(64, np.float32) for i in range(8)}
    for step in range(1, version + 1):
        moved = np.random.default_rng(step)
        for i in range(step % 3, 8, 2):
            change = moved.standard_normal((64, 64), np.float32)
            weights[f"layer.{i}.weight"] = weights[f"layer.{i}.weight"] + np.float32(1e-3) * change
    return save(weights)


class World:
    """Repositories under ``root``. A commit's subject is the key of its content in ``contents``.

    ``longest`` is what the slowest command took, in seconds.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.longest = 0.0
        self.work, self.remote, self.other = root / "work", root / "remote.git", root / "other"
        self.contents: dict[str, bytes] = {f"v{i}": checkpoint(i) for i in range(1, 6)}
        home = root / "home"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "XDG_", "PYTHON"))}
        self.environment = kept | {
            "HOME": str(home),
            "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_EDITOR": "true",
        }

    def build(self) -> None:
        """Make the world: v1 and v2 on main, v3 on rte, all pushed; the colleague has main."""
        (self.root / "home").mkdir(parents=True)
        (self.root / "home/.gitconfig").write_text(_CONFIG)
        (self.root / "home/attributes").write_text(f"{FILE} filter=theta\n")
        self.git("init", "-q", "--bare", str(self.remote), cwd=self.root)
        self.git("init", "-q", str(self.work), cwd=self.root)
        self.git("theta", "install", "--global", cwd=self.root)
        self.git("theta", "track", "*.safetensors")
        self.git("remote", "add", "origin", f"file://{self.remote}")
        self.git("add", ".gitattributes")
        self.commit("v1")
        self.git("checkout", "-q", "-b", "rte")
        self.commit("v3")
        self.git("checkout", "-q", "main")
        self.commit("v2")
        self.git("push", "-q", "origin", "main", "rte")
        self.git("clone", "-q", f"file://{self.remote}", str(self.other), cwd=self.root)

    def save(self, template: Path) -> None:
        """Keep the world as it is."""
        shutil.rmtree(template, ignore_errors=True)
        shutil.copytree(self.root, template, symlinks=True)

    def restore(self, template: Path) -> None:
        """Put the world back to what was kept."""
        shutil.rmtree(self.root)
        shutil.copytree(template, self.root, symlinks=True)

    def write(self, key: str, repository: Path | None = None) -> None:
        """Put a content into the work tree."""
        ((repository or self.work) / FILE).write_bytes(self.contents[key])

    def read_all(self, names: Sequence[str], cwd: Path | None = None) -> bytes:
        """Return what ``git cat-file --batch`` says of ``COMMIT:FILE``, as a checkout has it.

        A commit from before or after a migration has other attributes than the work tree.
        """
        attributes = f"core.attributesFile={self.root / 'home/attributes'}"
        asked = "".join(f"{name} {FILE}\n" for name in names)
        # One filter for all of them: starting one for each took most of the time of a point.
        command = ("-c", attributes, "cat-file", "--batch", "--filters")
        return self.git(*command, cwd=cwd, lines=asked)

    def commit(self, key: str, repository: Path | None = None) -> None:
        """Commit a content."""
        self.write(key, repository)
        self.git("add", FILE, cwd=repository)
        self.git("commit", "-q", "-m", key, cwd=repository)

    def try_git(
        self, *arguments: str, cwd: Path | None = None, lines: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git with ``lines`` as its input, whatever comes of it."""
        with self.timed():
            return subprocess.run(
                ["git", *arguments],
                cwd=cwd or self.work,
                env=self.environment,
                input=lines.encode(),
                capture_output=True,
                timeout=120,
            )

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Note what a command takes."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.longest = max(self.longest, time.monotonic() - start)

    def git(self, *arguments: str, cwd: Path | None = None, lines: str = "") -> bytes:
        """Run git, which must succeed."""
        done = self.try_git(*arguments, cwd=cwd, lines=lines)
        if done.returncode:
            words = done.stderr.decode(errors="replace")
            raise BrokenError(f"git {' '.join(arguments)}: status {done.returncode}\n{words}")
        return done.stdout

    # --- what must hold, whatever happened -------------------------------------------------------

    def remove_locks(self) -> None:
        """Do what git says after a crash: remove its lock files."""
        for repository in (self.work / ".git", self.remote, self.other / ".git"):
            for lock in list(repository.rglob("*.lock")):
                if lock.relative_to(repository).parts[0] != "theta":
                    lock.unlink()

    def commits(self, repository: Path) -> Iterator[tuple[str, str]]:
        """Every commit that a ref, HEAD or a reflog names, with its subject."""
        listed = self.git("log", "--all", "--reflog", "HEAD", "--format=%H %s", cwd=repository)
        for line in listed.decode().splitlines():
            commit, _, subject = line.partition(" ")
            yield commit, subject

    def check_history(self, repository: Path | None = None) -> None:
        """Every commit gives its bytes back, and what is staged is one of the known contents.

        Raises ``BrokenError`` otherwise.
        """
        where = repository or self.work
        known = [pair for pair in self.commits(where) if pair[1] in self.contents]
        staged = self.git("ls-files", "--stage", FILE, cwd=where).decode().split()
        names = [f"{commit}:{FILE}" for commit, _ in known]
        names += [f":{FILE}"] if staged[2:3] == ["0"] else []
        rest = self.read_all(names, where)
        for commit, subject in known:
            _, _, rest = rest.partition(b"\n")  # the line that names the object
            content = self.contents[subject] + b"\n"
            if not rest.startswith(content):
                raise BrokenError(f"{subject} ({commit[:12]}) comes back as other bytes")
            rest = rest[len(content) :]
        found = rest.partition(b"\n")[2].removesuffix(b"\n")
        if found and found not in self.contents.values():
            raise BrokenError("the index holds a checkpoint that nobody made")

    def check_fsck(self) -> None:
        """``git theta fsck``, which makes every file again, and ``git fsck`` find nothing wrong."""
        self.git("theta", "fsck", "--full")
        self.git("fsck", "--no-dangling", "--connectivity-only")

    def check_clone(self) -> None:
        """A clone gets everything: the remote has every object that its branches need."""
        fresh = self.root / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        self.git("clone", "-q", f"file://{self.remote}", str(fresh), cwd=self.root)
        self.check_history(fresh)
        shutil.rmtree(fresh)
