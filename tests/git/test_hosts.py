"""The whole life of a repository on each host, by its own rules (``docs/hosts.md``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from git_theta.git import pointer_refs
from tests.git.test_push_protection import BASE, FIRST, PATH, needed, shared
from tests.support import checkpoints, hosts
from tests.support.hosts import Host, Rules
from tests.support.repo import Repo

__all__ = ["shared"]

NAMES = sorted(BASE)


def changed(*names: str) -> bytes:
    """The first version with some of its tensors changed."""
    other = checkpoints.finetuned(BASE, seed=3)
    return checkpoints.safetensors({**BASE, **{name: other[name] for name in names}})


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
        collected = host.collect()
        assert not kept & collected
        assert theta_here(shared, "gc").returncode == 0
        assert theta_here(shared, "fsck", "--remote").returncode == 0

        fresh = Repo.clone(url, tmp_path / "fresh")
        assert fresh.read(PATH) == merged
        fresh.git("checkout", "-q", theirs)
        assert fresh.read(PATH) == changed(NAMES[0])
        took = host.bare().git(
            "for-each-ref", "--format=%(refname)", "refs/theta", pointer_refs.BRANCHES
        )
        branches = rules is hosts.HUGGING_FACE
        assert all(ref.startswith(pointer_refs.BRANCHES) is branches for ref in took.split())


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
