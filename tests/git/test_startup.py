"""What a command imports: answers come without the libraries that only other commands need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

HEAVY = ("torch", "numpy", "git", "rich", "zstandard", "safetensors", "scipy")

# -h must not import what it lists: 18 modules took 0.25 s.
LISTED = ("git_theta.git", "git_theta.commands", "git_theta.merge")

CODE = """
import sys
from git_theta.__main__ import main
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


# Of a filter each took 1 to 5 ms, which every command of git on a checkpoint paid.
NOT_OF_A_FILTER = (
    *("click", "torch", "git", "rich", "tomllib", "tempfile", "shutil", "socket", "_hashlib"),
    *("git_theta.git.merge_heads", "git_theta.git.worktree"),
)


def test_the_filter_of_git_starts_without_what_it_seldom_needs(model):
    code = CODE.format(args=["filter-process"], names=NOT_OF_A_FILTER)
    greeting = b"0016git-filter-client\n000eversion=2\n00000015capability=clean\n0000"
    # The names of what was imported are printed by what the process calls at its very end.
    code = code.replace("main()", "import os; os._exit = sys.exit; main()")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=model.path, input=greeting, capture_output=True, check=True)
    assert done.stderr.splitlines()[-1:] == [b"0 []"]
    assert b"git-filter-server" in done.stdout


def filtered(repo, request: bytes, content: bytes) -> tuple[bytes, str]:
    """Return the answer to one file, and which of numpy and what needs it was imported."""
    names = ("numpy", "git_theta.codec", "git_theta.core.kernels")
    code = CODE.format(args=["filter-process"], names=names)
    code = code.replace("main()", "import os; os._exit = sys.exit; main()")
    packets = b"".join(b"%04x%s" % (len(line) + 4, line) for line in request.splitlines(True))
    pieces = [content[start : start + 65516] for start in range(0, len(content), 65516)]
    body = b"".join(b"%04x%s" % (len(piece) + 4, piece) for piece in pieces)
    greeting = b"0016git-filter-client\n000eversion=2\n00000015capability=clean\n0000"
    told = greeting + packets + b"0000" + body + b"0000"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=repo.path, input=told, capture_output=True, check=True)
    return done.stdout, done.stderr.decode().splitlines()[-1]


# It takes longer to import than all else that a filter starts with.
def test_a_file_that_is_only_added_again_does_without_numpy(model):
    content = checkpoints.safetensors(checkpoints.tensors(rows=64))
    model.commit_files({"model.safetensors": content})
    manifest = model.process("cat-file", "blob", "HEAD:model.safetensors").stdout
    request = b"command=clean\npathname=model.safetensors\n"
    for given in (content, manifest):
        answer, said = filtered(model, request, given)
        assert manifest in answer
        assert said == "0 []"
    changed = checkpoints.safetensors(checkpoints.tensors(rows=64, seed=2))
    assert "numpy" in filtered(model, request, changed)[1]


def test_the_hook_of_a_push_starts_without_click_and_numpy(model, remote):
    code = CODE.format(args=["hook", "pre-push", "--", "origin"], names=("click", *HEAVY))
    code = code.replace("main()", "import os; os._exit = sys.exit; main()")
    model.git("remote", "add", "origin", str(remote.path))
    content = checkpoints.safetensors(checkpoints.tensors(rows=64))
    model.commit_files({"model.safetensors": content})
    head = model.git("rev-parse", "HEAD")
    refs = f"refs/heads/main {head} refs/heads/main {'0' * 40}\n"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=model.path, input=refs.encode(), capture_output=True)
    said = done.stderr.decode().splitlines()
    assert said[-1:] == ["0 []"], said
    assert "Uploaded" in said[0]


def asked(repo: Repo, folder, *command: str) -> list[str]:
    """Return the first two words of each git that a command starts by itself, in order."""
    log = folder / "trace"
    repo.git(*command, env={"GIT_TRACE2_EVENT": str(log)})
    events = map(json.loads, log.read_text().splitlines())
    started = [event["argv"] for event in events if event["event"] == "start"]
    return [" ".join(words[:2]) for words in started if words[0] == "git"][1:]


# Each is a program, of 3 ms: a clone asked 11 questions, an add under a new name 7.
def test_git_is_asked_little(model, remote, tmp_path):
    content = checkpoints.safetensors(checkpoints.tensors(rows=64))
    model.commit_files({"model.safetensors": content})
    model.git("remote", "add", "origin", f"file://{remote.path}")
    model.git("push", "-q", "origin", "main")
    clone = ("clone", "-q", f"file://{remote.path}", str(tmp_path / "clone"))
    here, there = ["git rev-parse", "git config"], ["git rev-parse", "git config"]
    transfers = ("git pack-objects", "git index-pack")
    started = asked(model, tmp_path, *clone)
    assert [each for each in started if each not in transfers] == [*here, "git cat-file", *there]
    (tmp_path / "trace").unlink()
    model.write("other.safetensors", content)
    bases = ["git cat-file", "git ls-tree", "git check-attr", "git cat-file"]
    assert asked(model, tmp_path, "add", "other.safetensors") == [*here, *bases]
