"""A work tree for a while, beside the user's own: its files are nobody's but the caller's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from git_theta.core.sharing import make_folder
from git_theta.git.repository import Repository


@contextmanager
def scratch_tree(repo: Repository, tree: str) -> Iterator[Path]:
    """Check ``tree`` out into a folder in the git directory, which is removed at the end.

    Git learns of no other work tree: index, HEAD and hooks are left alone.
    """
    make_folder(repo.theta_dir)
    with TemporaryDirectory(dir=repo.theta_dir, prefix=".tmp-sweep-") as scratch:
        folder = Path(scratch) / "tree"
        folder.mkdir()
        env = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        repo.git("-c", f"core.hooksPath={os.devnull}", "read-tree", tree, env=env)
        # No user's sparse checkout or pathspec counts here.
        checkout = ("checkout-index", "--all", "--force", "--quiet", f"--prefix={folder}/")
        repo.git("-c", "core.sparseCheckout=false", *checkout, env=env, show_errors=True)
        yield folder
