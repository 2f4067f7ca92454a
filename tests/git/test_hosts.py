"""The whole life of a repository on each host, by its own rules (``docs/hosts.md``)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from git_theta.errors import TransferError
from git_theta.git import Repository, pointer_refs
from git_theta.git.lfs import Lfs
from git_theta.git.remotes import find_remote
from tests.git.test_lfs import Receiver, check_received, make_objects, sizes
from tests.git.test_push_protection import BASE, FIRST, PATH, needed, shared
from tests.support import checkpoints, hosts
from tests.support.hosts import Host, Rules, agent
from tests.support.repo import Repo

__all__ = ["shared"]

NAMES = sorted(BASE)


def assert_done(command: subprocess.CompletedProcess[str]) -> str:
    assert command.returncode == 0, (command.args, command.stdout, command.stderr)
    return command.stdout


def changed(*names: str) -> bytes:
    """The first version with some of its tensors changed."""
    other = checkpoints.finetuned(BASE, seed=3)
    return checkpoints.safetensors({**BASE, **{name: other[name] for name in names}})


def test_the_page_says_what_these_hosts_enforce():
    page = (Path(__file__).parents[2] / "docs/hosts.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- rules -->\n")
    written = rest.partition("\n\n")[0]
    assert [_cells(row) for row in written.splitlines()] == [
        _cells(row) for row in hosts.table().splitlines()
    ]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("rules", hosts.HOSTS, ids=lambda rules: rules.name)
def test_the_whole_life(rules: Rules, shared: Repo, tmp_path: Path, theta_here):
    with Host(tmp_path / "host", rules) as host:
        url = host.repository()
        shared.git("remote", "set-url", "origin", url)
        shared.git("push", "-q", "origin", "main~1:refs/heads/main", "main:refs/heads/topic")

        clone = Repo.clone(url, tmp_path / "clone")
        assert clone.read(PATH) == FIRST
        theirs = clone.commit_files({PATH: changed(NAMES[0])})
        clone.git("push", "-q", "origin", "main")

        shared.git("reset", "-q", "--hard", "main~1")
        shared.commit_files({PATH: changed(NAMES[1])})
        shared.git("fetch", "-q")
        shared.git("merge", "-q", "--no-edit", "origin/main")
        merged = changed(NAMES[0], NAMES[1])
        assert shared.read(PATH) == merged
        shared.git("push", "-q", "origin", "main", ":topic")

        kept = needed(shared) | needed(shared, "HEAD~1") | needed(shared, theirs)
        assert_done(theta_here(shared, "remote-gc", "origin"))
        collected = host.collect()
        assert bool(collected) is bool(rules.collects)  # what the deleted branch alone needed
        assert not kept & collected
        assert_done(theta_here(shared, "prune", "--remote-verified", "--recent", "0"))
        assert_done(theta_here(shared, "gc"))
        assert_done(theta_here(shared, "fsck", "--remote"))
        diagnosis = assert_done(theta_here(shared, "doctor", "--remote", "origin"))
        branches = rules is hosts.HUGGING_FACE
        assert ("takes no other refs" in diagnosis) is branches
        shared.git("checkout", "-q", theirs)
        assert shared.read(PATH) == changed(NAMES[0])

        fresh = Repo.clone(url, tmp_path / "fresh")
        assert fresh.read(PATH) == merged
        taken = host.bare().git("for-each-ref", "--format=%(refname)", *pointer_refs.PATTERNS)
        assert taken
        assert all(ref.startswith(pointer_refs.BRANCHES) is branches for ref in taken.split())


@pytest.mark.parametrize("rules", [hosts.GITLAB, hosts.GITEA], ids=lambda rules: rules.name)
def test_without_pointers_a_host_collects_what_a_branch_needs(rules, shared, tmp_path):
    """So the host of these tests does what the pointers are there for."""
    shared.git("config", "theta.pointers", "false")
    with Host(tmp_path / "host", rules) as host:
        shared.git("push", "-q", host.repository(), "main~1:refs/heads/main")
        assert host.collect() >= needed(shared, "main~1")


def test_a_host_refuses_what_it_says_it_refuses(repo, tmp_path):
    """A table of ``docs/hosts.md``, of the host alone: pushes of plain Git."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1\n"
    small = replace(hosts.HUGGING_FACE, largest_blob=1000, files=3, entries=2)
    cases = (
        ("refs/theta/x", {"a": b"text"}, b"only branches"),
        ("refs/pr/x", {"a": b"text"}, b"only branches"),
        ("refs/heads/x", {"a": pointer.encode()}, b"refers to an LFS object that is not here"),
        ("refs/heads/x", {"a": b"bin\0ary"}, b"is binary"),
        ("refs/heads/x", {"a": b"x" * 1001}, b"more than 1000"),
        ("refs/heads/x", {f"{n}/a": b"text" for n in range(2)}, b"more than 3"),
        ("refs/heads/x", {"a": b"1", "b": b"2", "c": b"3"}, b"a folder of more than 2"),
        ("refs/heads/x", {"a": b"text"}, None),
        ("refs/pr/7", {"b": b"text"}, None),
    )
    with Host(tmp_path / "host", small) as host:
        url = host.repository()
        for ref, files, reason in cases:
            repo.git("checkout", "-q", "--orphan", "new")
            repo.git("rm", "-rfq", "--ignore-unmatch", "--cached", ".")
            repo.commit_files(files)
            done = repo.process("push", url, f"HEAD:{ref}")
            assert (done.returncode != 0) is bool(reason), (ref, files, done.stderr)
            assert (reason or b"") in done.stderr
            repo.git("branch", "-q", "-M", "old")


