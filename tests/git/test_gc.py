"""A collection and every other command at once: nothing that is needed is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.smudge import smudge
from git_theta.commands.fsck import check
from git_theta.commands.gc import collect
from git_theta.commands.prune import prune
from git_theta.store import ObjectStore
from git_theta.store.trash import Trash
from git_theta.testing.formats import MemorySource
from git_theta.workspace import Workspace, open_workspace
from tests.support import checkpoints
from tests.support.failures import on_tmpfs
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(BASE)
ABANDONED = checkpoints.safetensors(checkpoints.finetuned(BASE))
OTHER = checkpoints.safetensors(checkpoints.tensors(seed=9))
PATH = "model.safetensors"


class Steps:
    """Runs ``meanwhile`` at step ``at`` of whatever goes through a ``Stepped`` object."""

    def __init__(self, at: int, meanwhile: Callable[[], None]) -> None:
        self.at = at
        self.count = 0
        self._meanwhile = meanwhile

    def step(self) -> None:
        self.count += 1
        if self.count == self.at:
            self._meanwhile()


class Stepped:
    """An object each call of which is two steps: before it, and after it."""

    steps = Steps(0, lambda: None)

    def __getattribute__(self, name: str) -> object:
        found = object.__getattribute__(self, name)
        if name not in _STEPPED:
            return found

        def stepped(*args: object) -> object:
            self.steps.step()
            result = found(*args)
            self.steps.step()
            return iter(list(result)) if name == "oids" else result

        return stepped


class SteppedStore(Stepped, ObjectStore):
    pass


class SteppedTrash(Stepped, Trash):
    pass


_STEPPED = (
    "oids", "stat", "discard", "restore", "destroy", "has",
    "use", "touch", "write", "adopt", "read", "sync", "trust",
)  # fmt: skip


@contextmanager
def command(repo: Repo, steps: Steps | None = None) -> Iterator[Workspace]:
    """A process of its own, as far as the store can tell; with ``steps``, stopped at one."""
    with open_workspace(repo.path) as opened:
        if steps is None:
            yield opened
            return
        store = SteppedStore(opened.store.root)
        store.trash = SteppedTrash(store.root / "objects")
        store.steps = store.trash.steps = steps
        storage = opened.storage
        try:
            yield Workspace(
                opened.repo,
                StorageContext(store, storage.index, storage.settings, storage.progress),
            )
        finally:
            store.close()


def add(repo: Repo, steps: Steps | None = None, data: bytes = ABANDONED) -> None:
    """Do what `git add` does: store, hand over the manifest, write the blob, write the index."""
    pause = steps.step if steps else lambda: None
    with command(repo, steps) as workspace:
        parents = [manifest.parse(text) for _, text in workspace.repo.manifests(_head(workspace))]
        cleaned = clean(MemorySource(data), PATH, workspace.storage, parents)
        pause()
        text = manifest.dump(cleaned.manifest)
        blob = workspace.repo.git("hash-object", "-w", "--stdin", stdin=text).decode().strip()
        pause()
        workspace.repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{PATH}")
        pause()


def _head(workspace: Workspace):
    return workspace.repo.tree("HEAD")


def commit(repo: Repo, steps: Steps | None = None) -> None:
    add(repo, steps)
    repo.git("commit", "-q", "-m", "again")


def gc(repo: Repo, steps: Steps | None = None) -> None:
    with command(repo, steps) as workspace:
        collect(workspace, 0)


def prune_old(repo: Repo, steps: Steps | None = None) -> None:
    with command(repo, steps) as workspace:
        prune(workspace, "origin", 0, print, verify=True, dry_run=False)


def checkout(repo: Repo, steps: Steps | None = None) -> None:
    """Write the file that the index names."""
    with command(repo, steps) as workspace:
        text = workspace.repo.read_blob(f"HEAD:{PATH}")
        described = manifest.parse(text or b"")
        assert b"".join(smudge(described, workspace.storage)) in (FIRST, ABANDONED)


def fetch(repo: Repo, steps: Steps | None = None) -> None:
    """Take in objects from a download, for a branch that was fetched before."""
    with command(repo, steps) as workspace:
        text = (repo.path / "theirs").read_bytes()
        blob = workspace.repo.git("hash-object", "-w", "--stdin", stdin=text).decode().strip()
        tree = workspace.repo.git("mktree", stdin=f"100644 blob {blob}\t{PATH}\n".encode())
        made = workspace.repo.git("commit-tree", "-m", "theirs", tree.decode().strip())
        workspace.repo.git("update-ref", "refs/remotes/origin/theirs", made.decode().strip())
        for oid, size in manifest.parse(text).objects().items():
            workspace.store.adopt(oid, size, repo.path / "download" / oid)
        workspace.store.sync()


@pytest.fixture
def abandoned(repo: Repo, remote: Repo) -> Repo:
    """HEAD has a checkpoint; the objects of a fine-tune that was reset away are still here, old.

    A remote has them, too.
    """
    with command(repo) as workspace:
        other = clean(MemorySource(OTHER), PATH, workspace.storage).manifest
        (repo.path / "theirs").write_bytes(manifest.dump(other))
        (repo.path / "download").mkdir()
        for oid in other.objects():
            workspace.store.path(oid).rename(repo.path / "download" / oid)
    add(repo, data=FIRST)
    repo.git("commit", "-q", "-m", "first")
    add(repo)
    repo.git("reset", "-q")
    repo.git("remote", "add", "origin", str(remote.path))
    for file in (repo.path / ".git/theta/objects").rglob("*"):
        os.utime(file, (1, 1))
        if file.is_file():
            place = remote.path / "lfs/objects" / file.name[:2] / file.name[2:4]
            place.mkdir(parents=True)
            shutil.copy(file, place)
    return repo


def _check(repo: Repo) -> None:
    """Everything that anything names is here and whole, and the trash is empty."""
    with command(repo) as workspace:
        report = check(workspace)
        assert report.ok, report.problems
        assert report.absent == 0
        assert list(workspace.store.trash.oids()) == []


def _copy(template: Path, number: int) -> Repo:
    place = template.with_name(f"copy-{number}")
    subprocess.run(["cp", "-a", str(template), str(place)], check=True)
    return Repo(place)


@pytest.mark.parametrize(
    ("first", "second"),
    [(add, gc), (gc, add), (gc, commit), (commit, gc), (gc, checkout), (checkout, gc), (gc, fetch),
     (fetch, gc), (gc, gc), (add, add), (prune_old, add), (add, prune_old)],
)  # fmt: skip
def test_one_stopped_at_each_of_its_steps(abandoned, first, second):
    counting = Steps(0, lambda: None)
    first(_copy(abandoned.path, 0), counting)
    assert counting.count >= (4 if first in (fetch, checkout) else 10)
    for at in range(1, counting.count + 1):
        repo = _copy(abandoned.path, at)
        steps = Steps(at, lambda repo=repo: second(repo))
        first(repo, steps)
        _check(repo)


def test_a_manifest_that_a_merge_has_not_put_into_the_index_yet(abandoned):
    """A merge driver is gone when git still works on other files."""
    lock = abandoned.path / ".git/index.lock"
    lock.write_bytes(b"")
    with command(abandoned) as workspace:
        parents = [manifest.parse(text) for _, text in workspace.repo.manifests(_head(workspace))]
        described = clean(MemorySource(ABANDONED), PATH, workspace.storage, parents).manifest
    gc(abandoned)
    with command(abandoned) as workspace:
        assert not workspace.storage.unsound(described.objects())
    lock.unlink()
    gc(abandoned)
    with command(abandoned) as workspace:
        assert workspace.storage.unsound(described.objects()), "now it is abandoned"


class TestKilled:
    def test_what_it_left_in_the_trash_is_dealt_with(self, abandoned):
        with command(abandoned) as workspace:
            oids = set(workspace.store.oids())
            for oid in oids:
                workspace.store.trash.discard(oid)
        gc(abandoned)
        _check(abandoned)
        with command(abandoned) as workspace:
            kept = set(workspace.store.oids())
        assert kept < oids

    def test_an_error_in_the_middle_puts_back_what_is_not_gone(self, abandoned):
        with command(abandoned) as workspace:
            before = set(workspace.store.oids())
        counting = Steps(0, lambda: None)
        gc(_copy(abandoned.path, 0), counting)

        def fail() -> None:
            raise KeyboardInterrupt

        for at in range(1, counting.count - 2):  # then the last one is gone
            with pytest.raises(KeyboardInterrupt):
                gc(abandoned, Steps(at, fail))
            _check(abandoned)
            with command(abandoned) as workspace:
                left = set(workspace.store.oids())
            if left != before:
                break
        assert at > counting.count / 2


_FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from git_theta.cli.app import cli
top = Path(sys.argv[1]) / "repo"
subprocess.run(["git", "init", "-q", str(top)], check=True)
os.chdir(top)
from git_theta.workspace import open_workspace
with open_workspace(top) as workspace:
    workspace.store.write([os.urandom(500_000)])
    workspace.storage.index.add([], workspace.store.stamps(workspace.store.oids()))
with open(top.parent / "filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
cli(["gc", "--older-than", "0"], standalone_mode=False)
print(len(list(workspace.store.oids())), list(workspace.store.trash.oids()))
"""


