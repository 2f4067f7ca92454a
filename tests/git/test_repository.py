"""Finding repositories and reading them, in all the places where git starts us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta.errors import GitError, NotARepositoryError, SettingsError, UntrustedRepositoryError
from git_theta.git import Repository
from tests.support.repo import Repo

ODD = 'dir with space/ünïcode\n"quoted"\t.txt'


@pytest.fixture
def found(repo: Repo):
    with Repository.discover(repo.path) as found:
        yield found


def places(found: Repository) -> tuple[Path, Path, Path | None]:
    return found.git_dir, found.common_dir, found.work_tree


# --- discover ------------------------------------------------------------------------------------


def test_from_the_top_and_from_a_folder_below(repo):
    (repo.path / "a/b").mkdir(parents=True)
    expected = (repo.path / ".git", repo.path / ".git", repo.path)
    for start in (repo.path, repo.path / "a/b"):
        assert places(Repository.discover(start)) == expected


def test_from_the_current_folder(repo, monkeypatch):
    monkeypatch.chdir(repo.path)
    assert Repository.discover().work_tree == repo.path


def test_a_bare_repository_has_no_work_tree(remote):
    found = Repository.discover(remote.path)
    assert places(found) == (remote.path, remote.path, None)
    assert found.top == remote.path
    assert found.theta_dir == remote.path / "theta"


def test_inside_the_git_directory(repo):
    found = Repository.discover(repo.path / ".git")
    assert (found.git_dir, found.work_tree) == (repo.path / ".git", None)


def test_a_linked_work_tree_shares_the_common_directory(repo, tmp_path):
    repo.commit()
    repo.git("worktree", "add", "-q", str(tmp_path / "second"))
    found = Repository.discover(tmp_path / "second")
    git = repo.path / ".git"
    assert places(found) == (git / "worktrees/second", git, tmp_path / "second")
    assert found.theta_dir == git / "theta"
    assert found.index_file == git / "worktrees/second/index"


def test_a_submodule_has_its_own(repo, make_repo):
    inner = make_repo("inner")
    inner.commit()
    repo.git("submodule", "add", "-q", str(inner.path), "sub")
    found = Repository.discover(repo.path / "sub")
    modules = repo.path / ".git/modules/sub"
    assert places(found) == (modules, modules, repo.path / "sub")


def test_no_repository(tmp_path):
    with pytest.raises(NotARepositoryError, match=str(tmp_path)) as caught:
        Repository.discover(tmp_path)
    assert caught.value.hint == "git init"


def test_a_repository_of_another_user(repo, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    (repo.path / "sub").mkdir()
    with pytest.raises(UntrustedRepositoryError, match="another user") as caught:
        Repository.discover(repo.path / "sub")
    assert caught.value.hint == f"git config --global --add safe.directory {repo.path}"


def test_a_path_with_a_line_break_is_refused_not_misread(make_repo):
    made = make_repo("two\nlines")
    with pytest.raises(GitError, match="line break"):
        Repository.discover(made.path)


REPORT = """
import os, sys
from git_theta.git import Repository
with Repository.discover() as found:
    head = found.git("rev-parse", "HEAD", check=False).decode().strip()
    print(found.git_dir, found.common_dir, found.work_tree, head, sep="|", file=open({out!r}, "a"))
