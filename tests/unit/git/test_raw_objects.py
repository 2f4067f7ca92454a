"""Trees, commits and tags taken apart and put together again."""

from __future__ import annotations

import pytest

from git_theta.errors import GitError
from git_theta.git.raw_objects import (
    TreeEntry,
    links,
    parse_tree,
    relinked_commit,
    relinked_tag,
    tagged,
    tree_content,
    tree_order,
)

OLD, NEW, TREE = "a" * 40, "b" * 40, "c" * 40
HEAD = f"tree {TREE}\nparent {OLD}\nparent {OLD}\n"
WHO = "author Ä <a@b> 1 +0100\ncommitter C <c@d> 2 -0930\nencoding ISO-8859-1\n"
SIGNATURE = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n"
MERGETAG = f"mergetag object {OLD}\n type commit\n tag v1\n \n tree {TREE}\n"


def test_a_tree_is_given_back_byte_for_byte():
    entries = [
        TreeEntry(b"100644", b"a.b", "01" * 20),
        TreeEntry(b"40000", b"a", "02" * 20),
        TreeEntry(b"040000", b"\n\xff", "00" * 20),
        TreeEntry(b"160000", b"m", "04" * 20),
    ]
    assert parse_tree(tree_content(entries), 40) == entries
    assert [e.is_tree for e in entries] == [False, True, True, False]
    assert [e.is_file for e in entries] == [True, False, False, False]
    assert sorted(entries, key=tree_order)[1:3] == entries[:2]  # "a.b" before "a/"
    wide = [TreeEntry(b"100755", b"x", "05" * 32)]
    assert parse_tree(tree_content(wide), 64) == wide


@pytest.mark.parametrize("content", [b"100644 a\0abc", b"100644 a", b"a\0" + bytes(20), b" \0"])
def test_a_damaged_tree_is_refused(content):
    with pytest.raises(GitError):
        parse_tree(content, 40)


def test_a_commit_keeps_all_but_its_links_and_signatures():
    message = f"Subject\n\ntree {OLD}\ngpgsig no\n"
    raw = f"{HEAD}{WHO}{MERGETAG}{SIGNATURE}x-own 1\n\n{message}".encode("latin-1")
    assert links(raw) == (TREE, [OLD, OLD])
    made, dropped = relinked_commit(raw, "d" * 40, {OLD: NEW}.__getitem__)
    head = HEAD.replace(TREE, "d" * 40).replace(OLD, NEW)
    assert made == f"{head}{WHO}x-own 1\n\n{message}".encode("latin-1")
    assert dropped
    plain = f"tree {TREE}\n{WHO}\n".encode()
    assert relinked_commit(plain, TREE, str) == (plain, False)


def test_a_tag_keeps_all_but_its_target_and_signature():
    head = f"object {OLD}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\n"
    raw = (head + "Words\n-----BEGIN PGP SIGNATURE-----\n\nabc\n").encode()
    assert tagged(raw) == OLD
    assert relinked_tag(raw, NEW) == (head.replace(OLD, NEW).encode() + b"Words\n", True)
    assert relinked_tag((head + "Words").encode(), OLD) == ((head + "Words").encode(), False)
