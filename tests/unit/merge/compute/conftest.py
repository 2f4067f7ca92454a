from __future__ import annotations

import pytest

from git_theta.git import Repository
from tests.support.merges import Merger


@pytest.fixture
def opened(repo, monkeypatch):
    monkeypatch.chdir(repo.path)
    with Repository.discover() as found:
        yield found


@pytest.fixture
def merger(opened, tmp_path):
    return Merger(opened, tmp_path / "theta")
