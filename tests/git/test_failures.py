"""What goes wrong, and that nothing is lost or half-written when it does."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from git_theta import manifest
from git_theta.errors import ManifestError, StoreError
from git_theta.filters import deferred
from git_theta.workspace import open_workspace
from tests.support import checkpoints
from tests.support.failures import start
from tests.support.repo import Repo

FIRST = checkpoints.safetensors(checkpoints.tensors(rows=64))
SECOND = checkpoints.safetensors(checkpoints.finetuned(checkpoints.tensors(rows=64)))


def _leftovers(repo: Repo) -> list[str]:
    tmp = repo.path / ".git/theta/tmp"
    return [path.name for path in tmp.iterdir()] if tmp.is_dir() else []


def _an_object(repo: Repo, path: str = "model.safetensors"):
    described = manifest.parse(repo.git("show", f"HEAD:{path}").encode() + b"\n")
    oid = described.tensors[0].chunks[0].chain[0].oid
    return oid, repo.path / ".git/theta/objects" / oid[:2] / oid


def test_a_missing_object_names_the_path_and_the_next_command(model):
    model.commit_files({"model.safetensors": FIRST})
    oid, file = _an_object(model)
    file.unlink()
    (model.path / "model.safetensors").unlink()
    done = model.process("checkout", "model.safetensors")
    assert done.returncode != 0
    words = done.stderr.decode()
    assert "model.safetensors" in words
    assert oid[:12] in words
    assert "git theta fetch" in words
    assert not (model.path / "model.safetensors").exists()


def test_a_corrupt_object_names_the_path_and_the_object(model):
    model.commit_files({"model.safetensors": FIRST})
    oid, file = _an_object(model)
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    (model.path / "model.safetensors").unlink()
    done = model.process("checkout", "model.safetensors")
    assert done.returncode != 0
    assert "model.safetensors" in done.stderr.decode()
    assert oid[:12] in done.stderr.decode()
    assert not (model.path / "model.safetensors").exists()


@pytest.mark.parametrize("cut", [4, 100, len(FIRST) - 1])
def test_a_truncated_checkpoint_is_kept_exactly_with_a_warning(model, cut):
    done = _add(model, FIRST[:cut])
    assert done.returncode == 0
    assert b"model.safetensors" in done.stderr
    model.git("commit", "-q", "-m", "cut")
    (model.path / "model.safetensors").unlink()
    model.git("checkout", "-q", "model.safetensors")
    assert model.read("model.safetensors") == FIRST[:cut]


def _add(repo: Repo, content: bytes) -> subprocess.CompletedProcess[bytes]:
    repo.write("model.safetensors", content)
    return repo.process("add", "model.safetensors")


def test_a_hostile_header_is_kept_exactly(model):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}})
    content = len(header).to_bytes(8, "little") + header.encode() + b"1234"
    assert _add(model, content).returncode == 0
    blob = manifest.parse(model.git("show", ":model.safetensors").encode() + b"\n")
    assert blob.format == "opaque"


def test_a_newer_manifest_is_refused_in_both_directions(model):
    text = b'{"git-theta":99,"anything":"else"}\n'
    done = _add(model, text)
    assert done.returncode != 0
    assert b"newer" in done.stderr
    assert b"pip install --upgrade theta-vcs" in done.stderr
    assert model.git("ls-files", "model.safetensors") == ""


def test_a_damaged_manifest_is_not_committed(model):
    model.commit_files({"model.safetensors": FIRST})
    text = model.git("show", "HEAD:model.safetensors").encode()
    done = _add(model, b"<<<<<<< ours\n" + text)
    assert done.returncode != 0  # git merged the text of manifests, as an octopus merge does
    assert b"model.safetensors" in done.stderr
    done = _add(model, text[: len(text) // 2])
    assert done.returncode != 0
    assert b"malformed manifest" in done.stderr


def test_a_damaged_manifest_in_a_commit_stops_nothing_else(model, theta):
    model.commit_files({"a.safetensors": FIRST})
    cut = model.process("show", "HEAD:a.safetensors").stdout[:-9]
    blob = model.git("hash-object", "-w", "--stdin", stdin=cut)
    model.git("update-index", "--add", "--cacheinfo", f"100644,{blob},m.safetensors")
    model.write("m.safetensors", cut)
    assert model.git("status", "--porcelain") == "A  m.safetensors"
    model.git("commit", "-q", "-m", "somebody did")
    (model.path / "m.safetensors").touch()
    assert model.git("status", "--porcelain") == ""
    for args in (("status",), ("ls-files",), ("ls-files", "HEAD"), ("diff", "HEAD~1", "HEAD")):
        done = theta(model, *args)
        assert done.returncode == ManifestError.exit_code
        assert done.stderr.count("m.safetensors: malformed manifest") == 1, args
        assert ("a.safetensors" in done.stdout) == (args[0] == "ls-files")
    model.write("m.safetensors", FIRST)
    model.git("add", "m.safetensors")
    assert theta(model, "status").returncode == ManifestError.exit_code  # HEAD's is the broken one
    model.git("commit", "-q", "-m", "mended")
    assert "2 checkpoints, nothing changed" in theta(model, "status").stdout


LFS_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@pytest.mark.parametrize(
    "place", ["not committed", "committed", "committed, with git-lfs installed"]
)
def test_the_command_that_is_named_for_an_lfs_pointer_helps(place, model, theta, tmp_path):
    ours = model.read(".gitattributes")
    model.git("lfs", "install", "--local", "--force")
    model.commit_files({".gitattributes": LFS_ATTRIBUTES, "m.safetensors": FIRST}, "by git-lfs")
    pointer = model.git("cat-file", "blob", "HEAD:m.safetensors").encode() + b"\n"
    model.commit_files({".gitattributes": ours})
    if place != "committed, with git-lfs installed":
        model.git("config", "--local", "--remove-section", "filter.lfs")
    path = "odd name.safetensors" if place == "not committed" else "m.safetensors"
    model.write(path, pointer)
    model.git("commit", "-q", "--allow-empty", "-m", "a commit is not stopped")
    assert theta(model, "status").returncode == 0
    done = model.process("add", "--renormalize" if path == "m.safetensors" else "--all", path)
    shown = done.stderr.decode() if path != "m.safetensors" else theta(model, "doctor").stdout
    assert (done.returncode != 0) == (place == "not committed")
    hint = re.search(r"(?:hint|fix): (.*), then (git add .*)", shown)
    assert ("pull" in hint[1]) == ("installed" in place)
    for command in hint.groups():
        subprocess.run(["sh", "-e", "-c", command], cwd=model.path, check=True)
    assert model.read(path) == FIRST
    assert model.git("show", f":{path}").startswith('{"git-theta"')


def test_a_commit_with_an_lfs_pointer_can_be_checked_out(model, tmp_path):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12\n"
    blob = model.git("hash-object", "-w", "--stdin", stdin=pointer.encode())
    model.git("update-index", "--add", "--cacheinfo", f"100644,{blob},pointer.safetensors")
    model.git("commit", "-q", "-m", "without git-theta")
    done = model.process("checkout", "pointer.safetensors")
    assert done.returncode == 0
    assert b"pointer.safetensors: this is a Git LFS pointer" in done.stderr
    assert model.read("pointer.safetensors") == pointer.encode()
    assert model.git("status", "--porcelain") == ""


def test_a_full_disk(model, tmp_path):
    # A limit on the size of files (8 blocks of 512 bytes) stands for a full disk: write(2) fails
    # either way. Set by a shell: Python between fork and exec hung in a worker that had threads.
    limited = "trap '' XFSZ; ulimit -f 8; exec git add model.safetensors"
    model.commit_files({"model.safetensors": FIRST})
    before = model.git("ls-files", "-s")
    model.write("model.safetensors", SECOND)
    done = subprocess.run(
        ["sh", "-c", limited],
        cwd=model.path,
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert b".git/theta" in done.stderr
    assert model.git("ls-files", "-s") == before
    assert _leftovers(model) == []
    assert model.read("model.safetensors") == SECOND
    model.git("add", "model.safetensors")


def test_a_filter_killed_in_the_middle_of_an_add(model):
    model.commit_files({"model.safetensors": FIRST})
    before = model.git("ls-files", "-s")
    big = checkpoints.safetensors(checkpoints.tensors(rows=200_000, layers=4))  # 100 MB
    model.write("model.safetensors", big)
    adding = subprocess.Popen(
        ["git", "add", "model.safetensors"], cwd=model.path, stderr=subprocess.PIPE
    )
    _kill_filter(adding.pid)
    _, words = adding.communicate(timeout=60)
    assert adding.returncode != 0
    assert words
    assert model.git("ls-files", "-s") == before
    assert all(_is_whole(path) for path in (model.path / ".git/theta/objects").rglob("*"))
    model.git("add", "model.safetensors")
    model.git("commit", "-q", "-m", "big")
    (model.path / "model.safetensors").unlink()
    model.git("checkout", "-q", "model.safetensors")
    assert model.read("model.safetensors") == big


def _kill_filter(parent: int) -> None:
    """Kill git's filter process once it is at work."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in filter(_is_filter, Path("/proc").iterdir()):
            if parent in _ancestors(process.name):
                time.sleep(0.3)
                os.kill(int(process.name), signal.SIGKILL)
                return
        time.sleep(0.01)
    raise AssertionError("git started no filter")


