from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from git_theta.errors import GitError
from git_theta.git import config
from tests.support.repo import Repo


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "it's $HOME & more/git-theta"
    file.parent.mkdir()
    file.write_text('#!/bin/sh\necho "$@"\n')
    file.chmod(0o755)
    return file


@pytest.fixture
def git_dir(repo: Repo) -> Path:
    return repo.path / ".git"


def listed(repo: Repo, scope: str) -> dict[str, str]:
    keys = repo.process("config", f"--{scope}", "--list", "--name-only").stdout.decode().split()
    ours = [key for key in keys if "theta" in key]
    return {key: repo.git("config", f"--{scope}", "--get-all", key) for key in ours}


@pytest.mark.parametrize("scope", ["local", "global", "system"])
def test_each_scope_gets_everything_and_gives_it_back(scope, repo, git_dir, program, monkeypatch):
    monkeypatch.delenv("GIT_CONFIG_NOSYSTEM")
    before = listed(repo, scope)
    config.install(scope, program, git_dir)
    assert listed(repo, scope) == config.settings(program)
    state = config.state(git_dir)
    assert (state.scope, state.program, state.wrong) == (scope, program, ())
    assert state.installed

    assert config.uninstall(scope, git_dir) == ["filter.theta", "merge.theta", "mergetool.theta"]
    assert listed(repo, scope) == before == {}
    assert config.uninstall(scope, git_dir) == []


def test_sh_finds_the_program_in_what_is_written(repo, program):
    config.install("global", program)
    written = repo.git("config", "filter.theta.process")
    shown = repo.git("-c", f"alias.try=!{written}", "try", "more")
    assert shown == "filter-process more"
    driver = repo.git("config", "merge.theta.driver")
    assert shlex.split(driver) == [str(program), "merge-driver", "%O", "%A", "%B", "%L", "%P"]


def test_only_the_process_is_configured_and_required(repo, git_dir, program):
    assert set(config.settings(program)) >= {"filter.theta.required", "filter.theta.process"}
    for key in ("filter.theta.clean", "filter.theta.smudge"):
        repo.git("config", key, "older")
    config.install("local", program, git_dir)
    assert not {"filter.theta.clean", "filter.theta.smudge"} & set(listed(repo, "local"))
    assert repo.git("config", "filter.theta.required") == "true"


def test_installing_again_leaves_one_of_each(repo, git_dir, program, tmp_path):
    repo.git("config", "--add", "filter.theta.process", "one")
    repo.git("config", "--add", "filter.theta.process", "two")
    config.install("local", program, git_dir)
    config.install("local", tmp_path / "moved", git_dir)
    assert listed(repo, "local") == config.settings(tmp_path / "moved")


def test_outside_of_a_repository(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.install("global", program)
    assert config.state().installed


def test_settings_of_others_stay(repo, git_dir, program):
    repo.git("config", "filter.thetabeta.process", "other")
    repo.git("config", "filter.lfs.process", "git-lfs filter-process")
    config.install("local", program, git_dir)
    config.uninstall("local", git_dir)
    assert repo.git("config", "filter.thetabeta.process") == "other"
    assert repo.git("config", "filter.lfs.process") == "git-lfs filter-process"


def test_nothing_is_installed(git_dir):
    state = config.state(git_dir)
    assert (state.scope, state.origin, state.program, state.installed) == (None, None, None, False)
    assert set(state.wrong) == set(config.settings(Path("x")))


def test_the_scope_that_counts_is_the_one_that_is_told(repo, git_dir, program, tmp_path, home):
    config.install("global", tmp_path / "elsewhere")
    state = config.state(git_dir)
    assert (state.scope, state.runnable) == ("global", False)
    assert state.origin == f"file:{home / '.gitconfig'}"
    config.install("local", program, git_dir)
    assert (config.state(git_dir).scope, config.state(git_dir).program) == ("local", program)


@pytest.mark.parametrize("how", ["gone", "not executable"])
def test_a_stale_program_is_found(how, git_dir, program):
    config.install("local", program, git_dir)
    if how == "gone":
        program.unlink()
    else:
        program.chmod(0o644)
    state = config.state(git_dir)
    assert (state.program, state.runnable, state.installed) == (program, False, False)


@pytest.mark.parametrize("value", ["'unfinished", ""])
def test_a_setting_that_no_shell_takes(value, repo, git_dir):
    repo.git("config", "filter.theta.process", value)
    state = config.state(git_dir)
    assert (state.program, state.installed) == (None, False)
    assert state.wrong == ("filter.theta.process",)


@pytest.mark.parametrize(
    ("key", "value"),
    [("filter.theta.required", "false"), ("merge.theta.driver", "true"), ("merge.theta.name", "x")],
)
def test_what_differs_is_told(key, value, repo, git_dir, program):
    config.install("local", program, git_dir)
    repo.git("config", key, value)
    state = config.state(git_dir)
    assert state.wrong == (key,)
    assert not state.installed


def test_a_file_that_cannot_be_written_is_an_error_with_another_way(program, monkeypatch, tmp_path):
    monkeypatch.delenv("GIT_CONFIG_NOSYSTEM")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "nowhere/gitconfig"))
    with pytest.raises(GitError, match="lock") as caught:
        config.install("system", program)
    assert "--global" in caught.value.hint
