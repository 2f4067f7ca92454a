from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from git_theta.errors import GitError
from git_theta.git import config
from tests.support.repo import Repo


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return executable(tmp_path / "it's $HOME & more/git-theta", 'echo "$@"')


def executable(file: Path, text: str) -> Path:
    file.parent.mkdir()
    file.write_text(f"#!/bin/sh\n{text}\n")
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
    assert listed(repo, scope) == config.settings(program, scope)
    state = config.state(git_dir)
    assert (state.scope, state.program, state.wrong) == (scope, program, ())
    assert state.installed

    assert config.uninstall(scope, git_dir) == [
        "filter.theta",
        "diff.theta",
        "merge.theta",
        "mergetool.theta",
    ]
    assert listed(repo, scope) == before == {}
    assert config.uninstall(scope, git_dir) == []


def sh(text: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What git does with a command that is configured."""
    env = {**os.environ, "PATH": f"{path}:/usr/bin:/bin"} if path else None
    return subprocess.run(["sh", "-c", text], env=env, capture_output=True, text=True, check=False)


def test_sh_finds_the_program_in_what_is_written(repo, program):
    config.install("global", program)
    assert sh(repo.git("config", "filter.theta.process")).stdout == "filter-process\n"
    driver = repo.git("config", "merge.theta.driver")
    assert sh(driver.replace("%P", "--help")).stdout == "merge-driver -- %O %A %B %L --help\n"


def test_git_replaces_nothing_in_the_path_of_the_program(repo, tmp_path):
    program = executable(tmp_path / "100%P/git-theta", 'echo driven "$@" >&2; exit 1')
    config.install("global", program)
    repo.commit_files({".gitattributes": b"f merge=theta\n", "f": b"1\n"})
    repo.git("checkout", "-q", "-b", "side")
    repo.commit_files({"f": b"2\n"})
    repo.git("checkout", "-q", "main")
    repo.commit_files({"f": b"3\n"})
    assert b"driven merge-driver -- .merge_file" in repo.process("merge", "side").stderr


GONE = {
    "deleted": None,
    "not executable": "",
    "its Python is deleted": "#!/no/such/python\n",
    "its package is deleted": "#!/usr/bin/env python3\nimport no_such_module\n",
}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize(
    ("key", "verb"),
    [("filter.theta.process", "filter-process"), ("merge.theta.driver", "merge-driver")],
)
def test_a_program_that_cannot_start_gives_way_to_path_or_says_what_to_do(
    how, key, verb, program, tmp_path
):
    program.unlink()
    if GONE[how] is not None:
        program.write_text(GONE[how])
        program.chmod(0o755 if GONE[how] else 0o644)
    written = config.settings(program, "local")[key]
    nowhere = sh(written, tmp_path / "nowhere")
    assert nowhere.returncode == 127
    assert "git theta install" in nowhere.stderr
    assert "git config --local --remove-section filter.theta" in nowhere.stderr
    executable(tmp_path / "bin/git-theta", 'echo "from PATH: $1"; exit 34')
    found = sh(written, tmp_path / "bin")
    assert (found.returncode, found.stdout) == (34, f"from PATH: {verb}\n")


def test_git_names_the_file_when_nothing_can_start(repo, program, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without the git-theta of this environment
    config.install("global", program)
    program.unlink()
    repo.commit_files({".gitattributes": b"*.pt filter=theta\n"})
    repo.write("a.pt", b"x")
    done = repo.process("add", "a.pt")
    assert done.returncode == 128
    assert b"git config --global --remove-section filter.theta" in done.stderr
    assert b"a.pt: clean filter 'theta' failed" in done.stderr
    assert b"hung up" not in done.stderr
    repo.git("config", "--global", "--remove-section", "filter.theta")
    repo.git("add", "a.pt")


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
    assert listed(repo, "local") == config.settings(tmp_path / "moved", "local")


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
