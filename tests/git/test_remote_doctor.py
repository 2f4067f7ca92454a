"""`git theta doctor --remote` finds what would make a push or a fetch fail, without pushing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from git_theta.git import pointer_refs
from tests.git.test_push_protection import shared
from tests.support import hosts
from tests.support.hosts import Host
from tests.support.repo import Repo

__all__ = ["shared"]

DEAD = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Plant:
    """A fault: settings of the clone, HTTP answers of the host, and more; and what is found.

    ``{url}`` stands for the remote's URL, ``{host}`` for the host's.
    """

    name: str
    check: str
    words: str
    fix: str
    settings: dict[str, str] = field(default_factory=dict)
    refuse: dict[str, str] = field(default_factory=dict)
    work: Callable[[Repo, Host], object] = lambda repo, host: None


def lose_an_object(_repo: Repo, host: Host) -> None:
    min(host.objects().values()).unlink()


def lose_the_pointers(_repo: Repo, host: Host) -> None:
    for ref in host.bare().git("for-each-ref", "--format=%(refname)", "refs/theta").split():
        host.bare().git("update-ref", "-d", ref)


PLANTS = (
    Plant(
        "a host without LFS",
        "objects",
        "(HTTP 404)",
        "git lfs env",
        refuse={"/info/lfs/": "404 Not Found"},
    ),
    Plant(
        "no server for batches",
        "objects",
        "not a Git LFS server",
        "git lfs env",
        refuse={"/objects/batch": "200 OK"},
    ),
    Plant(
        "no right to write",
        "objects",
        "(HTTP 403)",
        "write permission",
        refuse={"/objects/batch": "403 Forbidden"},
    ),
    Plant(
        "too many requests",
        "refs",
        "asks to wait",
        "wait some minutes",
        refuse={"/info/refs": "429 Too Many Requests"},
    ),
    Plant(
        "no password",
        "refs",
        "asks for a name and a password",
        "git help credentials",
        refuse={"/": "401 Unauthorized"},
    ),
    Plant(
        "a wrong lfs.url",
        "objects",
        "cannot be reached",
        "git lfs env",
        settings={"lfs.url": f"{DEAD}/lfs"},
    ),
    Plant(
        "insteadOf",
        "refs",
        "cannot be reached",
        "git remote -v",
        settings={f"url.{DEAD}/.insteadOf": "{host}/"},
    ),
    Plant(
        "another place to push to",
        "url",
        "fetches come from",
        "git remote set-url --push origin",
        settings={"remote.origin.pushurl": "{host}/team/other.git"},
    ),
    Plant(
        "locks that no host has",
        "locks",
        "before each push",
        "locksverify",
        settings={"lfs.{url}/info/lfs.locksverify": "true"},
        refuse={"/locks": "404 Not Found"},
    ),
    Plant(
        "no hook",
        "hooks",
        "pre-push",
        "git theta install",
        settings={"core.hooksPath": "nowhere"},
    ),
    Plant(
        "an agent without a program",
        "transfer agent",
        "path is not set",
        "git config --unset",
        settings={"lfs.standalonetransferagent": "mine"},
    ),
    Plant(
        "an agent that is not installed",
        "transfer agent",
        "does not exist",
        "git config --unset",
        settings={"lfs.customtransfer.xet.path": "git-xet-of-nobody"},
    ),
    Plant(
        "objects too large",
        "sizes",
        "github.com takes",
        "git config theta.objectSize",
        settings={
            "remote.origin.url": "https://github.com/team/model.git",
            "url.{host}/.insteadOf": "https://github.com/",
            "theta.objectSize": "3g",
        },
    ),
    Plant(
        "objects that are not there",
        "objects",
        "origin lacks 1 of",
        "git theta push --all origin",
        work=lose_an_object,
    ),
    Plant(
        "objects without pointers",
        "pointers",
        "without one",
        "git theta push --all origin",
        work=lose_the_pointers,
    ),
)


@pytest.fixture
def host(shared: Repo, tmp_path):
    with Host(tmp_path / "host", hosts.GITHUB) as running:
        shared.git("remote", "set-url", "origin", running.repository())
        shared.git("push", "-q", "origin", "main")
        yield running


def test_each_fault_is_found(host: Host, shared: Repo, theta_here, tmp_path):
    host.repository("team/other.git")
    url = shared.git("remote", "get-url", "origin")
    kept = tmp_path / "config"
    shutil.copy(shared.path / ".git/config", kept)

    def wrong() -> list[dict[str, str]]:
        done = theta_here(shared, "doctor", "--remote", "origin", "--json")
        findings = json.loads(done.stdout)
        found = [finding for finding in findings if not finding["ok"]]
        assert done.returncode == bool(found), done.stderr
        return found

    assert wrong() == []
    before, unseen = len(host.requests), []
    for plant in PLANTS:
        for key, value in plant.settings.items():
            shared.git("config", key.format(url=url, host=host.url), value.format(host=host.url))
        host.refuse = dict(plant.refuse)
        plant.work(shared, host)
        found = wrong()
        told = [f for f in found if f["check"] == plant.check and plant.words in f["detail"]]
        unseen += [] if told and plant.fix in told[0]["fix"] else [(plant.name, found)]
        host.refuse = {}
        shutil.copy(kept, shared.path / ".git/config")
    assert unseen == []
    assert not [path for method, path in host.requests[before:] if method == "PUT"]
    # The last two faults are still there; what was proposed for them mends them.
    assert theta_here(shared, "push", "--all", "origin").returncode == 0
    assert wrong() == []
    assert host.bare().git("for-each-ref", pointer_refs.NAMESPACE)


@pytest.mark.parametrize("url", ["http://[", "http://x/'; touch pwned; '", "--upload-pack=x"])
def test_an_endpoint_that_a_stranger_chose_is_only_shown(url, shared: Repo, theta_here):
    shared.write(".lfsconfig", f'[lfs]\n\turl = "{url}"\n'.encode())
    shared.git("config", f"lfs.{url}.locksverify", "true")
    shared.git("remote", "set-url", "origin", f"{DEAD}/x.git")
    done = theta_here(shared, "doctor", "--remote", "origin")
    assert done.returncode == 1
    assert "fix: git remote -v" in done.stdout
    assert "; touch pwned; '" not in done.stdout.replace("""'"'"'""", "")


def test_a_remote_that_is_not_there_is_said_to_be(shared: Repo, theta_here):
    done = theta_here(shared, "doctor", "--remote", "nobody")
    assert done.returncode == 1
    assert "there is no remote called nobody" in done.stdout
    assert "git remote -v" in done.stdout
