"""Every test runs git in isolation; fixtures for repositories, remotes and servers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import isolation
from tests.support.repo import Repo
from tests.support.servers import Server

# As in git_theta.__main__, for the same reason; workers of pytest-xdist read it when they start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Torch's threads on a few numbers, waiting for each other on two busy cores: 42 s instead of
# 2.6 s for a test of statistics. What depends on their number sets it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# An example that takes more than 0.2 s on a busy machine is no failure, and was one.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

# Modules of tests/git whose children (filters, hooks, commands) are measured for coverage: the
# tests of each command, which between them run nearly all that children alone run. Measuring costs
# 0.1 s of processor time for each child, as much as a filter takes; the others start thousands.
_MEASURED = {
    *("test_blame", "test_commands", "test_diff", "test_diff_driver", "test_du", "test_repair"),
    *("test_export_lora", "test_filter_protocol", "test_hooks", "test_merge_safety"),
    *("test_migrate", "test_repository", "test_similar", "test_status", "test_update"),
    "test_whole_files",
}

_REAL_HOME = Path.home()
_numbers = itertools.count()


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def home(_homes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty HOME for this test; fails the test that writes git configuration to the real one."""
    before = isolation.snapshot(_REAL_HOME)
    own = _homes / str(next(_numbers))
    for name, value in isolation.environment(own).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    yield own
    assert isolation.snapshot(_REAL_HOME) == before, f"something was written below {_REAL_HOME}"


@pytest.fixture(autouse=True)
def _children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are measured for coverage in some modules only."""
    if request.path.stem not in _MEASURED:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def make_repo(tmp_path: Path) -> Callable[..., Repo]:
    """Makes a repository of a given name (and options of ``git init``) in this test's folder."""

    def make(name: str, *options: str) -> Repo:
        return Repo.init(tmp_path / name, *options)

    return make


@pytest.fixture
def repo(make_repo: Callable[..., Repo]) -> Repo:
    """An empty repository, branch main."""
    return make_repo("repo")


@pytest.fixture
def remote(make_repo: Callable[..., Repo]) -> Repo:
    """A bare repository to push to."""
    return make_repo("remote.git", "--bare")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Git and LFS over HTTP on the loopback interface."""
    with Server(tmp_path / "server") as running:
        yield running
