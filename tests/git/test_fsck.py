"""Damage of every kind is found, and all that it concerns is named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from git_theta import manifest
from git_theta.checkpoint.clean import clean
from git_theta.codec import MAX_RAW, Frame, encode_frame
from git_theta.commands.fsck import Problem, Report, Use, check, rebuild_index, repair
from git_theta.commands.fsck.check import _culprit
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Encoded, Part
from git_theta.errors import UsageError
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.store import ObjectStore
from git_theta.testing.formats import MemorySource
from git_theta.workspace import Workspace, open_workspace
from tests.support import checkpoints
from tests.support.manifests import entry_named
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=64)
TUNED = checkpoints.finetuned(BASE)
FIRST = checkpoints.safetensors(BASE)
SECOND = checkpoints.safetensors(TUNED)
OTHER = checkpoints.safetensors(checkpoints.tensors(seed=9))


def add(workspace: Workspace, path: str, data: bytes) -> None:
    """Store a checkpoint and put its manifest in the index, as the filter does for ``git add``."""
    texts = [text for _, text in workspace.repo.manifests(workspace.repo.tree("HEAD"))]
    parents = [manifest.parse(text) for text in texts]
    cleaned = clean(MemorySource(data), path, workspace.storage, parents)
    stage(workspace, manifest.dump(cleaned.manifest), path)


def quarantined(workspace: Workspace, report: Report) -> list[Path]:
    return [Path(place) for place in repair(workspace, report).quarantined]


def stage(workspace: Workspace, text: bytes, path: str = "made.safetensors") -> None:
    blob = workspace.repo.git("hash-object", "-w", "--stdin", stdin=text).decode().strip()
    workspace.repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")


def commit(workspace: Workspace) -> None:
    workspace.repo.git("commit", "-q", "-m", "change")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves a repository for the others to copy."""
    return tmp_path_factory.mktemp("template") / "repo"


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Iterator[Workspace]:
    """Three checkpoints: a base, its fine-tune at HEAD (deltas against the base), another one."""
    if not template.exists():
        build(template)
    shutil.copytree(template, tmp_path / "copy")
    with open_workspace(tmp_path / "copy") as opened:
        yield opened


def build(place: Path) -> None:
    repo = Repo.init(place)
    repo.git("config", "theta.packLimit", "1")  # an object for each frame
    (place / ".git/info/attributes").write_text("*.safetensors filter=theta\n")
    with open_workspace(place) as opened:
        add(opened, "model.safetensors", FIRST)
        commit(opened)
        add(opened, "model.safetensors", SECOND)
        add(opened, "other.safetensors", OTHER)
        commit(opened)


def described(workspace: Workspace, spec: str) -> Manifest:
    return manifest.parse(workspace.repo.read_blob(spec) or b"")


def top(workspace: Workspace, spec: str, tensor: str) -> Ref:
    """The frame of a tensor of a single chunk."""
    entry = entry_named(described(workspace, spec), tensor)
    assert entry
    return entry.chunks[0].chain[0]


def rewrite(store: ObjectStore, oid: str, data: bytes) -> None:
    store.path(oid).chmod(0o644)
    store.path(oid).write_bytes(data)


def all_chunks(workspace: Workspace) -> dict[str, Chunk]:
    specs = ("HEAD~1:model.safetensors", ":model.safetensors", ":other.safetensors")
    return {c.hash: c for spec in specs for c in described(workspace, spec).chunks()}


def only(report: Report) -> Problem:
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


def commit_manifest(workspace: Workspace, text: bytes) -> None:
    stage(workspace, text)
    commit(workspace)


class TestSound:
    @pytest.mark.parametrize("full", [False, True])
    def test_everything_is_counted(self, workspace: Workspace, full: bool) -> None:
        report = check(workspace, full=full)
        assert report.ok
        assert report.checkpoints == 3
        assert report.objects == len(list(workspace.store.oids()))
        assert report.stored == sum(map(workspace.store.size, workspace.store.oids()))
        assert report.chunks == len(all_chunks(workspace))

    def test_a_revision(self, workspace: Workspace) -> None:
        assert check(workspace, ["HEAD~1"]).checkpoints == 1
        assert check(workspace, ["HEAD", "main"]).checkpoints == 2

    def test_an_unknown_revision(self, workspace: Workspace) -> None:
        with pytest.raises(UsageError, match="nonsense"):
            check(workspace, ["nonsense"])

    def test_an_empty_repository(self, repo: Repo) -> None:
        with open_workspace(repo.path) as opened:
            report = check(opened)
            assert rebuild_index(opened).frames == 0
        assert report.ok
        assert report.checkpoints == 0


