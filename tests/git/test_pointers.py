"""Pointer refs on real remotes: canonical, free of conflicts, folded when there are many."""

from __future__ import annotations

import hashlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from git_theta.errors import TransferError
from git_theta.git import Repository, pointer_refs, pointers
from git_theta.git.remotes import find_remote
from tests.support.repo import Repo


def publish(repo: Repository, name: str, wanted: dict[str, int], **options) -> str | None:
    said = options.pop("said", [])
    return pointer_refs.publish(repo, find_remote(repo, name), wanted, said.append, **options)


def refuse_pushes(remote: Repo, condition: str) -> None:
    """Let a remote refuse pushes of a ref ``$ref`` for which a shell condition holds."""
    hook = remote.path / "hooks/pre-receive"
    text = f"while read -r old new ref; do\n  if {condition}; then"
    hook.write_text(
        f"#!/bin/sh\n{text}\n    echo only branches, please >&2\n    exit 1\n  fi\ndone\n"
    )
    hook.chmod(0o755)


def fold(repo: Repository, name: str, said: list[str] | None = None) -> bool:
    warn = [].append if said is None else said.append
    return pointer_refs.fold(repo, find_remote(repo, name), warn)


def objects(*names: str) -> dict[str, int]:
    return {hashlib.sha256(name.encode()).hexdigest(): 1000 + len(name) for name in names}


@pytest.fixture
def here(repo: Repo, remote: Repo):
    repo.git("remote", "add", "origin", str(remote.path))
    with Repository.discover(repo.path) as found:
        yield found


@pytest.fixture
def elsewhere(make_repo, remote: Repo):
    """Someone else, with the same remote."""
    made = make_repo("elsewhere")
    made.git("remote", "add", "origin", str(remote.path))
    with Repository.discover(made.path) as found:
        yield found


def refs(remote: Repo) -> list[str]:
    return remote.git("for-each-ref", "--format=%(refname)").splitlines()


def named(remote: Repo) -> dict[str, int]:
    """Every object that a pointer in the remote's refs names."""
    found = {}
    for ref in refs(remote):
        for line in remote.git("ls-tree", "-r", "--format=%(objectname) %(path)", ref).splitlines():
            blob, path = line.split(" ")
            text = remote.git("cat-file", "blob", blob) + "\n"
            version, oid, size = text.splitlines()
            assert version == "version https://git-lfs.github.com/spec/v1"
            assert path.endswith(oid.removeprefix("oid sha256:"))
            found[oid.removeprefix("oid sha256:")] = int(size.removeprefix("size "))
    return found


def test_the_text_is_what_git_lfs_writes(repo: Repo):
    content = b"some weights"
    written = repo.git("lfs", "clean", "--", "x", stdin=content) + "\n"
    oid = hashlib.sha256(content).hexdigest()
    assert pointers.pointer_text(oid, len(content)) == written.encode()


def test_objects_are_named_by_canonical_pointers(here, remote):
    wanted = objects("a", "b", "c")
    ref = publish(here, "origin", wanted)
    assert refs(remote) == [ref]
    assert ref.startswith("refs/theta/objects/")
    assert named(remote) == wanted
    assert remote.git("fsck", "--strict") == ""


def test_the_ref_and_its_commit_follow_from_the_objects_alone(
    here, elsewhere, remote, make_repo, monkeypatch
):
    first = publish(here, "origin", objects("a", "b"))
    commit = remote.git("rev-parse", first)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1700000000 +0100")
    assert publish(elsewhere, "origin", objects("b", "a")) == first
    assert remote.git("rev-parse", first) == commit


def test_what_was_published_is_not_published_again(here, remote):
    publish(here, "origin", objects("a", "b"))
    assert publish(here, "origin", objects("a")) is None
    ref = publish(here, "origin", objects("a", "c"))
    assert remote.git("ls-tree", "-r", "--name-only", ref).count("\n") == 0
    assert named(remote) == objects("a", "b", "c")