def test_a_full_disk_is_where_it_is_needed(tmp_path):
    printed = on_tmpfs("size=2m", _FULL_DISK, tmp_path / "disk")
    assert printed.startswith("1 object removed (500.0 KB)")
    assert printed.endswith("0 []\n")


def test_uncommitted_work_of_a_rebase(model, theta):
    """`git rebase --autostash` holds it by a file alone."""
    model.commit_files({PATH: FIRST, "a": b"base"})
    model.git("checkout", "-q", "-b", "other")
    model.commit_files({"a": b"theirs"})
    model.git("checkout", "-q", "main")
    model.commit_files({"a": b"ours"})
    model.write(PATH, ABANDONED)
    assert model.process("rebase", "--autostash", "other").returncode != 0
    model.git("reflog", "expire", "--expire=now", "--all")
    done = theta(model, "gc", "--older-than", "0")
    assert (done.returncode, done.stdout[:17]) == (0, "0 objects removed")
    assert theta(model, "fsck").returncode == 0
    model.git("rebase", "--abort")
    assert model.read(PATH) == ABANDONED


def test_a_stale_orig_head_stops_no_collection(model, theta):
    model.commit_files({PATH: FIRST})
    model.commit_files({PATH: ABANDONED})
    model.git("reset", "-q", "--hard", "HEAD~1")
    model.git("reflog", "expire", "--expire=now", "--all")
    model.git("gc", "-q", "--prune=now")
    assert (model.path / ".git/ORIG_HEAD").exists()
    assert theta(model, "fsck").returncode == 0
    assert theta(model, "gc", "--older-than", "0").stdout[0] in "12"
    assert theta(model, "fsck").returncode == 0


def test_a_filter_that_is_still_at_work(model, theta):
    """Its objects are named by nothing yet, and older than no time at all."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("git-theta"), "filter-process"],
        cwd=model.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout

    def send(*packets: bytes) -> None:
        for packet in packets:
            process.stdin.write(b"%04x" % (len(packet) + 4) + packet if packet else b"0000")
        process.stdin.flush()

    def receive() -> list[bytes]:
        lines = []
        while (length := int(process.stdout.read(4), 16)) != 0:
            lines.append(process.stdout.read(length - 4))
        return lines

    send(b"git-filter-client\n", b"version=2\n", b"")
    receive()
    send(b"capability=clean\n", b"")
    receive()
    send(b"command=clean\n", f"pathname={PATH}\n".encode(), b"", FIRST, b"")
    assert receive() == [b"status=success\n"]
    (text,) = receive()
    assert theta(model, "gc", "--older-than", "0").stdout.startswith("0 objects removed")
    receive()
    process.stdin.close()
    assert process.wait(timeout=20) == 0
    process.stdout.close()
    with command(model) as workspace:
        assert not workspace.storage.unsound(manifest.parse(text).objects())
    assert theta(model, "gc", "--older-than", "0").stdout[0] in "12"
