"""Only what the filter tracks is a manifest: other files may begin like one, and name anything."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from git_theta import manifest, transfer
from git_theta.errors import MissingObjectError
from git_theta.git import Repository
from git_theta.git.entries import Entry
from git_theta.git.tracked import TrackedPaths
from git_theta.manifest import Chunk
from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"
FILE = checkpoints.safetensors(checkpoints.tensors())
BROKEN = b'{"git-theta":1, and then something else}\n'
NEWER = b'{"git-theta":2}\n'


@pytest.fixture
def pushed(model: Repo, remote: Repo) -> Repo:
    model.git("remote", "add", "origin", str(remote.path))
    model.commit_files({PATH: FILE})
    model.git("push", "-q", "origin", "main")
    return model


def _sample(repo: Repo) -> bytes:
    """A valid manifest whose objects are nowhere."""
    text = repo.git("show", f"HEAD:{PATH}").encode() + b"\n"
    oid = next(iter(transfer.needed_objects(Repository.discover(repo.path), _tree(repo))))
    return text.replace(oid.encode(), b"0" * 64)


def _tree(repo: Repo) -> list[Entry]:
    with Repository.discover(repo.path) as found:
        return found.tree("HEAD")


def _store_as_it_is(repo: Repo, path: str, content: bytes, attributes: bytes | None = None) -> None:
    """Commit content behind the filter's back."""
    blob = repo.git("hash-object", "-w", "--stdin", "--no-filters", stdin=content)
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    repo.git("commit", "-q", "-m", path)