def test_a_remote_that_lost_its_refs_gets_them_again(here, remote):
    ref = publish(here, "origin", objects("a"))
    remote.git("update-ref", "-d", ref)
    assert publish(here, "origin", objects("a")) == ref


def test_each_remote_counts_for_itself(here, remote, make_repo):
    other = make_repo("other.git", "--bare")
    publish(here, "origin", objects("a"))
    publish(here, str(other.path), objects("a"))
    assert refs(other) == refs(remote)


def test_a_remote_that_is_fetched_from_elsewhere(repo, here, remote, make_repo, monkeypatch):
    monkeypatch.setattr(pointer_refs, "FOLD_ABOVE", 2)
    mirror = make_repo("mirror.git", "--bare")
    repo.git("remote", "set-url", "--push", "origin", str(mirror.path))
    for name in "abc":
        publish(here, "origin", objects(name))
    assert len(refs(mirror)) == 1
    assert named(mirror) == objects("a", "b", "c")
    assert refs(remote) == []


def test_nothing_stays_behind_in_the_own_repository(repo, here):
    publish(here, "origin", objects("a"))
    assert repo.git("for-each-ref") == ""
    assert repo.git("status", "--porcelain") == ""


def test_pushes_at_once_do_not_collide(here, remote, tmp_path):
    clones = [Repo.clone(remote.path, tmp_path / f"clone{number}") for number in range(6)]

    def work(number: int) -> None:
        with Repository.discover(clones[number].path) as repo:
            publish(repo, "origin", objects("shared", f"own {number // 2}"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert named(remote) == objects("shared", *(f"own {number}" for number in range(3)))


def test_many_refs_become_one(here, elsewhere, remote, monkeypatch):
    monkeypatch.setattr(pointer_refs, "FOLD_ABOVE", 3)
    names = ["a", "b", "c", "d"]
    for name in names[:2]:
        publish(here, "origin", objects(name))
    publish(elsewhere, "origin", objects("c"))
    assert len(refs(remote)) == 3
    publish(here, "origin", objects("d"))
    assert len(refs(remote)) == 1
    assert named(remote) == objects(*names)
    # The one who folded knows what is in it; another one does not, and is not harmed.
    assert publish(here, "origin", objects("a", "c")) is None
    publish(elsewhere, "origin", objects("c"))
    assert named(remote) == objects(*names)


def test_folding_a_folded_remote_changes_nothing(here, remote):
    publish(here, "origin", objects("a", "b"))
    before = refs(remote)
    assert fold(here, "origin")
    assert refs(remote) == before


def test_who_folds_second_leaves_it(here, remote, monkeypatch):
    for name in "abc":
        publish(here, "origin", objects(name))
    real_push = pointer_refs._push

    def push_late(repo, *args, **options):
        # Between our look at the remote and our push, someone else folds.
        monkeypatch.setattr(pointer_refs, "_push", real_push)
        assert fold(here, "origin")
        real_push(repo, *args, **options)

    monkeypatch.setattr(pointer_refs, "_push", push_late)
    assert not fold(here, "origin")
    assert len(refs(remote)) == 1
    assert named(remote) == objects("a", "b", "c")


def test_settings_for_ordinary_pushes_do_not_get_in_the_way(repo, here, remote):
    repo.commit()
    repo.git("tag", "-a", "-m", "tag", "v1")
    for key, value in {
        "push.followTags": "true",
        "push.recurseSubmodules": "check",
        "remote.origin.mirror": "true",
    }.items():
        repo.git("config", key, value)
    hook = repo.path / ".git/hooks/pre-push"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    ref = publish(here, "origin", objects("a"))
    assert refs(remote) == [ref]


def test_a_host_that_refuses_is_named_with_the_way_out(here, remote):
    refuse_pushes(remote, "true")
    with pytest.raises(TransferError, match="only branches, please") as caught:
        publish(here, "origin", objects("a"))
    assert "theta.pointers false" in caught.value.hint
    assert refs(remote) == []


def test_a_host_that_takes_branches_only_gets_branches(here, elsewhere, remote, monkeypatch):
    refuse_pushes(remote, '[ "${ref#refs/heads/}" = "$ref" ]')
    pushed = []
    real_push = pointer_refs._push

    def push(*args, **options) -> None:
        pushed.append(args[2:])
        real_push(*args, **options)

    monkeypatch.setattr(pointer_refs, "_push", push)
    first = publish(here, "origin", objects("a"))
    assert first.startswith("refs/heads/git-theta/objects/")
    assert len(pushed) == 2  # refused once: what the host's rules say, they say again
    publish(elsewhere, "origin", objects("b"))
    publish(here, "origin", objects("a", "c"))
    assert len(pushed) == 4  # every clone knows it from the first push of any of them
    for name in "def":
        publish(elsewhere, "origin", objects(name))
    assert len(refs(remote)) <= pointer_refs.FOLD_BRANCHES_ABOVE
    assert named(remote) == objects(*"abcdef")


def test_a_lock_that_a_killed_push_left_is_named_and_removed_by_the_hint(here, remote):
    ref = publish(here, "origin", objects("a"))
    remote.git("update-ref", "-d", ref)
    lock = remote.path / f"{ref}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    with pytest.raises(TransferError, match=f"origin has a lock on {ref}") as caught:
        publish(here, "origin", objects("a"))
    assert "theta.pointers" not in caught.value.hint
    assert refs(remote) == []  # a lock is no refusal: no branch takes the ref's place
    _, _, command = caught.value.hint.partition(" there: ")
    subprocess.run(command, shell=True, check=True)
    assert publish(here, "origin", objects("a")) == ref


def test_a_lock_on_a_server_is_not_named_as_the_server_names_it(repo, server):
    url = server.repository()
    with Repository.discover(repo.path) as here:
        ref = publish(here, url, objects("a"))
        server.bare().git("update-ref", "-d", ref)
        lock = server.bare().path / f"{ref}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        with pytest.raises(TransferError, match="has a lock on") as caught:
            publish(here, url, objects("a"))
    assert caught.value.hint.endswith(f"on the host, remove {ref}.lock from the repository")


def test_a_remote_that_is_not_there(here, tmp_path: Path):
    with pytest.raises(TransferError, match="nowhere"):
        publish(here, str(tmp_path / "nowhere"), objects("a"))


def test_an_unreadable_memory_is_only_forgotten(here, remote):
    ref = publish(here, "origin", objects("a"))
    (memory,) = (here.theta_dir / "published").iterdir()
    memory.write_bytes(b"\xff\xfe")
    assert publish(here, "origin", objects("a")) == ref


def test_repositories_with_sha256_names(make_repo):
    bare = make_repo("remote256.git", "--bare", "--object-format=sha256")
    made = make_repo("repo256", "--object-format=sha256")
    with Repository.discover(made.path) as repo:
        publish(repo, str(bare.path), objects("a", "b"))
    assert named(bare) == objects("a", "b")


def test_over_http(repo, server):
    url = server.repository()
    with Repository.discover(repo.path) as here:
        publish(here, url, objects("a"))
        publish(here, url, objects("b"))
        assert fold(here, url)
    assert named(server.bare()) == objects("a", "b")
    assert len(refs(server.bare())) == 1


# --- written while the objects are uploaded -------------------------------------------------------


def draft_of(repo: Repository, wanted: dict[str, int]) -> pointer_refs.Draft | None:
    return pointer_refs.prepare(repo, find_remote(repo, "origin"), wanted)


def publish_draft(repo: Repository, draft: pointer_refs.Draft | None) -> bool:
    assert draft is not None
    return pointer_refs.publish_draft(repo, find_remote(repo, "origin"), draft, [].append)


def test_a_draft_names_what_is_not_named(repo, here, remote):
    first = publish(here, "origin", objects("a"))
    draft = draft_of(here, objects("a", "b"))
    assert draft is not None
    assert (draft.objects, [*draft.relied_on]) == (objects("b"), [first])
    assert named(remote) == objects("a"), "nothing is pushed before the objects are there"
    assert publish_draft(here, draft)
    assert named(remote) == objects("a", "b")
    assert publish(here, "origin", objects("a", "b")) is None, "it is remembered"
    assert draft_of(here, objects("a", "b")) is None
    repo.git("prune", "--expire=now")  # the commits of pushed pointers are in no ref here
    assert draft_of(here, objects("a", "c")) is None


def test_a_draft_fails_when_what_it_relied_on_is_gone(here, elsewhere, remote):
    """A clean-up of the remote during a long upload must not leave objects without a name."""
    first = publish(here, "origin", objects("a"))
    draft = draft_of(here, objects("a", "b"))
    remote.git("update-ref", "-d", first)
    assert not publish_draft(here, draft)
    assert publish(here, "origin", objects("a", "b"))
    assert named(remote) == objects("a", "b")


def test_many_drafts_become_one_ref(here, remote, monkeypatch):
    monkeypatch.setattr(pointer_refs, "FOLD_ABOVE", 2)
    for name in ("a", "b", "c"):
        assert publish_draft(here, draft_of(here, objects(name)))
    assert len(refs(remote)) == 1
    assert named(remote) == objects("a", "b", "c")


def test_nobody_is_asked_for_a_password_beside_an_upload(repo, server, tmp_path, monkeypatch):
    asked = tmp_path / "asked"
    asking = tmp_path / "askpass"
    asking.write_text(f"#!/bin/sh\necho x\ntouch {asked}\n")
    asking.chmod(0o755)
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(asking))
    repo.git("remote", "add", "origin", server.repository())
    server.challenge = True
    with Repository.discover(repo.path) as here:
        assert draft_of(here, objects("a")) is None
        assert not asked.exists()
        with pytest.raises(TransferError):
            publish(here, "origin", objects("a"))
    assert asked.exists(), "the test can fail: afterwards one is asked"


# --- what others may have put there --------------------------------------------------------------


def tree_of(repo: Repo, *entries: tuple[str, str, str]) -> str:
    """A commit whose tree has these entries: mode, name, and the id or content of a blob."""
    records = ""
    for mode, name, content in entries:
        write = ("hash-object", "-w", "--stdin")
        blob = content if mode == "040000" else repo.git(*write, stdin=content.encode())
        records += f"{mode} {'tree' if mode == '040000' else 'blob'} {blob}\t{name}\0"
    tree = repo.git("mktree", "-z", stdin=records.encode())
    return repo.git("commit-tree", "-m", "planted", tree)


OID = hashlib.sha256(b"a").hexdigest()
POINTER = pointers.pointer_text(OID, 1001).decode()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (OID, "not a pointer"),
        (OID, POINTER + "\n"),
        (OID, POINTER.replace("size 1001", "size 01001")),
        (OID, POINTER.replace("size 1001", "size -1")),
        (OID, POINTER.replace("\nsize", "\next-0-x sha256:00\nsize")),
        (OID, POINTER.replace(OID, "b" * 64)),
        (OID, "version https://git-lfs.github.com/spec/v1\n" + "x" * 10_000_000),
        (OID[:-1], POINTER),
        (OID.upper(), POINTER),
        ("ff" + OID[2:], POINTER),
        (f"{OID}\nreset HEAD", POINTER),
    ],
)
def test_a_tree_that_we_would_not_write_names_nothing(name, text, repo, here):
    folder = tree_of(repo, ("100644", name, text)) + "^{tree}"
    planted = tree_of(repo, ("040000", OID[:2], repo.git("rev-parse", folder)))
    assert pointers.read_commit(here, planted) is None