def _is_filter(process: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
    except OSError:
        return False
    return b"filter-process" in words and b"python" in words[0]


def _ancestors(pid: str) -> list[int]:
    found = []
    while pid != "0":
        try:
            pid = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
        except OSError:
            break
        found.append(int(pid))
    return found


def _is_whole(path: Path) -> bool:
    return path.is_dir() or hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_git_lfs_is_missing(model, remote, tmp_path, monkeypatch):
    model.commit_files({"model.safetensors": FIRST})
    model.git("remote", "add", "origin", str(remote.path))
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("git", "sh", "cat", "env", "sed", "grep", "uname", "basename", "dirname", "rm"):
        (folder / name).symlink_to(shutil.which(name))
    exec_path = model.git("--exec-path")
    assert not (Path(exec_path) / "git-lfs").exists()
    monkeypatch.setenv("PATH", str(folder))
    done = model.process("push", "origin", "main")
    assert done.returncode != 0
    assert b"git-lfs" in done.stderr
    assert remote.git("for-each-ref") == ""


def test_a_file_that_was_committed_before_it_was_tracked(installed, repo, theta):
    repo.commit_files({"model.safetensors": FIRST})
    theta(repo, "track", "*.safetensors")
    (repo.path / "model.safetensors").unlink()
    repo.git("checkout", "-q", "model.safetensors")
    assert repo.read("model.safetensors") == FIRST
    repo.git("add", "--renormalize", ".")
    assert manifest.is_manifest(repo.git("show", ":model.safetensors").encode())


def test_manifests_left_in_the_work_tree_are_restored(model, theta):
    model.commit_files({"model.safetensors": FIRST})
    (model.path / "model.safetensors").unlink()
    model.git("-c", "theta.smudge=false", "checkout", "-q", "model.safetensors")
    assert manifest.is_manifest(model.read("model.safetensors"))
    assert model.git("status", "--porcelain") == ""
    assert "git theta checkout" in theta(model, "status").stdout
    done = theta(model, "checkout")
    assert done.returncode == 0, done.stderr
    assert model.read("model.safetensors") == FIRST
    assert model.git("diff-files", "--name-only") == ""


def test_a_broken_manifest_in_the_work_tree_is_named_and_the_others_are_restored(model, theta):
    model.commit_files({"a.safetensors": FIRST, "b.safetensors": FIRST})
    for name in ("a.safetensors", "b.safetensors"):
        model.write(name, model.git("show", f":{name}").encode() + b"\n")
    broken = model.read("a.safetensors")[:-20]
    model.write("a.safetensors", broken)
    told = theta(model, "doctor").stdout
    assert "WRONG checkpoints: a.safetensors: " in told
    assert "still manifests in the work tree: b.safetensors" in told
    done = theta(model, "checkout")
    assert done.returncode == ManifestError.exit_code
    assert done.stderr.count("a.safetensors") == 1
    assert model.read("a.safetensors") == broken
    assert model.read("b.safetensors") == FIRST


def test_one_that_may_not_be_read_is_named_and_the_others_are_restored(model, monkeypatch):
    model.commit_files({"a.safetensors": FIRST, "b.safetensors": FIRST})
    for name in ("a.safetensors", "b.safetensors"):
        model.write(name, model.git("show", f":{name}").encode() + b"\n")
    whole = Path.open

    def refuse(file: Path, *args: object, **options: object) -> object:
        if file.name == "a.safetensors":  # root, who may run this, may read everything
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return whole(file, *args, **options)

    monkeypatch.chdir(model.path)
    monkeypatch.setattr(Path, "open", refuse)
    with open_workspace() as workspace, pytest.raises(StoreError, match="permission denied"):
        deferred.checkout_deferred(workspace, ["a.safetensors", "b.safetensors"])
    assert model.read("b.safetensors") == FIRST


def test_a_checkout_that_cannot_be_noted_for_the_hook_fails_with_words(model):
    model.git("config", "theta.directAbove", "0")
    model.commit_files({"model.safetensors": FIRST})
    model.commit_files({"model.safetensors": SECOND})
    (model.path / ".git/theta-pending").mkdir()
    done = model.process("checkout", "-q", "HEAD~1")
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    assert b"git-theta: " in done.stderr
    assert b"theta-pending: Is a directory" in done.stderr


def test_a_full_disk_in_the_hook_names_what_writes_the_file(model, monkeypatch):
    model.git("config", "theta.directAbove", "0")
    model.commit_files({"model.safetensors": FIRST})
    model.write("model.safetensors", model.git("show", ":model.safetensors").encode() + b"\n")
    monkeypatch.chdir(model.path)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(deferred, "smudge_to", Mock(side_effect=full))
    with open_workspace() as workspace:
        deferred.defer(workspace, "model.safetensors")
        with pytest.raises(StoreError) as caught:
            deferred.checkout_pending(workspace)
    assert caught.value.hint == "free some space, then git theta checkout"


def test_half_a_file_never_lies_in_the_work_tree(model, monkeypatch):
    """Where the hook was killed, `git add .` added it as it was."""
    model.commit_files({"model.safetensors": FIRST})
    model.write("model.safetensors", model.git("show", ":model.safetensors").encode() + b"\n")
    monkeypatch.chdir(model.path)
    seen = list[str]()

    def look(*args: object) -> None:
        smudge_to(*args)
        seen.append(model.git("ls-files", "--others"))

    smudge_to = deferred.smudge_to
    monkeypatch.setattr(deferred, "smudge_to", look)
    with open_workspace() as workspace:
        deferred.checkout_deferred(workspace, ["model.safetensors"])
    assert model.read("model.safetensors") == FIRST
    assert seen == [""]


SAVER = """
import sys
import numpy as np
saved = np.memmap(sys.argv[1], np.uint8, "r+", offset=4096)
saved[:] += 1
print("ready", flush=True)
while True:
    saved[:] += 1
"""


def test_a_checkpoint_that_is_saved_in_place_while_it_is_added(model):
    content = checkpoints.safetensors(checkpoints.tensors(rows=9000))
    before = model.commit_files({"m.safetensors": content})
    saver = start(SAVER, model.path / "m.safetensors")
    try:
        saver.stdout.readline()
        done = model.process("add", "m.safetensors")
        shown = model.process("status", "--porcelain")
    finally:
        saver.kill()
        saver.communicate()
    assert done.returncode != 0
    assert b"m.safetensors: the file changed while it was added" in done.stderr
    assert (shown.returncode, shown.stdout) == (0, b" M m.safetensors\n")
    assert model.git("diff", "--cached", "--name-only") == ""
    model.commit_files({"m.safetensors": model.read("m.safetensors")})
    model.git("checkout", "-q", before)
    assert model.read("m.safetensors") == content