def _larger(chunks: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    """The same chunks, in objects that are a byte longer than they are."""
    return tuple(
        chunk._replace(chain=tuple(ref._replace(size=ref.size + 1) for ref in chunk.chain))
        for chunk in chunks
    )


@pytest.mark.parametrize("content", [BROKEN, NEWER, None], ids=["broken", "newer", "valid"])
def test_files_that_are_not_tracked_are_no_manifests(content, pushed, remote, theta):
    pushed.commit_files({"docs/sample.json": content or _sample(pushed)})
    assert pushed.process("push", "-q", "origin", "main").stderr == b""
    for command in (["gc"], ["fsck"], ["fsck", "--remote"], ["push"], ["log"], ["fetch", "--all"]):
        done = theta(pushed, *command)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


def test_a_broken_one_is_named_and_the_rest_goes_on(pushed, remote, theta, tmp_path):
    _store_as_it_is(pushed, "broken.safetensors", BROKEN)
    commit = pushed.git("rev-parse", "HEAD")
    other = checkpoints.safetensors(checkpoints.tensors(seed=1))
    pushed.commit_files({"other.safetensors": other}, "other")
    done = pushed.process("push", "-q", "origin", "main")
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().count(f"{commit[:12]}:broken.safetensors") == 1
    clone = Repo.clone(remote.path, tmp_path / "clone", "--no-checkout")
    clone.git("checkout", "main", "--", ".gitattributes")
    clone.git("checkout", "main", "--", PATH, "other.safetensors")
    assert clone.read("other.safetensors") == other


def test_one_that_states_a_wrong_size_stops_no_other(pushed, remote, theta, tmp_path):
    """Its objects are an honest checkpoint's, which must be pushed, fetched and checked out."""
    other = checkpoints.safetensors(checkpoints.tensors(seed=1))
    pushed.commit_files({"other.safetensors": other}, "other")
    found = manifest.parse(pushed.git("show", "HEAD:other.safetensors").encode() + b"\n")
    tensors = [replace(each, chunks=_larger(each.chunks)) for each in found.tensors]
    lying = replace(found, tensors=tuple(tensors), skeleton=_larger(found.skeleton))
    for name in ("a", "z"):  # before and behind the honest one
        _store_as_it_is(pushed, f"{name}.safetensors", manifest.dump(lying))
    done = pushed.process("push", "-q", "origin", "main")
    assert done.returncode == 0, done.stderr
    clone = Repo.clone(remote.path, tmp_path / "clone", "--no-checkout")
    clone.git("reset", "-q")
    assert clone.process("checkout", "main", "--", ".").returncode != 0
    assert clone.read("other.safetensors") == other
    shutil.rmtree(clone.path / ".git/theta/objects")
    done = theta(clone, "fetch")
    assert done.returncode == MissingObjectError.exit_code
    assert "Downloaded" in done.stdout
    (clone.path / "other.safetensors").unlink()
    clone.git("checkout", "other.safetensors", env={"GIT_ALLOW_PROTOCOL": ""})
    assert clone.read("other.safetensors") == other


def test_one_of_a_newer_version_stops_the_push(pushed, remote):
    """What it needs is not known here."""
    _store_as_it_is(pushed, "newer.safetensors", NEWER)
    done = pushed.process("push", "-q", "origin", "main")
    assert done.returncode != 0
    assert b"newer.safetensors" in done.stderr
    assert remote.git("rev-parse", "main") == pushed.git("rev-parse", "main~1")


def test_the_attributes_of_each_commit_count(pushed, remote, theta):
    """Also where a later commit changes them, and for files that it does not touch."""
    pushed.commit_files({PATH: FILE + b"!"})
    text = pushed.git("show", f"HEAD:{PATH}").encode() + b"\n"
    pushed.git("reset", "-q", "--hard", "HEAD~1")
    _store_as_it_is(pushed, "a.bin", text)
    with Repository.discover(pushed.path) as repo:
        assert [entry.path for entry, _ in _manifests(repo, "HEAD")] == [PATH]
        first = pushed.git("rev-parse", "HEAD")
        pushed.commit_files({".gitattributes": b"*.bin filter=theta\n"}, "other attributes")
        assert {entry.path for entry, _ in _manifests(repo, "HEAD")} == {PATH, "a.bin"}
        assert [e.path for e, _ in _manifests(repo, "HEAD", first)] == ["a.bin"]
        places = _covered(repo, "HEAD", first)
    assert places == {("a.bin", True), (PATH, False), ("a.bin at first", False)}


def _manifests(repo: Repository, rev: str, *exclude: str):
    tip = repo.resolve(rev)
    entries = transfer.needs.history_entries(repo, [tip], exclude)
    return list(transfer.read_manifests(repo, entries, print))


def _covered(repo: Repository, rev: str, first: str) -> set[tuple[str, bool]]:
    tip = repo.resolve(rev)
    with TrackedPaths(repo) as tracked:
        return {
            ("a.bin", tracked.covers(Entry("a.bin", "", commit=tip))),
            (PATH, tracked.covers(Entry(PATH, "", commit=tip))),
            ("a.bin at first", tracked.covers(Entry("a.bin", "", commit=first))),
        }


def test_attributes_of_folders_and_odd_paths(model):
    files = {
        ".gitattributes": b"*.pt filter=theta\n",
        "a b/.gitattributes": b"*.pt -filter\nx filter=theta\n",
        "line\nbreak/.gitattributes": b"y filter=theta\n",
        "a b/c/m": b"",
        "line\nbreak/y": b"",
    }
    commit = model.commit_files(files)
    expected = {
        "m.pt": True,
        "a b/m.pt": False,
        "a b/c/m.pt": False,
        "a b/x": True,
        "x": False,
        "line\nbreak/y": True,
        "../m.pt": False,
        "a//m.pt": False,
    }
    with Repository.discover(model.path) as repo, TrackedPaths(repo) as tracked:
        answers = {path: tracked.covers(Entry(path, "", commit=commit)) for path in expected}
    assert answers == expected


def test_bare_repositories_know_what_is_tracked(pushed, remote):
    pushed.git("push", "-q", "origin", "main")
    with Repository.discover(remote.path) as repo:
        assert [entry.path for entry, _ in _manifests(repo, "main")] == [PATH]