def test_what_we_write_is_read_back(here):
    wanted = objects("a", "b", "c")
    assert pointers.read_commit(here, pointers.write_commit(here, wanted)) == wanted


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_what_we_write_is_what_git_would_write(form, tmp_path):
    repo = Repo.init(tmp_path / "repo", f"--object-format={form}")
    wanted = objects("a", "b", "c")
    commit = pointers.write_commit(Repository.discover(repo.path), wanted)
    repo.git("fsck", "--strict", "--no-dangling", commit)
    folders = {}
    for oid, size in wanted.items():
        text = pointers.pointer_text(oid, size)
        blob = repo.git("hash-object", "-w", "--stdin", stdin=text)
        folders.setdefault(oid[:2], []).append(f"100644 blob {blob}\t{oid}\n")
    rows = (
        f"040000 tree {repo.git('mktree', stdin=''.join(files).encode())}\t{folder}\n"
        for folder, files in folders.items()
    )
    tree = repo.git("mktree", stdin="".join(rows).encode())
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (
            ("NAME", "git-theta"),
            ("EMAIL", "git-theta@localhost"),
            ("DATE", "@0 +0000"),
        )
    }
    made = repo.git("commit-tree", tree, stdin=b"Name Git LFS objects", env=who)
    assert made == commit


