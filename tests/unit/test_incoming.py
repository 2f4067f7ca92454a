from __future__ import annotations

import pytest

from git_theta.errors import StoreError
from git_theta.ids import content_hash
from git_theta.incoming import receive

CONTENT = bytes(range(256)) * 1000


def _packets(content: bytes, size: int = 65516):
    return [content[start : start + size] for start in range(0, len(content), size)]


def test_the_file_itself_serves_where_it_is_the_same(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    with receive(_packets(CONTENT), file, tmp_path / "spool") as incoming:
        assert incoming.text() == CONTENT
        assert incoming.hash == content_hash(CONTENT)
        assert incoming.head == CONTENT[:1024]
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(
    "on_disk",
    [
        None,
        b"",
        CONTENT[:-1],
        CONTENT + b"x",
        CONTENT[:70_000] + b"x" + CONTENT[70_001:],
        b"x" + CONTENT[1:],
    ],
    ids=["absent", "empty", "shorter", "longer", "differs late", "differs at once"],
)
def test_other_content_is_spooled_and_the_spool_removed(tmp_path, on_disk):
    file, spool = tmp_path / "file", tmp_path / "spool"
    if on_disk is not None:
        file.write_bytes(on_disk)
    with receive(_packets(CONTENT), file, spool) as incoming:
        assert incoming.text() == CONTENT
        assert incoming.hash == content_hash(CONTENT)
    assert list(spool.iterdir()) == []


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "target").write_bytes(CONTENT)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with receive(_packets(CONTENT), tmp_path / "link", tmp_path / "spool") as incoming:
        assert incoming.text() == CONTENT
        assert list((tmp_path / "spool").iterdir())


def test_nothing_at_all(tmp_path):
    with receive([], tmp_path / "absent", tmp_path) as incoming:
        assert incoming.source.size == 0
        assert incoming.head == b""


def test_a_spool_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "spool").write_bytes(b"a file where the folder should be")
    with (
        pytest.raises(StoreError),
        receive([b"x"], tmp_path / "absent", tmp_path / "spool"),
    ):
        pass
