"""Errors: one exit code each, drawn in the module's docstring and in the documentation."""

from __future__ import annotations

import errno
import os
import re

import pytest

from git_theta import errors
from git_theta.cli.exit_handling import report
from git_theta.errors import MissingObjectError, StoreError, ThetaError, naming


def family(kind: type[ThetaError]) -> list[type[ThetaError]]:
    return [kind, *(member for child in kind.__subclasses__() for member in family(child))]


ALL = [kind for kind in family(ThetaError) if kind.__module__ == errors.__name__]


def test_the_drawing_is_the_truth() -> None:
    drawn = re.findall(r"(\w+Error)\s+(\d+)  ", errors.__doc__ or "")
    assert dict(drawn) == {kind.__name__: str(kind.exit_code) for kind in ALL}


def test_exit_codes_are_unique_and_free() -> None:
    codes = [kind.exit_code for kind in ALL]
    assert len(set(codes)) == len(codes)
    # 0 success, 3 a defect, 126.. the shell's and signals'.
    assert all(0 < code < 126 and code != 3 for code in codes)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_says_what_it_means(kind: type[ThetaError]) -> None:
    assert kind.__doc__
    assert kind.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ThetaError("it is so"), "it is so"),
        (ThetaError("it is so", path="a b"), "a b: it is so"),
        (ThetaError("it is so", hint="mend it"), "it is so\n  hint: mend it"),
        (ThetaError("it is so", path="p", hint="mend it"), "p: it is so\n  hint: mend it"),
    ],
)
def test_text(error: ThetaError, text: str) -> None:
    assert str(error) == text


def test_the_deepest_layer_names_the_path() -> None:
    error = MissingObjectError("gone")
    assert error.at("outer") is error
    assert error.path == "outer"
    assert error.at("outermost").path == "outer"


def test_an_error_names_the_innermost_path() -> None:
    with pytest.raises(ThetaError) as found, naming("outer"), naming("inner"):
        raise ThetaError("broken")
    assert found.value.path == "inner"
    with pytest.raises(ThetaError) as found, naming("outer"):
        raise ThetaError("broken", path="own")
    assert found.value.path == "own"


def test_what_the_system_forbids_is_no_defect(capsys) -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "model.pt")
    assert report(error) == StoreError.exit_code
    assert capsys.readouterr().err.startswith("git-theta: model.pt: permission denied\n  hint: ")