def test_a_tree_without_end_is_not_listed(repo, here):
    """Each of 30 levels holds the one below it 50 times: 50^30 files in some KB."""
    tree = repo.git("rev-parse", tree_of(repo, ("100644", "x", "x")) + "^{tree}")
    for _ in range(30):
        members = "".join(f"040000 tree {tree}\t{number:02x}\0" for number in range(50))
        tree = repo.git("mktree", "-z", stdin=members.encode())
    assert pointers.read_commit(here, repo.git("commit-tree", "-m", "bomb", tree)) is None


def test_refs_that_are_not_ours_are_left_alone_and_reported_once(
    repo, here, remote, make_repo, monkeypatch
):
    monkeypatch.setattr(pointer_refs, "FOLD_ABOVE", 3)
    attacker = make_repo("attacker")
    planted = tree_of(attacker, ("100644", "x", "nothing of ours"))
    names = [f"refs/theta/objects/{number:040x}" for number in range(4)] + [
        "refs/theta/objects/odd"
    ]
    attacker.git("push", "-q", str(remote.path), *(f"{planted}:{name}" for name in names))
    said: list[str] = []
    for name in "abcdef":
        publish(here, "origin", objects(name), said=said)
    assert set(names) <= set(refs(remote))
    assert set(objects(*"abcdef")) <= set(named_by_ours(remote))
    assert len(refs(remote)) <= len(names) + 3  # ours were folded all the same
    (once,) = said
    assert "did not write" in once


def named_by_ours(remote: Repo) -> dict[str, int]:
    with Repository.discover(remote.path) as found:
        return {
            oid: size
            for ref in refs(remote)
            for oid, size in (pointers.read_commit(found, ref) or {}).items()
        }


def test_a_name_that_somebody_took_is_not_in_the_way(here, remote, make_repo):
    ref = publish(here, "origin", objects("a"))
    attacker = make_repo("attacker")
    planted = tree_of(attacker, ("100644", "x", "nothing of ours"))
    attacker.git("push", "-q", "--force", str(remote.path), f"{planted}:{ref}")
    other = publish(here, "origin", objects("a"))
    assert other not in (None, ref)
    assert named_by_ours(remote) == objects("a")


def test_what_a_push_deletes_is_named_again_under_another_name(here, elsewhere, remote):
    theirs = publish(elsewhere, "origin", objects("a", "b"))
    ref = publish(here, "origin", objects("a"), leaving=[theirs])
    assert ref != theirs
    remote.git("update-ref", "-d", theirs)
    assert named(remote) == objects("a", "b")
    again = publish(here, "origin", {}, leaving=[ref])
    remote.git("update-ref", "-d", ref)
    assert again == theirs
    assert named(remote) == objects("a", "b")
