"""The harness of ``scripts/reliability`` in short: a few faults of each kind, and no damage done.

The long form goes through every call; its figures are in ``docs/reliability.md``.
"""

from __future__ import annotations

import shutil

import pytest

from harness import damage, pairs, together
from harness.faults import Faults
from harness.points import Points, spread
from harness.scenes import SCENES
from harness.world import FILE, BrokenError

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Points:
    return Points(tmp_path_factory.mktemp("harness"), merges=False)


@pytest.mark.parametrize(
    ("name", "action"),
    [("add", "enospc"), ("commit", "kill"), ("checkout", "kill"), ("push", "kill"), ("gc", "eio")],
)
def test_a_fault_loses_nothing(points, name, action):
    tallies = list(points.go(SCENES[name], action, most=3))
    assert tallies[-1].points == 3
    assert tallies[-1].calls > 20  # the library sees what the command does
    assert tallies[-1].failed  # and makes it fail
    assert tallies[-1].problems == []


@pytest.mark.parametrize(("first", "second"), [("add", "gc"), ("gc", "add"), ("push", "gc")])
def test_a_command_that_runs_while_another_is_stopped(points, first, second):
    tallies = list(pairs.go(points, SCENES[first], SCENES[second], most=2))
    assert tallies[-1].points == 2
    assert tallies[-1].calls > 10
    assert tallies[-1].problems == []


def test_points_are_spread_evenly():
    assert list(spread(3, 5)) == [1, 2, 3]
    assert list(spread(9, 3)) == [1, 5, 9]
    assert list(spread(9, 1)) == [1]


def test_the_harness_notices_a_loss(points):
    world = points.world
    world.restore(points.template)
    for file in (world.work / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BrokenError):
        world.check_history()
    with pytest.raises(BrokenError):
        world.check_fsck()


def test_a_kill_stops_a_command_at_the_call(points, tmp_path):
    world = points.world
    world.restore(points.template)
    world.write("v4")
    faults = Faults(tmp_path)
    done = faults.run(
        ["git", "add", FILE], world.work, world.root, world.environment, at=5, action="kill"
    )
    assert done.status < 0
    assert done.calls >= 5


def test_damaged_files_are_named_and_fetched_again(tmp_path):
    tally = damage.run(tmp_path, rounds=1, seed=0, most=3)
    assert tally.damaged == 3
    assert tally.problems == []


def test_commands_at_once_lose_nothing(tmp_path):
    tally = together.run(tmp_path, seconds=6, processes=3, seed=1)
    assert tally.commands > 6
    assert tally.problems == []
