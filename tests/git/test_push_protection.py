"""No branch moves without its objects, however a push is spelt, whatever earlier ones left out."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from git_theta import manifest
from tests.support import checkpoints
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(BASE)
SECOND = checkpoints.safetensors(checkpoints.finetuned(BASE))
THIRD = checkpoints.safetensors(checkpoints.finetuned(BASE, seed=2))
PATH = "model.safetensors"


@pytest.fixture
def shared(once, home, model: Repo, remote: Repo) -> Repo:
    """A repository with two versions and a remote, nothing pushed."""

    def commit() -> None:
        model.commit_files({PATH: FIRST}, "base")
        model.commit_files({PATH: SECOND}, "fine-tune")

    once("two versions", home, model, commit)
    model.git("remote", "add", "origin", str(remote.path))
    return model


def needed(repo: Repo, rev: str = "HEAD", path: str = PATH) -> set[str]:
    text = repo.git("show", f"{rev}:{path}").encode() + b"\n"
    return set(manifest.parse(text).objects())


def objects_of(bare: Repo) -> set[str]:
    return {path.name for path in (bare.path / "lfs/objects").rglob("*") if path.is_file()}


def named_on(bare: Repo) -> set[str]:
    """The objects that a pointer in a ref of ours names."""
    refs = bare.git("for-each-ref", "--format=%(refname)", "refs/theta/objects").split()
    return {
        line[3:] for ref in refs for line in bare.git("ls-tree", "-r", "--name-only", ref).split()
    }


def is_whole(bare: Repo, rev: str = "main") -> bool:
    """Whether a bare repository has, and names, every object of two versions."""
    wanted = needed(bare, rev) | needed(bare, f"{rev}~1")
    return wanted <= objects_of(bare) and wanted <= named_on(bare)


def delete_object(repo: Repo, oid: str) -> None:
    (repo.path / ".git/theta/objects" / oid[:2] / oid).unlink()


# --- every spelling ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "ref"),
    [
        (["HEAD@{1 second ago}:refs/heads/y"], "y"),
        (["HEAD:refs/heads/y"], "y"),
        (["HEAD^{/fine-tune}:refs/heads/y"], "y"),
        (["--atomic", "main", "v1", "v2"], "v1"),
        (["--tags"], "v2"),
        (["--all"], "main"),
        (["--mirror"], "main"),
        (["--follow-tags", "main"], "main"),
        (["+main:refs/heads/y", ":refs/heads/gone"], "y"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_every_spelling_uploads_first(args, ref, shared, remote):
    shared.git("tag", "v1")
    shared.git("tag", "-a", "-m", "annotated", "v2")
    if ":refs/heads/gone" in args:
        shared.git("push", "-q", "--no-verify", "origin", "main~2:refs/heads/gone")
    shared.git("push", "-q", "origin", *args)
    assert is_whole(remote, ref)


def test_no_spelling_moves_anything_where_an_object_is_lost(shared, remote):
    shared.git("tag", "v1")
    shared.git("tag", "-a", "-m", "annotated", "v2")
    shared.git("push", "-q", "--no-verify", "origin", "main~2:refs/heads/old")
    lost = min(needed(shared) - needed(shared, "main~1"))
    delete_object(shared, lost)
    for args in (
        ("HEAD@{1 second ago}:refs/heads/y",),
        ("--atomic", "main~1:refs/heads/y", "v1"),
        ("--tags",),
        ("--all",),
        ("--mirror",),
        ("--force", "main:old"),
        (":old", "main"),
    ):
        done = shared.process("push", "origin", *args)
        assert done.returncode, args
        assert lost[:12].encode() in done.stderr, args
        assert remote.git("for-each-ref", "--format=%(refname)") == "refs/heads/old", args


def test_each_of_several_remotes_gets_what_it_lacks(shared, remote, make_repo):
    second = make_repo("second.git", "--bare")
    shared.git("remote", "add", "second", str(second.path))
    shared.git("push", "-q", "origin", "main")
    for place, name in ((remote, "origin"), (second, "second")):
        shared.git("push", "-q", name, "main", "main~1:refs/heads/y")
        assert is_whole(place)


@pytest.mark.parametrize("prefix", ["refs/theta/objects/", "refs/heads/git-theta/objects/"])
def test_a_ref_that_is_called_as_ours_are_needs_its_objects(prefix, shared, remote):
    ref = f"{prefix}{'a' * 40}"
    shared.git("push", "-q", "origin", f"main:{ref}")
    assert is_whole(remote, ref)


@pytest.mark.parametrize("named", ["HEAD^{tree}", f"HEAD:{PATH}"])
def test_a_tag_of_no_commit_needs_its_objects(named, shared, remote):
    shared.git("tag", "-a", "-m", "not a commit", "odd", named)
    shared.git("push", "-q", "origin", "odd")
    assert needed(shared) <= objects_of(remote)
    assert needed(shared) <= named_on(remote)


def test_what_a_tag_of_a_manifest_lacks_on_the_remote_is_named(shared, remote, theta):
    shared.git("tag", "odd", f"HEAD:{PATH}")
    shared.git("push", "-q", "--no-verify", "origin", "odd")
    blob = shared.git("rev-parse", "odd")
    said = theta(shared, "fsck", "--remote")
    assert said.returncode == 1
    assert f"blob {blob[:12]}" in said.stdout
    delete_object(shared, min(needed(shared)))
    refused = shared.process("push", "origin", "odd:refs/tags/again")
    assert refused.returncode
    assert b"missing locally, on origin" in refused.stderr


def test_a_tag_of_any_other_file_is_no_obstacle(shared, remote):
    text = shared.git("show", f"HEAD:{PATH}").splitlines()
    cut = shared.git("hash-object", "-w", "--stdin", stdin="\n".join(text[:-1]).encode())
    for number, blob in enumerate((cut, "HEAD:.gitattributes")):
        shared.git("tag", f"odd{number}", blob)
    shared.git("push", "-q", "origin", "--tags")
    assert remote.git("rev-parse", "odd0") == cut


def test_a_push_to_two_urls_uploads_to_both(shared, remote, make_repo):
    second = make_repo("second.git", "--bare")
    for place in (remote, second):
        shared.git("remote", "set-url", "--add", "--push", "origin", str(place.path))
    shared.git("push", "-q", "origin", "main")
    assert is_whole(remote)
    assert is_whole(second)


def test_what_is_uploaded_is_said(shared, remote):
    done = shared.process("push", "origin", "main")
    count = len(objects_of(remote))
    assert f"Uploaded {count} object".encode() in done.stderr
    assert b"to origin" in done.stderr
    shared.git("branch", "again")
    assert b"Uploaded" not in shared.process("push", "origin", "again").stderr


def test_a_push_that_deletes_uploads_nothing(shared, remote):
    shared.git("push", "-q", "--no-verify", "origin", "main~2:refs/heads/gone")
    shared.git("push", "-q", "origin", ":refs/heads/gone")
    assert objects_of(remote) == set()


# --- what the remote has is not what tracking refs say -------------------------------------------


def test_another_url_gets_everything(shared, remote, make_repo):
    shared.git("push", "-q", "origin", "main")
    fresh = make_repo("fresh.git", "--bare")
    shared.git("remote", "set-url", "origin", str(fresh.path))
    shared.git("push", "-q", "origin", "main")
    assert is_whole(fresh)


def test_a_remote_that_was_made_anew_gets_everything(shared, remote):
    shared.git("push", "-q", "origin", "main")
    shutil.rmtree(remote.path)
    Repo.init(remote.path, "--bare")
    shared.git("push", "-q", "origin", "main")
    assert is_whole(remote)


@pytest.mark.parametrize(
    "mend", [["main"], ["--force", "main"], ["main:other"], ["topic:topic"]], ids=" ".join
)
def test_a_push_without_the_hook_is_made_good_by_the_next(mend, shared, remote):
    shared.git("push", "-q", "--no-verify", "origin", "main")
    shared.git("branch", "topic")
    assert objects_of(remote) == set()
    shared.git("push", "-q", "origin", *mend)
    assert is_whole(remote)


def test_a_push_without_the_hook_by_url_is_made_good(shared, remote):
    shared.git("push", "-q", "--no-verify", str(remote.path), "main")
    shared.git("push", "-q", str(remote.path), "main:other")
    assert is_whole(remote)


def test_a_fresh_clone_does_not_look_at_all_of_history(shared, remote, tmp_path, theta):
    shared.git("push", "-q", "origin", "main")
    clone = Repo.clone(remote.path, tmp_path / "clone")
    clone.commit_files({PATH: THIRD})
    clone.git("push", "-q", "origin", "main")
    assert needed(clone) <= objects_of(remote)


def test_commits_of_others_whose_objects_are_not_here_are_no_obstacle(shared, remote, tmp_path):
    shared.git("push", "-q", "origin", "main")
    clone = Repo.clone(remote.path, tmp_path / "clone", "--no-checkout")
    clone.git("push", "-q", "origin", "main~1:refs/heads/old")
    assert remote.git("rev-parse", "old") == shared.git("rev-parse", "main~1")


def test_objects_that_only_the_remote_has_are_asked_for_over_http(shared, server, tmp_path):
    url = server.repository()
    shared.git("remote", "set-url", "origin", url)
    shared.git("push", "-q", "origin", "main")
    clone = Repo.clone(url, tmp_path / "clone", "--no-checkout")
    server.bare().git("update-ref", "-d", "refs/heads/main")
    before = len(server.requests)
    clone.git("push", "-q", "origin", "main")
    moved = [request for request in server.requests[before:] if request[0] in ("PUT", "GET")]
    assert not any("/objects/" in path for _, path in moved), moved


def test_what_neither_side_has_stops_the_push(shared, remote):
    lost = sorted(needed(shared))[0]
    delete_object(shared, lost)
    done = shared.process("push", "origin", "main")
    assert done.returncode != 0
    assert lost[:12].encode() in done.stderr
    assert remote.git("for-each-ref") == ""
    assert objects_of(remote) == set()


@pytest.mark.parametrize("options", [["--filter=blob:none"], ["--depth=1"]], ids=str)
def test_partial_and_shallow_clones_push(options, shared, remote, tmp_path):
    shared.git("push", "-q", "origin", "main")
    remote.git("config", "uploadpack.allowFilter", "true")
    clone = Repo.clone(f"file://{remote.path}", tmp_path / "clone", *options)
    clone.commit_files({PATH: THIRD})
    clone.git("push", "-q", "origin", "main", "HEAD@{1 second ago}:refs/heads/y")
    assert needed(clone) <= objects_of(remote)
    assert needed(clone) <= named_on(remote)


# --- git theta push, git theta fsck --remote ------------------------------------------------------


def test_objects_can_be_pushed_at_any_time(shared, remote, theta):
    shared.git("push", "-q", "--no-verify", "origin", "main")
    before = remote.git("for-each-ref", "refs/heads")
    done = theta(shared, "push")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Uploaded ")
    assert done.stdout.endswith(" to origin\n")
    assert is_whole(remote)
    assert remote.git("for-each-ref", "refs/heads") == before
    assert "Nothing to upload" in theta(shared, "push", "origin", "--all").stdout


def test_doctor_names_a_remote_that_may_lack_objects(shared, theta, tmp_path, remote):
    shared.git("push", "-q", "--no-verify", "origin", "main")
    done = theta(shared, "doctor")
    assert done.returncode == 1
    assert "git theta fsck --remote origin" in done.stdout
    shared.git("push", "-q", "origin", "main")  # nothing to push, but the hook runs
    assert is_whole(remote)
    assert "--remote" not in theta(shared, "doctor").stdout
    clone = Repo.clone(remote.path, tmp_path / "clone")
    assert "--remote" not in theta(clone, "doctor").stdout


def test_only_what_a_ref_needs_is_pushed(shared, remote, theta):
    assert theta(shared, "push", "origin", "main~1").returncode == 0
    assert objects_of(remote) == needed(shared, "main~1")
    assert theta(shared, "push", "origin", "nowhere").returncode == 2
    assert theta(shared, "push", "--all", "origin", "main").returncode == 2


def test_what_can_be_pushed_is_and_the_rest_is_an_error(shared, remote, theta):
    lost = sorted(needed(shared) - needed(shared, "main~1"))[0]
    delete_object(shared, lost)
    done = theta(shared, "push", "--all", "origin")
    assert done.returncode == 20
    assert lost[:12] in done.stderr
    assert needed(shared, "main~1") <= objects_of(remote)


@pytest.mark.parametrize("over", ["path", "http"])
def test_what_a_remote_lacks_is_named_with_its_commits(over, shared, remote, theta, request):
    bare = remote
    if over == "http":
        server = request.getfixturevalue("server")
        shared.git("remote", "set-url", "origin", server.repository())
        bare = server.bare()
    shared.git("push", "-q", "--no-verify", "origin", "main")
    assert theta(shared, "push", "origin", "main~1").returncode == 0
    lacking = needed(shared) - needed(shared, "main~1")
    done = theta(shared, "fsck", "--remote")
    assert done.returncode == 1
    for oid in lacking:
        assert f"missing on origin: {oid[:12]}, which is available locally" in done.stdout
    assert f"{shared.git('rev-parse', 'main')[:12]}:{PATH}" in done.stdout
    assert f"{shared.git('rev-parse', 'main~1')[:12]}:{PATH}" not in done.stdout
    assert "git theta push --all origin" in done.stdout
    if over == "path":
        assert objects_of(bare).isdisjoint(lacking)  # a check moves nothing
    assert theta(shared, "push", "--all", "origin").returncode == 0
    assert theta(shared, "fsck", "--remote", "origin").returncode == 0


def test_asking_a_server_sends_nothing(shared, server, theta):
    shared.git("remote", "set-url", "origin", server.repository())
    shared.git("push", "-q", "--no-verify", "origin", "main")
    assert theta(shared, "fsck", "--remote").returncode == 1
    assert server.objects() == {}


def test_a_server_that_does_not_answer_is_no_answer(shared, theta):
    shared.git("remote", "set-url", "origin", "http://127.0.0.1:1/nobody.git")
    assert theta(shared, "fsck", "--remote").returncode == 31


# --- verified before they leave ------------------------------------------------------------------


def damage(repo: Repo, oid: str) -> None:
    file = repo.path / ".git/theta/objects" / oid[:2] / oid
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()  # git-lfs makes a hard link of it where a remote is a folder
    file.write_bytes(content)


def test_a_damaged_object_does_not_leave(shared, remote):
    bad = sorted(needed(shared))[0]
    damage(shared, bad)
    done = shared.process("push", "origin", "main")
    assert done.returncode != 0
    assert bad.encode() in done.stderr
    assert b"corrupt" in done.stderr
    assert objects_of(remote) == set()


def test_a_damaged_object_that_another_remote_has_is_replaced(shared, remote, make_repo):
    shared.git("push", "-q", "origin", "main")
    bad = sorted(needed(shared))[0]
    damage(shared, bad)
    other = make_repo("other.git", "--bare")
    shared.git("push", "-q", str(other.path), "main")
    assert is_whole(other)


def test_an_object_that_was_verified_is_not_hashed_again(shared, remote, make_repo):
    shared.git("push", "-q", "origin", "main")
    bad = sorted(needed(shared))[0]
    file = shared.path / ".git/theta/objects" / bad[:2] / bad
    stamp = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as writer:
        writer.write(b"not a frame")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other = make_repo("other.git", "--bare")
    assert shared.process("push", str(other.path), "main").returncode == 0  # it looks the same
    file.touch()
    another = make_repo("another.git", "--bare")
    shared.git("remote", "remove", "origin")
    assert shared.process("push", str(another.path), "main").returncode != 0


def test_a_bad_download_is_named_as_one(shared, remote, tmp_path):
    shared.git("push", "-q", "origin", "main")
    oid = sorted(needed(shared))[0]
    (bad,) = (remote.path / "lfs/objects").rglob(oid)
    bad.chmod(0o644)
    bad.write_bytes(bytes(bad.stat().st_size))
    done = subprocess.run(
        ["git", "clone", str(remote.path), str(tmp_path / "clone")],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"{oid[:12]} in origin: ".encode() in done.stderr
    assert b"hash to" in done.stderr
