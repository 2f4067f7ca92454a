"""What a file is compared with: read once for all files of a command, within bounds."""

from __future__ import annotations

from collections import Counter

import pytest

from git_theta import manifest
from git_theta.core.hashes import Ref, content_hash
from git_theta.filters import parents
from git_theta.filters.parents import KnownCheckpoints
from git_theta.git import Repository
from git_theta.git.batch import Batch
from git_theta.git.lfs_files import LONGEST
from git_theta.manifest import Chunk, Manifest, TensorEntry
from tests.support.repo import Repo


def made(number: int) -> bytes:
    data = number.to_bytes(8, "little")
    chunk = Chunk(8, content_hash(data), (Ref(content_hash(data), 100, 0, 100),))
    entry = TensorEntry(f"tensor.{number}", "U8", (8,), 0, (chunk,))
    return manifest.dump(Manifest("opaque", 8, (), (entry,)))


@pytest.fixture
def parsed(monkeypatch) -> Counter[bytes]:
    counts: Counter[bytes] = Counter()
    parse = manifest.parse

    def counting(text: bytes) -> Manifest:
        counts[text] += 1
        return parse(text)

    monkeypatch.setattr(manifest, "parse", counting)
    return counts


@pytest.fixture
def shards(repo: Repo) -> Repo:
    files = {f"{n}.safetensors": made(n) for n in range(5)}
    repo.commit_files(
        {
            ".gitattributes": b"*.safetensors filter=theta\n",
            "notes.txt": made(7),  # not ours
            "damaged.safetensors": made(8)[:-20],
            **files,
        }
    )
    return repo


def _all(known: KnownCheckpoints, path: str) -> set[str]:
    texts = list(known.texts(path))
    found = known.parents(path, texts)
    return {entry.name for parent in found for entry in parent.manifest.tensors}


def test_every_manifest_is_parsed_once(shards: Repo, parsed: Counter[bytes]) -> None:
    with Repository.discover(shards.path) as repo:
        known = KnownCheckpoints(repo)
        for n in range(20):  # shards of a new model, whose tensors are nowhere
            assert _all(known, f"new-{n}.safetensors") == {f"tensor.{n}" for n in range(5)}
    assert set(parsed.values()) == {1}
    assert len(parsed) == 6


def test_the_file_itself_comes_first(shards: Repo) -> None:
    with Repository.discover(shards.path) as repo:
        known = KnownCheckpoints(repo)
        texts = list(known.texts("3.safetensors"))
        assert texts == [made(3), made(3)]
        first = next(known.parents("3.safetensors", texts))
        assert [entry.name for entry in first.manifest.tensors] == ["tensor.3"]


def test_a_new_head_is_noticed(shards: Repo) -> None:
    """A rebase makes commits while one filter serves it."""
    with Repository.discover(shards.path) as repo:
        known = KnownCheckpoints(repo)
        assert "tensor.9" not in _all(known, "new.safetensors")
        shards.commit_files({"9.safetensors": made(9)})
        assert "tensor.9" in _all(known, "new.safetensors")


def test_a_further_new_file_costs_one_question(shards: Repo, monkeypatch) -> None:
    asked: list[str] = []
    begin = Batch._begin
    monkeypatch.setattr(Batch, "_begin", lambda of, spec: asked.append(spec) or begin(of, spec))
    with Repository.discover(shards.path) as repo:
        known = KnownCheckpoints(repo)
        _all(known, "first.safetensors")
        asked.clear()
        repo.peek_staged("new.safetensors", LONGEST)
        assert len(_all(known, "new.safetensors")) == 5
    assert asked == [":0:new.safetensors"]


def test_memory_is_bounded(shards: Repo, parsed: Counter[bytes], monkeypatch) -> None:
    monkeypatch.setattr(parents, "_KEPT", 2 * len(made(0)))
    with Repository.discover(shards.path) as repo:
        known = KnownCheckpoints(repo)
        for _ in range(2):
            assert len(_all(known, "new.safetensors")) == 5
            assert len(known._cache._parents) <= 2
    assert set(parsed.values()) == {2}


def test_no_commit_yet(repo: Repo) -> None:
    with Repository.discover(repo.path) as opened:
        assert _all(KnownCheckpoints(opened), "new.safetensors") == set()
