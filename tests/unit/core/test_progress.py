"""Progress that nobody watches."""

from __future__ import annotations

import inspect

import pytest

from git_theta.core.progress import NullProgress, Progress


def test_silent_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    progress: Progress = NullProgress()
    progress.start("work", 10)
    progress.advance(10)
    progress.finish()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["start", "advance", "finish"])
def test_silent_offers_what_the_protocol_asks(method: str) -> None:
    offered, asked = getattr(NullProgress, method), getattr(Progress, method)
    assert inspect.signature(offered) == inspect.signature(asked)