class TestMissing:
    def test_names_every_checkpoint_and_tensor(self, workspace: Workspace) -> None:
        ref = top(workspace, "HEAD~1:model.safetensors", "layer.0.weight")
        workspace.store.path(ref.oid).unlink()
        problem = only(check(workspace))
        assert (problem.kind, problem.oid) == ("missing", ref.oid)
        assert problem.fix == "git theta fsck --repair"
        assert ref.oid in problem.detail
        before = workspace.repo.git("rev-parse", "--short", "HEAD~1").decode().strip()
        # In the fine-tune it is the base of a delta.
        revs = ("", "HEAD", before)
        uses = {Use(f"{rev}:model.safetensors", "layer.0.weight") for rev in revs}
        assert set(problem.uses) == uses

    def test_the_skeleton(self, workspace: Workspace) -> None:
        skeleton = described(workspace, ":other.safetensors").skeleton[0]
        workspace.store.path(skeleton.chain[0].oid).unlink()
        assert only(check(workspace, full=True)).uses == (
            Use(":other.safetensors", "(skeleton)"),
            Use("HEAD:other.safetensors", "(skeleton)"),
        )

    def test_what_only_pushed_history_needs_may_be_absent(self, workspace: Workspace) -> None:
        add(workspace, "model.safetensors", OTHER)
        commit(workspace)
        workspace.store.path(
            top(workspace, "HEAD~1:model.safetensors", "layer.1.bias").oid
        ).unlink()
        assert only(check(workspace)).kind == "missing", "it is nowhere else"
        workspace.repo.git("update-ref", "refs/remotes/origin/main", "HEAD")
        assert not check(workspace).ok, "there is no remote, whatever its ref says"
        workspace.repo.git("remote", "add", "origin", "somewhere")
        report = check(workspace)
        assert report.ok
        assert report.absent == 1
        assert not check(workspace, everything=True).ok
        assert not check(workspace, ["HEAD~1"]).ok, "asked for by name"

    def test_the_stash(self, workspace: Workspace) -> None:
        add(workspace, "other.safetensors", checkpoints.safetensors(checkpoints.tensors(seed=5)))
        tree = workspace.repo.git("write-tree").decode().strip()
        stash = workspace.repo.git("commit-tree", "-m", "stash", "-p", "HEAD", tree)
        workspace.repo.git("update-ref", "refs/stash", stash.decode().strip())
        workspace.repo.git("reset", "-q")
        ref = top(workspace, "stash:other.safetensors", "layer.0.weight")
        workspace.store.path(ref.oid).unlink()
        name = workspace.repo.git("rev-parse", "--short", "stash").decode().strip()
        assert only(check(workspace)).uses == (Use(f"{name}:other.safetensors", "layer.0.weight"),)

    @pytest.mark.parametrize("remote", [False, True])
    def test_an_older_stash_and_what_was_reset_away(self, workspace: Workspace, remote) -> None:
        """No ref names them, and no remote has them."""
        if remote:
            workspace.repo.git("remote", "add", "origin", "somewhere")
            workspace.repo.git("update-ref", "refs/remotes/origin/main", "HEAD")
        names = []
        for seed in (5, 6):
            data = checkpoints.safetensors(checkpoints.tensors(seed=seed))
            add(workspace, "other.safetensors", data)
            commit(workspace)
            names.append(workspace.repo.git("rev-parse", "--short", "HEAD").decode().strip())
            workspace.repo.git("reset", "-q", "HEAD~1")
        lost = [top(workspace, f"{n}:other.safetensors", "layer.0.weight").oid for n in names]
        for oid in lost:
            workspace.store.path(oid).unlink()
        report = check(workspace)
        assert {problem.oid for problem in report.problems} == set(lost)
        concerned = {use.checkpoint for problem in report.problems for use in problem.uses}
        assert concerned == {f"{name}:other.safetensors" for name in names}
        assert report.absent == 0


