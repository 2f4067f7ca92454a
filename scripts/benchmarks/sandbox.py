"""Scratch folders in which Git, git-lfs and git-theta run apart from the user's configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Sandbox:
    """A HOME of its own under ``root``, and this virtual environment's programs on the path."""

    root: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        home = self.root / "home"
        home.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "XDG_", "PYTHON"))}
        isolated = {
            "HOME": str(home),
            "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
            "GIT_TERMINAL_PROMPT": "0",
        }
        object.__setattr__(self, "environment", kept | isolated)
        self.run("git", "config", "--global", "user.name", "Scratch", cwd=self.root)
        self.run("git", "config", "--global", "user.email", "scratch@localhost", cwd=self.root)
        self.run("git", "config", "--global", "init.defaultBranch", "main", cwd=self.root)

    def run(self, *arguments: str, cwd: Path) -> str:
        """Run a command and return its output; a failure ends the script with what it printed."""
        done = subprocess.run(
            arguments, cwd=cwd, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(
                f"{' '.join(arguments)} failed in {cwd} (exit code {done.returncode}):\n"
                f"{done.stdout}{done.stderr}"
            )
        return done.stdout


@dataclass(frozen=True)
class Tool:
    """How a repository is told to keep its checkpoints with git-theta or git-lfs."""

    name: str
    setup: tuple[tuple[str, ...], ...]


THETA = Tool("git-theta", (("git", "theta", "install"), ("git", "theta", "track", "*.safetensors")))
LFS = Tool("git-lfs", (("git", "lfs", "install"), ("git", "lfs", "track", "*.safetensors")))


class Project:
    """A repository ``work`` with one checkpoint, its bare remote ``remote`` and its sandbox."""

    checkpoint = "model.safetensors"

    def __init__(self, root: Path, tool: Tool) -> None:
        self.tool = tool
        self.sandbox = Sandbox(root)
        self.work = root / "work"
        self.remote = root / "remote.git"
        self.clone = root / "clone"
        self.sandbox.run("git", "init", "-q", "--bare", str(self.remote), cwd=root)
        self.sandbox.run("git", "init", "-q", str(self.work), cwd=root)
        for command in tool.setup:
            self.git(*command[1:])
        self.git("add", ".gitattributes")
        self.git("commit", "-q", "-m", f"Track checkpoints with {tool.name}")
        self.git("remote", "add", "origin", f"file://{self.remote}")

    @property
    def file(self) -> Path:
        """The checkpoint in the work tree."""
        return self.work / self.checkpoint

    def git(self, *arguments: str) -> str:
        """Run a git command in the work tree."""
        return self.sandbox.run("git", *arguments, cwd=self.work)

    def put(self, source: Path) -> None:
        """Copy ``source`` over the checkpoint in the work tree."""
        shutil.copyfile(source, self.file)

    def stored(self) -> int:
        """Bytes in the repository, its work tree not counted."""
        return folder_bytes(self.work / ".git")


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below ``folder``, a file with several hard links counted once."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