"""


@pytest.fixture
def reporting(tmp_path):
    """A hook or filter script that writes down what it finds, and that file."""
    script, out = tmp_path / "report.py", tmp_path / "report.txt"
    script.write_text(REPORT.format(out=str(out)))
    return f'"{sys.executable}" "{script}"', out


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def hook(git_dir: Path, name: str, command: str) -> None:
    file = git_dir / "hooks" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{command}\n")
    file.chmod(0o755)


@pytest.mark.parametrize("where", ["repo", "repo/folder"])
def test_from_a_hook(where, repo, remote, reporting, tmp_path):
    command, out = reporting
    repo.commit_files({"folder/file": b"x"})
    hook(repo.path / ".git", "pre-push", command)
    repo.git("push", "-q", str(remote.path), "main", cwd=tmp_path / where)
    git = repo.path / ".git"
    assert out.read_text().strip() == f"{git}|{git}|{repo.path}|{repo.git('rev-parse', 'HEAD')}"


def test_from_a_hook_in_a_linked_work_tree(repo, remote, reporting, tmp_path):
    command, out = reporting
    repo.commit()
    second = tmp_path / "second"
    repo.git("worktree", "add", "-q", str(second))
    hook(repo.path / ".git", "pre-push", command)
    Repo(second).git("push", "-q", str(remote.path), "second")
    git = repo.path / ".git"
    assert out.read_text().startswith(f"{git}/worktrees/second|{git}|{second}|")


def test_from_a_hook_under_git_dir_and_git_work_tree(repo, remote, reporting, tmp_path):
    command, out = reporting
    repo.commit()
    hook(repo.path / ".git", "pre-push", command)
    env = {"GIT_DIR": "repo/.git", "GIT_WORK_TREE": "repo"}
    repo.git("push", "-q", str(remote.path), "main", cwd=tmp_path, env=env)
    head = repo.git("rev-parse", "HEAD")
    assert out.read_text().strip() == f"{repo.path}/.git|{repo.path}/.git|{repo.path}|{head}"


def test_from_a_hook_of_a_bare_repository(repo, remote, reporting):
    command, out = reporting
    hook(remote.path, "post-receive", command)
    repo.commit()
    repo.git("push", "-q", str(remote.path), "main")
    assert out.read_text().startswith(f"{remote.path}|{remote.path}|None|")


def test_from_a_filter_in_a_folder(repo, reporting):
    command, out = reporting
    repo.git("config", "filter.report.clean", f"{command} && cat")
    repo.commit_files({".gitattributes": b"*.x filter=report\n", "folder/a.x": b"x"})
    repo.write("folder/a.x", b"y")
    repo.git("add", "a.x", cwd=repo.path / "folder")
    for line in out.read_text().splitlines():
        assert line.startswith(f"{repo.path}/.git|{repo.path}/.git|{repo.path}|")


def test_relative_git_dir_holds_in_every_folder(repo, monkeypatch, tmp_path):
    repo.commit(a=b"x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", "repo/.git")
    monkeypatch.setenv("GIT_WORK_TREE", "repo")
    with Repository.discover() as found:
        assert places(found) == (repo.path / ".git", repo.path / ".git", repo.path)
        assert found.read_blob("HEAD:a") == b"x"
        assert found.environment()["GIT_DIR"] == str(repo.path / ".git")


# --- settings ------------------------------------------------------------------------------------


def test_settings_of_ours(repo, found):
    assert found.config() == {}
    repo.git("config", "theta.ChunkSize", "1m")
    repo.git("config", "theta.merge.Strategy", "ties\nand more")
    repo.git("config", "--global", "theta.threads", "2")
    repo.git("config", "theta.threads", "3")
    file = repo.path / ".git/config"
    file.write_text(f"{file.read_text()}[theta]\n\tpointers\n[thetaother]\n\tx = 1\n")
    assert found.config() == {
        "theta.chunksize": "1m",
        "theta.merge.strategy": "ties\nand more",
        "theta.threads": "3",
        "theta.pointers": "",
    }


def test_a_setting_of_the_command_line_counts(found, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "theta.threads")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "7")
    assert found.config() == {"theta.threads": "7"}


def test_a_damaged_configuration_is_an_error_not_a_default(repo, found):
    (repo.path / ".git/config").write_text("[theta\n")
    with pytest.raises(GitError, match="config"):
        found.config()


def test_one_setting(repo, found):
    assert found.config_value("theta.x") is None
    repo.git("config", "theta.x", "two\nlines")
    assert found.config_value("theta.x") == "two\nlines"
    repo.git("config", "theta.x", "")
    assert found.config_value("theta.x") == ""


def test_settings_of_the_team(repo, found, remote):
    assert found.team_settings() == {}
    repo.write(".theta.toml", '[merge]\nstrategy = "tïes"\n'.encode())
    assert found.team_settings() == {"merge": {"strategy": "tïes"}}
    assert Repository.discover(remote.path).team_settings() == {}


@pytest.mark.parametrize("bad", [b"no toml", b"\xff\xfe = 1"])
def test_a_damaged_team_file_is_named(bad, repo, found):
    repo.write(".theta.toml", bad)
    with pytest.raises(SettingsError, match=r"\.theta\.toml"):
        found.team_settings()


def test_remotes_are_ordered_by_preference(repo, found):
    assert found.remotes() == []
    assert found.default_remote() is None
    for name in ("fork", "origin", "upstream"):
        repo.git("remote", "add", name, f"/nowhere/{name}")
    assert found.remotes() == ["origin", "fork", "upstream"]
    repo.git("config", "branch.main.remote", "upstream")
    assert found.remotes() == ["upstream", "origin", "fork"]
    repo.commit()
    repo.git("checkout", "-q", "--detach")
    repo.git("config", "remote.pushDefault", "fork")
    assert found.remotes() == ["fork", "origin", "upstream"]


REMOTES = {
    "none": [],
    "several": [
        ("remote.origin.url", "/nowhere/a"),
        ("remote.origin.url", "/nowhere/b"),
        ("remote.a.b.url", "file:///nowhere/ä b"),
        ("remote.Fork.pushurl", "/nowhere/pushed"),
        ("remote.Fork.pushurl", "/nowhere/pushed too"),
        ("remote.Fork.url", "/nowhere/fetched"),
        ("remote.bare.fetch", "+refs/*:refs/*"),
        ("remote./odd.url", "/nowhere"),
        ("remote.pushDefault", "Fork"),
    ],
    "rewritten": [
        ("remote.origin.url", "short:x"),
        ("url./nowhere/.insteadOf", "short:"),
        ("url./pushed/.pushInsteadOf", "short:"),
    ],
}


@pytest.mark.parametrize("settings", REMOTES.values(), ids=REMOTES)
@pytest.mark.parametrize("old", [False, True], ids=["", "a file of old too"])
def test_remotes_are_the_same_when_settings_are_read_once(settings, old, repo):
    for key, value in settings:
        repo.git("config", "--add", key, value)
    if old:
        (repo.path / ".git/remotes").mkdir()
        (repo.path / ".git/remotes/ancient").write_text("URL: /nowhere/ancient\n")
    with Repository.discover(repo.path) as asks, Repository.discover(repo.path) as knows:
        knows.read_settings_once()
        assert knows.remotes() == asks.remotes()
        for name in ("origin", "a.b", "Fork", "ancient", "missing"):
            assert knows.remote_urls(name, push=True) == asks.remote_urls(name, push=True), name
            if asks.has_remote(name):
                assert knows.remote_urls(name) == asks.remote_urls(name), name


# --- objects -------------------------------------------------------------------------------------


def test_resolve(repo, found):
    assert found.resolve("HEAD") is None
    commit = repo.commit_files({"a": b"x", ODD: b"odd"})
    assert found.resolve("HEAD") == found.resolve("main") == found.resolve(commit[:8]) == commit
    blob = repo.git("rev-parse", "HEAD:a")
    assert found.resolve("HEAD:a") == found.resolve(":a") == blob
    assert found.resolve(f"HEAD:{ODD}") == repo.git("hash-object", "--stdin", stdin=b"odd")
    for rev in ("nothing", "HEAD:nothing", "1" * 40, "--all", "-h", "HEAD~5", ""):
        assert found.resolve(rev) is None


def test_blobs(repo, found):
    repo.commit_files({"a": b"committed", ODD: b"odd"})
    repo.write("a", b"staged")
    repo.git("add", "a")
    assert found.read_blob("HEAD:a") == b"committed"
    assert found.read_blob(":a") == b"staged"
    assert found.read_blob(repo.git("rev-parse", ":a")) == b"staged"
    assert found.read_blob(f"HEAD:{ODD}") == b"odd"
    assert found.read_blob(f":{ODD}") == b"odd"
    for spec in (":b", "HEAD:b", "HEAD", "HEAD:dir with space", f"HEAD:{ODD}x"):
        assert found.read_blob(spec) is None
    assert found.read_blob("HEAD:a", limit=8) is None


def test_without_an_index_nothing_is_in_it(found):
    assert not found.index_file.exists()
    assert found.read_blob(":a") is None


def test_paths_that_look_like_stages_are_paths(repo, found):
    repo.commit_files({"1:a": b"odd name"})
    assert found.read_blob(":1:a") == b"odd name"


def test_an_index_that_changes_meanwhile_is_seen(repo, found):
    for content in (b"first", b"second", b"third"):
        repo.write("a", content)
        repo.git("add", "a")
        assert found.read_blob(":a") == content
    repo.git("rm", "-q", "--cached", "a")
    assert found.read_blob(":a") is None


def test_a_temporary_index_is_the_index(repo, found, tmp_path, monkeypatch):
    repo.commit(a=b"x")
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    repo.git("read-tree", "HEAD")
    repo.write("a", b"elsewhere")
    repo.git("add", "a")
    assert found.index_file == tmp_path / "index"
    assert found.read_blob(":a") == b"elsewhere"


def test_files_of_trees(repo, found):
    assert found.tree("HEAD") == []
    repo.write("link-target", b"x")
    (repo.path / "link").symlink_to("link-target")
    repo.git("add", "link")
    repo.commit_files({"run": b"#!", ODD: b"odd"})
    repo.git("update-index", "--add", "--chmod=+x", "run")
    odd_bytes = os.fsdecode(b"bytes-\xff")
    repo.write(odd_bytes, b"bytes")
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "more")
    tree = {entry.path: entry.blob for entry in found.tree("HEAD")}
    assert set(tree) == {"run", ODD, "link-target", odd_bytes}
    assert tree["run"] == repo.git("rev-parse", "HEAD:run")
    assert {entry.path for entry in found.tree("HEAD~1")} == {"run", ODD}
    assert found.tree("no-such-branch") == []


def test_trees_are_whole_wherever_one_stands(repo):
    repo.commit_files({"a": b"x", "folder/b": b"y"})
    found = Repository.discover(repo.path / "folder")
    assert [entry.path for entry in found.tree("HEAD")] == ["a", "folder/b"]
    assert [entry.path for entry in found.index()] == ["a", "folder/b"]


def test_submodules_are_no_files(repo, found, make_repo):
    inner = make_repo("inner")
    inner.commit()
    repo.git("submodule", "add", "-q", str(inner.path), "sub")
    repo.commit()
    assert [entry.path for entry in found.tree("HEAD")] == [".gitmodules"]
    assert [entry.path for entry in found.index()] == [".gitmodules"]


def test_the_index_has_stages(repo, found):
    assert found.index() == []
    repo.commit(a=b"base")
    repo.git("checkout", "-q", "-b", "other")
    repo.commit(a=b"theirs")
    repo.git("checkout", "-q", "main")
    repo.commit(a=b"ours")
    assert [entry.stage for entry in found.index()] == [0]
    repo.process("merge", "other")
    stages = {entry.stage: found.read_blob(entry.blob) for entry in found.index()}
    assert stages == {1: b"base", 2: b"ours", 3: b"theirs"}


def test_importing_it_costs_little():
    """It is on the path of every ``git add``: no GitPython (0.17 s), no torch, no rich."""
    code = "import sys, git_theta.git; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not {"git", "torch", "rich", "click"} & set(loaded.stdout.decode().split())