@pytest.fixture
def here(repo: Repo):
    with Repository.discover(repo.path) as found:
        yield found


def test_a_host_that_asks_to_wait_is_waited_for(here, repo, tmp_path):
    repo.git("config", "lfs.transfer.maxretries", "8")
    objects = make_objects(tmp_path / "objects", 3, 100)
    with Host(tmp_path / "host", replace(hosts.HUGGING_FACE, rate=(3, 1))) as host:
        remote, receiver = find_remote(here, host.repository()), Receiver()
        assert Lfs(here).upload(remote, objects) == objects.keys()
        Lfs(here).download(sizes(objects), remote, receiver)
        check_received(receiver, objects)
        assert host.turned_away


@pytest.mark.parametrize("part", ["/objects/batch", "/objects/storage"])
def test_a_host_that_does_not_let_go_on_is_said_to(part, here, tmp_path):
    objects = make_objects(tmp_path / "objects", 2, 100)
    with Host(tmp_path / "host", hosts.GITHUB) as host:
        remote = find_remote(here, host.repository())
        host.refuse[part] = "429 Too Many Requests"
        with pytest.raises(TransferError, match="the host asks to wait") as caught:
            Lfs(here).upload(remote, objects)
        assert "theta.objectSize" in caught.value.hint
        host.refuse = {}
        host.rules = replace(host.rules, rate=(1, 60))
        with pytest.raises(TransferError, match="the host asks to wait"):
            Lfs(here).upload(remote, objects)


def test_a_host_that_takes_smaller_objects_says_so(here, tmp_path):
    objects = make_objects(tmp_path / "objects", 1, 100)
    with Host(tmp_path / "host", replace(hosts.GITHUB, largest_object=99)) as host:
        with pytest.raises(TransferError, match="does not accept objects of this size"):
            Lfs(here).upload(find_remote(here, host.repository()), objects)
        assert host.objects() == {}


@pytest.mark.parametrize("how", ["", " silent"])
def test_a_transfer_agent_that_the_host_asks_for_moves_the_objects(how, here, repo, tmp_path):
    """As `git-xet` is called: by git-lfs, which offers it, because the server names it."""
    log = tmp_path / "log"
    repo.git("config", "lfs.customtransfer.xet.path", sys.executable)
    repo.git("config", "lfs.customtransfer.xet.args", f"{agent.__file__} {log}{how}")
    repo.git("config", "lfs.customtransfer.xet.concurrent", "false")
    objects = make_objects(tmp_path / "objects", 2, 100)
    with Host(tmp_path / "host", replace(hosts.HUGGING_FACE, rate=None)) as host:
        host.agent = "xet"
        remote, receiver = find_remote(here, host.repository()), Receiver()
        first = dict([*objects.items()][:1])
        assert Lfs(here).upload(remote, first) == first.keys()
        assert Lfs(here).upload(remote, objects) == objects.keys() - first.keys()
        assert Lfs(here).upload(remote, objects) == set()
        assert Lfs(here).lacking(remote, sizes(objects)) == set()
        Lfs(here).download(sizes(objects), remote, receiver)
    check_received(receiver, objects)
    moved = {f"{what} {oid}" for what in ("upload", "download") for oid in objects}
    assert set(log.read_text().splitlines()) == moved
