"""``serve`` as a filter of real git: clean, smudge, delay, errors, large files, odd paths."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.repo import Repo

ROOT = Path(__file__).parents[2]

# Turns letters upside down; the file's path says what else it does.
FILTER = """
import sys, time
from git_theta.errors import ThetaError
from git_theta.git.filter_server import serve

LOG = open({log!r}, "a")

def swap(content):
    return [piece.swapcase() for piece in content]

class Handler:
    waiting = {{}}

    def clean(self, path, content):
        LOG.write(f"clean {{path!r}}\\n"); LOG.flush()
        if "bad" in path:
            raise ThetaError("no such luck")
        if "bug" in path:
            raise ZeroDivisionError("a bug")
        for piece in content:
            yield piece.swapcase()
        if "late" in path:
            raise ThetaError("too late")

    def smudge(self, request, content):
        LOG.write(f"smudge {{request.path!r}} {{request.ref}} {{request.blob}}\\n"); LOG.flush()
        if "broken" in request.path:
            raise ThetaError("cannot be rebuilt")
        if request.can_delay and "slow" in request.path:
            self.waiting[request.path] = swap(content)
            return None
        return (piece.swapcase() for piece in content)

    def available(self):
        LOG.write("available\\n"); LOG.flush()
        some = sorted(self.waiting)[:2]
        return some

    def delayed(self, path):
        LOG.write(f"delayed {{path!r}}\\n"); LOG.flush()
        content = self.waiting.pop(path)
        if "lost" in path:
            raise ThetaError("did not come")
        return content

def report(path, error):
    print(f"theta: {{path}}: {{error.message}}", file=sys.stderr)

serve(sys.stdin.buffer, sys.stdout.buffer, Handler(), report)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@pytest.fixture
def swapping(repo: Repo, tmp_path: Path, log: Path, monkeypatch) -> Repo:
    """A repository whose ``.swap`` files git keeps with capitals and small letters exchanged."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = tmp_path / "filter.py"
    script.write_text(FILTER.format(log=str(log)))
    repo.git("config", "--global", "filter.swap.process", f'"{sys.executable}" "{script}"')
    repo.git("config", "--global", "filter.swap.required", "true")
    repo.commit_files({".gitattributes": b"*.swap filter=swap\n"})
    return repo


def test_add_and_checkout(swapping):
    swapping.commit_files({"a.swap": b"Hello", "sub dir/b.swap": b"World", "plain": b"Plain"})
    assert swapping.git("cat-file", "blob", "HEAD:a.swap") == "hELLO"
    assert swapping.git("cat-file", "blob", "HEAD:plain") == "Plain"
    for path in ("a.swap", "sub dir/b.swap"):
        (swapping.path / path).unlink()
    swapping.git("checkout", "--", ".")
    assert swapping.read("a.swap") == b"Hello"
    assert swapping.read("sub dir/b.swap") == b"World"
    assert swapping.git("status", "--porcelain") == ""


def test_one_process_serves_all_files_and_is_told_what_git_knows(swapping, log, tmp_path):
    swapping.commit_files({f"{number}.swap": b"x%d" % number for number in range(20)})
    log.unlink()
    clone = Repo.clone(swapping.path, tmp_path / "clone")
    blob = swapping.git("rev-parse", "HEAD:0.swap")
    lines = log.read_text().splitlines()
    assert len(lines) == 20
    assert f"smudge '0.swap' refs/heads/main {blob}" in lines
    assert clone.read("19.swap") == b"x19"


@pytest.mark.parametrize("size", [0, 1, 65515, 65516, 65517, 3 << 20])
def test_sizes_around_the_packet(size, swapping):
    content = b"abCD" * (size // 4) + b"eFg"[: size % 4]
    swapping.commit_files({"a.swap": content})
    (swapping.path / "a.swap").unlink()
    swapping.git("checkout", "--", "a.swap")
    assert swapping.read("a.swap") == content


@pytest.mark.parametrize("name", ["with space", "ünïcode", "=", "new\nline", os.fsdecode(b"\xff")])
def test_odd_paths(name, swapping, log):
    swapping.commit_files({f"{name}.swap": b"Odd"})
    (swapping.path / f"{name}.swap").unlink()
    swapping.git("checkout", "--", ".")
    assert swapping.read(f"{name}.swap") == b"Odd"
    assert f"clean {f'{name}.swap'!r}\n" in log.read_text("utf-8", "surrogateescape")


def test_delayed_files_come_in_the_end(swapping, log, tmp_path):
    files = {f"{number}-slow.swap": b"S%d" % number for number in range(5)}
    swapping.commit_files({**files, "quick.swap": b"Q"})
    log.unlink()
    clone = Repo.clone(swapping.path, tmp_path / "clone")
    for path, content in files.items():
        assert clone.read(path) == content
    assert clone.read("quick.swap") == b"Q"
    lines = log.read_text().splitlines()
    assert lines.count("available") >= 3
    assert sum(line.startswith("delayed") for line in lines) == 5
    assert clone.git("status", "--porcelain") == ""


def test_a_file_that_fails_is_not_added_and_nothing_else_is_lost(swapping):
    for path in ("bad.swap", "late.swap", "bug.swap"):
        swapping.write(path, b"x" * 200_000)
        done = swapping.process("add", path)
        assert done.returncode != 0
        assert swapping.git("ls-files", path) == ""
        expected = b"ZeroDivisionError" if path == "bug.swap" else f"theta: {path}: ".encode()
        assert expected in done.stderr
    swapping.commit_files({"good.swap": b"Fine"})
    assert swapping.git("cat-file", "blob", "HEAD:good.swap") == "fINE"


@pytest.mark.parametrize("name", ["broken", "slow-lost"])
def test_a_checkout_that_fails_says_so_and_leaves_the_others_right(name, swapping, tmp_path):
    swapping.commit_files({f"{name}.swap": b"x", "a.swap": b"Fine", "z-slow.swap": b"Late"})
    done = swapping.process("clone", "-q", str(swapping.path), str(tmp_path / "clone"))
    assert done.returncode != 0
    assert f"theta: {name}.swap: ".encode() in done.stderr
    clone = Repo(tmp_path / "clone")
    assert not (clone.path / f"{name}.swap").exists()


def test_a_large_file_goes_through_in_both_directions(swapping):
    size = 200 << 20
    swapping.write("large.swap", b"aB" * (size // 2))
    swapping.git("add", "large.swap")
    (swapping.path / "large.swap").unlink()
    swapping.git("checkout", "--", "large.swap")
    assert swapping.read("large.swap") == b"aB" * (size // 2)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_git_killed_in_the_middle_leaves_no_filter_behind(swapping, tmp_path):
    noted = tmp_path / "pid.txt"
    script = tmp_path / "filter.py"
    note = f"import os, pathlib\npathlib.Path({str(noted)!r}).write_text(str(os.getpid()))\n"
    script.write_text(note + script.read_text())
    swapping.write("large.swap", b"aB" * (100 << 20))
    adding = subprocess.Popen(["git", "add", "large.swap"], cwd=swapping.path)
    wait_for(lambda: noted.exists() and noted.read_text())
    adding.kill()
    adding.wait()
    wait_for(lambda: not Path("/proc", noted.read_text()).exists())
    (swapping.path / ".git/index.lock").unlink(missing_ok=True)
    assert swapping.git("ls-files", "large.swap") == ""