class TestLeftOut:
    """What a clone does not have on purpose is no damage, and is said."""

    @pytest.fixture
    def pushed(self, workspace: Workspace) -> Workspace:
        workspace.repo.git("remote", "add", "origin", "somewhere")
        workspace.repo.git("update-ref", "refs/remotes/origin/main", "HEAD")
        attributes = workspace.repo.git_dir / "info/attributes"
        attributes.write_text("*.safetensors filter=theta\n")
        return workspace

    def test_a_sparse_checkout(self, pushed: Workspace) -> None:
        ref = top(pushed, ":other.safetensors", "layer.0.weight")
        pushed.store.path(ref.oid).unlink()
        assert not check(pushed).ok
        pushed.repo.git("update-index", "--skip-worktree", "other.safetensors")
        report = check(pushed)
        assert report.ok
        assert report.absent == 1
        assert report.skipped == ("1 checkpoint that a sparse checkout leaves out",)
        assert not check(pushed, everything=True).ok

    def test_a_sparse_checkout_of_what_nobody_else_has(self, workspace: Workspace) -> None:
        ref = top(workspace, ":other.safetensors", "layer.0.weight")
        workspace.store.path(ref.oid).unlink()
        workspace.repo.git("update-index", "--skip-worktree", "other.safetensors")
        assert not check(workspace).ok

    def test_a_shallow_clone(self, pushed: Workspace) -> None:
        head = pushed.repo.resolve("HEAD")
        (pushed.repo.common_dir / "shallow").write_text(f"{head}\n")
        report = check(pushed)
        assert report.ok
        assert "shallow" in report.skipped[0]

    def test_a_partial_clone_fetches_nothing(self, pushed: Workspace, tmp_path: Path) -> None:
        pushed.repo.git("config", "uploadpack.allowFilter", "true")
        url = pushed.repo.common_dir.as_uri()
        clone = Repo.clone(url, tmp_path / "clone", "--filter=blob:none", "--no-checkout")
        clone.git("read-tree", "HEAD")
        (clone.path / ".git/info").mkdir(exist_ok=True)
        (clone.path / ".git/info/attributes").write_text("*.safetensors filter=theta\n")
        with open_workspace(clone.path) as opened:
            report = check(opened)
        assert report.ok
        assert report.checkpoints == 0
        assert report.skipped == ("2 checkpoints that a partial clone has not fetched",)
        assert "?" in clone.git("rev-list", "--objects", "--missing=print", "HEAD")


