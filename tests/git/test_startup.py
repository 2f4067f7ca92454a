"""What a command imports: answers come without the libraries that only other commands need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "git", "rich", "zstandard", "safetensors", "scipy")

# -h must not import what it lists: 18 modules took 0.25 s.
LISTED = ("git_theta.git", "git_theta.commands", "git_theta.merge")

CODE = """
import sys
from git_theta.cli import main
sys.argv = ["git-theta", *{args}]
try:
    main()
except SystemExit as done:
    print(done.code, [name for name in {names} if name in sys.modules], file=sys.stderr)
"""


def imported(repo, args: list[str], names: tuple[str, ...]) -> str:
    code = CODE.format(args=args, names=names)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo.path, capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("args", [["-h"], ["ls-files"], ["ls-files", "HEAD"], ["status"]])
def test_lists_come_without_heavy_libraries(model, args):
    names = HEAVY + (LISTED if args == ["-h"] else ())
    assert imported(model, args, names) == "0 []"
