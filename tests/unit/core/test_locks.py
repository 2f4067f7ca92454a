"""Locks between processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta.core.locks import exclusive_lock, is_locked
from git_theta.errors import LockedError, StoreError
from tests.support.failures import run_together

_COUNT_UP = """
import sys
from pathlib import Path
from git_theta.core.locks import exclusive_lock
counter = Path(sys.argv[1])
print("ready", flush=True)
input()
for _ in range(200):
    with exclusive_lock(counter.with_name("lock")):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


class TestLock:
    def test_excludes_other_processes(self, tmp_path: Path) -> None:
        counter = tmp_path / "counter"
        counter.write_text("0")
        run_together(_COUNT_UP, [[counter]] * 3)
        assert counter.read_text() == "600"

    def test_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StoreError), exclusive_lock(tmp_path / "file" / "lock"):
            pytest.fail("locked")

    def test_is_waited_for_no_longer_than_patience(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        with exclusive_lock(path):
            assert is_locked(path)
            with pytest.raises(LockedError, match="holds this lock"), exclusive_lock(path, 0.05):
                pytest.fail("locked twice")
        assert not is_locked(path)
