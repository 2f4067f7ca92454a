from __future__ import annotations

from pathlib import Path

import pytest

from git_theta.errors import GitError, MissingToolError
from git_theta.git import command


def test_output_is_bytes_as_they_came():
    assert command.run(["printf", r"a\377\0b"]) == b"a\xff\0b"


def test_input_goes_in_and_without_it_there_is_none():
    assert command.run(["cat"], stdin=b"x" * 200_000) == b"x" * 200_000
    assert command.run(["cat"]) == b""


def test_the_environment_is_changed_not_replaced(monkeypatch):
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("GONE", "gone")
    out = command.run(
        ["sh", "-c", 'echo "$KEPT:$NEW:${GONE-unset}"'], env={"NEW": "new", "GONE": None}
    )
    assert out == b"kept:new:unset\n"


def test_it_runs_where_it_is_told_to(tmp_path: Path):
    assert command.run(["pwd", "-P"], cwd=tmp_path).decode().strip() == str(tmp_path.resolve())


def test_a_failure_carries_the_programs_own_words():
    with pytest.raises(GitError, match="sh -e failed: it is broken"):
        command.run(["sh", "-e", "-c", "echo it is broken >&2; exit 3"])


def test_a_failure_without_words_has_the_status():
    with pytest.raises(GitError, match="exit status 3"):
        command.run(["sh", "-c", "exit 3"])


def test_a_failure_names_the_git_command_not_its_options(tmp_path):
    with pytest.raises(GitError, match=r"^git rev-parse failed: .*not a git repository"):
        command.run(["git", "-c", "a.b=c", "rev-parse", "--git-dir"], cwd=tmp_path)


def test_unchecked_failures_give_what_there_is():
    assert command.run(["sh", "-c", "echo some; exit 3"], check=False) == b"some\n"
    result = command.attempt(["sh", "-c", "echo some; echo more >&2; exit 3"])
    assert (result.status, result.out, result.err) == (3, b"some\n", "more\n")


def test_errors_can_go_to_the_user(capfd):
    with pytest.raises(GitError, match="exit status 1"):
        command.run(["sh", "-c", "echo to the user >&2; exit 1"], show_errors=True)
    assert capfd.readouterr().err == "to the user\n"


@pytest.mark.parametrize(("program", "hint"), [("git", "install git"), ("no-such-tool", None)])
def test_a_missing_program_is_named_with_what_to_do(program, hint, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=program) as caught:
        command.run([program])
    assert hint is None or hint in caught.value.hint


def test_a_program_that_may_not_be_run_is_missing(tmp_path):
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(MissingToolError):
        command.run([str(program)])


def test_a_folder_that_is_gone_is_not_a_missing_program(tmp_path):
    with pytest.raises(GitError, match="folder") as caught:
        command.run(["git", "version"], cwd=tmp_path / "gone")
    assert not isinstance(caught.value, MissingToolError)


@pytest.mark.parametrize("raw", [b"plain", "größe".encode(), b"odd \xff\xfe bytes"])
def test_text_of_any_bytes_survives(raw):
    assert command.encode(command.decode(raw)) == raw