class TestCorrupt:
    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("how", ["flipped", "cut off", "empty"])
    def test_bytes(self, workspace: Workspace, how: str, full: bool) -> None:
        ref = top(workspace, ":model.safetensors", "layer.1.weight")
        data = bytearray(workspace.store.read(ref))
        data[len(data) // 2] ^= 1
        rewrite(
            workspace.store,
            ref.oid,
            {"flipped": bytes(data), "cut off": bytes(data[:-1]), "empty": b""}[how],
        )
        problem = only(check(workspace, full=full))
        assert (problem.kind, problem.oid) == ("corrupt", ref.oid)
        assert problem.fix == "git theta fsck --repair"
        assert set(problem.uses) == {
            Use(":model.safetensors", "layer.1.weight"),
            Use("HEAD:model.safetensors", "layer.1.weight"),
        }

    def test_quarantine_and_fetched_again(self, workspace: Workspace) -> None:
        ref = top(workspace, ":model.safetensors", "layer.1.weight")
        good = bytes(workspace.store.read(ref))
        rewrite(workspace.store, ref.oid, good[:-1] + b"?")
        report = check(workspace)
        (place,) = quarantined(workspace, report)
        assert place.read_bytes() == good[:-1] + b"?"
        assert not workspace.store.has(ref.oid)
        assert only(check(workspace)).kind == "missing"
        assert quarantined(workspace, report) == []
        workspace.store.write([good])
        assert check(workspace).ok

    def test_each_damaged_object_is_a_problem(self, workspace: Workspace) -> None:
        for oid in workspace.store.oids():
            rewrite(workspace.store, oid, b"damaged")
        report = check(workspace)
        assert {problem.oid for problem in report.problems} == set(workspace.store.oids())
        assert all(problem.uses for problem in report.problems)
        assert len(quarantined(workspace, report)) == len(report.problems)
        assert not list(workspace.store.oids())


def lying_frame(content: bytes, claimed: bytes, encoding: int = 0) -> list[bytes]:
    """A well-formed frame of ``content`` that claims the content hash of ``claimed``."""
    parts = Encoded(b"", (Part(1, content),))
    frame = Frame(encoding, "U8", len(claimed), content_hash(claimed), None, parts)
    return [bytes(buffer) for buffer in encode_frame(frame)]


def opaque(claimed: bytes, *chain: Ref, hash_: str | None = None) -> bytes:
    """Return the manifest of a file of one chunk, whose content hash is that of ``claimed``."""
    chunk = Chunk(len(claimed), hash_ or content_hash(claimed), chain)
    tensor = TensorEntry("data", "U8", (len(claimed),), 0, (chunk,))
    return manifest.dump(Manifest("opaque", len(claimed), (), (tensor,)))


class TestWrongFrames:
    """Objects whose hashes are right, but what they hold is not."""

    @pytest.mark.parametrize("full", [False, True])
    def test_a_frame_that_lies_about_its_content(self, workspace: Workspace, full: bool) -> None:
        claimed = b"what you asked for"
        ref = workspace.store.write(lying_frame(b"what you will get.", claimed))
        commit_manifest(workspace, opaque(claimed, ref))
        problem = only(check(workspace, full=full))
        assert (problem.kind, problem.oid) == ("corrupt", ref.oid)
        assert "hash that it claims" in problem.detail
        assert Use("HEAD:made.safetensors", "data") in problem.uses
        assert quarantined(workspace, check(workspace)) == [], (
            "its own bytes are what its name says"
        )

    def test_no_frame_at_all(self, workspace: Workspace) -> None:
        ref = workspace.store.write([b"nothing that begins like a frame"])
        commit_manifest(workspace, opaque(b"content", ref))
        problem = only(check(workspace))
        assert problem.kind == "corrupt"
        assert ref.oid[:12] in problem.detail

    def test_an_encoding_that_is_not_installed(self, workspace: Workspace) -> None:
        ref = workspace.store.write(lying_frame(b"content", b"content", encoding=200))
        commit_manifest(workspace, opaque(b"content", ref))
        problem = only(check(workspace))
        assert problem.kind == "unsupported"
        assert "pip install" in problem.fix

    def test_a_base_that_is_not_the_frames(self, workspace: Workspace) -> None:
        """Each frame is right by itself, and so is each of the chunk's hashes."""
        one = top(workspace, ":other.safetensors", "layer.0.weight")
        two = top(workspace, ":other.safetensors", "layer.1.weight")
        chunk = entry_named(described(workspace, ":other.safetensors"), "layer.0.weight").chunks[0]
        commit_manifest(workspace, opaque(bytes(chunk.length), one, two, hash_=chunk.hash))
        problem = only(check(workspace))
        assert problem.kind == "corrupt"
        assert {use.checkpoint for use in problem.uses} == {
            ":made.safetensors",
            "HEAD:made.safetensors",
        }


def frugal(workspace: Workspace, limit: int) -> Workspace:
    settings = replace(workspace.storage.settings, expand_limit=limit)
    return replace(workspace, storage=replace(workspace.storage, settings=settings))


def bomb(workspace: Workspace, path: str, value: int, length: int = MAX_RAW) -> Ref:
    """Commit a checkpoint that is one number everywhere: a frame of some 100 bytes."""
    content = bytes([value]) * length
    ref = workspace.store.write(lying_frame(content, content))
    assert ref.length < 200
    stage(workspace, opaque(content, ref), path)
    commit(workspace)
    return ref


class TestCosts:
    """A frame of 100 bytes decodes to 64 MiB, and a repository may name thousands."""

    @pytest.mark.parametrize("full", [False, True])
    def test_a_bomb_is_named_and_the_rest_is_checked(
        self, workspace: Workspace, full: bool
    ) -> None:
        bomb(workspace, "bomb.safetensors", 1)
        damaged = top(workspace, ":other.safetensors", "layer.0.weight")
        rewrite(workspace.store, damaged.oid, b"x" * damaged.size)
        found = {p.kind: p for p in check(frugal(workspace, 0), full=full).problems}
        assert found.keys() == {"corrupt", "manifest"}
        assert "theta.expandLimit=0" in found["manifest"].detail
        assert found["manifest"].fix == (
            "if you trust this repository: git config theta.expandLimit 1g"
        )
        assert Use("HEAD:bomb.safetensors", None) in found["manifest"].uses

    def test_what_is_too_much_all_together_is_not_looked_at(self, workspace: Workspace) -> None:
        for value in range(3):
            bomb(workspace, f"{value}.safetensors", value, 1 << 20)
        report = check(frugal(workspace, 1 << 20))
        assert report.ok
        assert re.match(r"chunks of [12] checkpoints?: .*expandLimit", report.skipped[0])
        assert check(frugal(workspace, 4 << 20)).skipped == ()

    def test_the_index_is_rebuilt_without_them(self, workspace: Workspace) -> None:
        ref = bomb(workspace, "bomb.safetensors", 1)
        rebuilt = rebuild_index(frugal(workspace, 0))
        assert list(rebuilt.rejected) == [ref.oid]
        assert rebuilt.frames == len(list(workspace.store.oids())) - 1

    def test_a_broken_chain_is_decoded_link_by_link(self, workspace: Workspace) -> None:
        """64 links took 2,080 decodings to find the one that was broken."""
        bottom = workspace.store.write(lying_frame(b"content", b"content"))
        chain = (bottom,) * 40
        commit_manifest(workspace, opaque(b"content", *chain))
        broken = Chunk(7, content_hash(b"content"), chain)
        with patch.object(workspace.store, "read", wraps=workspace.store.read) as read:
            assert _culprit(workspace.store, broken) == bottom
        assert read.call_count == 2


class TestWrongManifests:
    def test_unreadable(self, workspace: Workspace) -> None:
        commit_manifest(workspace, manifest.MAGIC + b"nonsense")
        problem = only(check(workspace))
        assert problem.kind == "manifest"
        assert problem.uses == (Use(":made.safetensors", None), Use("HEAD:made.safetensors", None))

    def test_newer(self, workspace: Workspace) -> None:
        commit_manifest(workspace, b'{"git-theta":2}\n')
        problem = only(check(workspace))
        assert problem.kind == "manifest"
        assert "upgrade" in problem.fix

    def test_a_file_hash_that_is_wrong(self, workspace: Workspace) -> None:
        content = b"some content"
        ref = workspace.store.write(lying_frame(content, content))
        text = opaque(content, ref)
        identity = manifest.parse(text).hash.encode()
        commit_manifest(workspace, text.replace(identity, b"0" * 64))
        problem = only(check(workspace))
        assert problem.kind == "manifest"
        assert "the hash of the file" in problem.detail

    def test_a_size_that_the_object_does_not_have(self, workspace: Workspace) -> None:
        content = b"some content"
        ref = workspace.store.write(lying_frame(content, content))
        commit_manifest(workspace, opaque(content, Ref(ref.oid, ref.size + 1, 0, ref.size + 1)))
        problem = only(check(workspace))
        assert problem.kind == "manifest"
        assert f"which has {ref.size}" in problem.detail


class TestRebuildIndex:
    def test_restores_what_was_known(self, workspace: Workspace) -> None:
        store, index = workspace.store, workspace.storage.index
        chunks = all_chunks(workspace)
        before = index.find_many(chunks)
        index.rebuild([])
        result = rebuild_index(workspace)
        assert index.find_many(chunks) == before
        assert set(before) == set(chunks)
        assert (result.frames, result.baseless, result.rejected) == (len(chunks), 0, {})
        assert result.frames == len(list(store.oids()))

    def test_nothing_is_stored_twice_afterwards(self, workspace: Workspace) -> None:
        workspace.storage.index.close()
        for file in workspace.repo.theta_dir.glob("index.db*"):
            file.unlink()
        rebuild_index(workspace)
        before = list(workspace.store.oids())
        add(workspace, "copy.safetensors", FIRST)
        assert list(workspace.store.oids()) == before

    def test_packs_are_walked(self, repo: Repo) -> None:
        with open_workspace(repo.path) as workspace:
            add(workspace, "model.safetensors", FIRST)
            (oid,) = workspace.store.oids()
            workspace.storage.index.rebuild([])
            assert rebuild_index(workspace).frames == 5
            known = described(workspace, ":model.safetensors").tensors[1].chunks[0]
            (location,) = workspace.storage.index.find(known.hash)
            assert location.ref == known.chain[0]
            assert location.ref.oid == oid

    def test_a_lie_is_not_believed(self, workspace: Workspace) -> None:
        claimed = b"what you asked for"
        ref = workspace.store.write(lying_frame(b"what you will get.", claimed))
        result = rebuild_index(workspace)
        assert set(result.rejected) == {ref.oid}
        assert workspace.storage.index.find(content_hash(claimed)) == []

    def test_damaged_and_foreign_objects(self, workspace: Workspace) -> None:
        damaged = top(workspace, "HEAD~1:model.safetensors", "layer.0.weight")
        rewrite(workspace.store, damaged.oid, b"damaged")
        foreign = workspace.store.write([b"not a frame"])
        result = rebuild_index(workspace)
        assert set(result.rejected) == {damaged.oid, foreign.oid}
        # The fine-tune of that tensor has no base now; the rest is known.
        assert result.baseless == 1
        on_base = entry_named(described(workspace, ":model.safetensors"), "layer.0.weight").chunks[
            0
        ]
        assert len(on_base.chain) == 2
        assert workspace.storage.index.find(on_base.hash) == []
        sound = entry_named(described(workspace, ":model.safetensors"), "layer.1.weight").chunks[0]
        assert workspace.storage.index.find(sound.hash)[0].depth == 1


def test_bad_folder_is_inside_the_store(workspace: Workspace) -> None:
    ref = top(workspace, ":model.safetensors", "layer.1.weight")
    rewrite(workspace.store, ref.oid, b"damaged")
    (place,) = quarantined(workspace, check(workspace))
    assert place == Path(workspace.repo.theta_dir) / "bad" / ref.oid
