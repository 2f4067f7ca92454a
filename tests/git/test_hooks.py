"""Our hooks beside those of users, git-lfs and hook managers, run by real git."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from git_theta.errors import HookError, ThetaError
from git_theta.git import Repository, hooks
from tests.support.failures import on_tmpfs
from tests.support.repo import Repo

USER_HOOK = """#!/bin/sh
echo "user $*" >> {log}
cat >> {log}
exit {status}
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log with 'quotes'.txt"


@pytest.fixture
def program(tmp_path: Path, log: Path) -> Path:
    """Stands where git-theta would: writes down how it was called, in a path that needs quoting."""
    file = tmp_path / "a $folder with 'odd' characters/git-theta"
    file.parent.mkdir()
    executable(
        file,
        f'#!/bin/sh\necho "theta $*" >> {shlex.quote(str(log))}\ncat >> {shlex.quote(str(log))}\n',
    )
    return file


def executable(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def user_hook(log: Path, status: int = 0) -> str:
    return USER_HOOK.format(log=shlex.quote(str(log)), status=status)


@pytest.fixture
def found(repo: Repo):
    with Repository.discover(repo.path) as found:
        yield found


@pytest.fixture
def hook(repo: Repo) -> Path:
    return repo.path / ".git/hooks/pre-push"


@pytest.fixture
def push(repo: Repo, remote: Repo):
    """Pushes a new commit, without ever being stopped by the test's own mistakes."""
    repo.git("remote", "add", "origin", str(remote.path))

    def push():
        repo.commit()
        return repo.process("push", "-q", "origin", "main")

    return push


ALL = ["pre-push", "post-index-change", "prepare-commit-msg"]


def test_git_runs_what_is_installed_with_the_refs(found, program, push, log, remote, repo):
    assert hooks.missing(found) == ALL
    assert hooks.install(found, program) == ALL
    assert hooks.missing(found) == []
    assert push().returncode == 0
    head = repo.git("rev-parse", "HEAD")
    assert log.read_text() == (
        f"theta hook pre-push -- origin {remote.path}\n"
        f"refs/heads/main {head} refs/heads/main {'0' * 40}\n"
    )


def test_installing_twice_changes_nothing(found, program, hook):
    hooks.install(found, program)
    before = hook.stat().st_ino
    assert hooks.install(found, program) == []
    assert hooks.install_missing(found, program) == []
    assert hook.stat().st_ino == before


def test_a_hook_of_ours_that_was_edited_does_not_run_itself(found, program, hook, push):
    """It was kept as the user's, and ran what was kept, itself, until no process was left."""
    hooks.install(found, program)
    mark, own = "# git-theta hook", "export DEPTH=x$DEPTH; [ $DEPTH != xxxx ] || exit 9"
    text = hook.read_text().replace("for theta in", "for program in").replace("$theta", "$program")
    hook.write_text(text.replace(mark, f"{mark}\n{own}\n{mark}", 1))
    assert hooks.install(found, program) == ["pre-push"]
    assert push().returncode == 0


def test_a_failing_program_stops_the_push(found, program, push, remote):
    executable(program, "#!/bin/sh\necho no objects today >&2\nexit 31\n")
    hooks.install(found, program)
    done = push()
    assert done.returncode != 0
    assert b"no objects today" in done.stderr
    assert remote.git("for-each-ref") == ""


@pytest.fixture
def bare_path(monkeypatch) -> None:
    """No git-theta in PATH."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.mark.usefixtures("bare_path")
@pytest.mark.parametrize("how", ["gone", "not executable", "its python is gone"])
def test_without_the_program_a_push_is_refused_and_says_why(how, found, program, push, remote):
    hooks.install(found, program)
    if how == "gone":
        program.unlink()
    elif how == "not executable":
        program.chmod(0o644)
    else:
        executable(program, "#!/no/such/python\n")
    done = push()
    assert done.returncode != 0
    assert b"git theta install" in done.stderr
    assert b"rm .git/hooks/pre-push" in done.stderr
    assert remote.git("for-each-ref") == ""


def test_a_program_that_moved_is_found_in_path(found, program, push, log, monkeypatch):
    hooks.install(found, program)
    moved = program.rename(program.parent.parent / "git-theta")
    monkeypatch.setenv("PATH", f"{moved.parent}:/usr/bin:/bin")
    assert push().returncode == 0
    assert "theta hook pre-push -- origin" in log.read_text()


@pytest.mark.usefixtures("bare_path")
def test_without_the_program_other_commands_go_on(found, program, repo):
    hooks.install(found, program)
    program.unlink()
    (repo.path / ".git" / hooks.PENDING).write_bytes(b"a\0")
    repo.commit(a=b"x")


def test_a_hook_that_git_runs_often_waits_for_its_file(found, program, repo, log):
    hooks.install(found, program)
    repo.commit(a=b"x")
    assert not log.exists()
    (repo.path / ".git" / hooks.PENDING).write_bytes(b"a\0")
    repo.git("reset", "-q", "--hard", "HEAD")
    assert "theta hook post-index-change" in log.read_text()


def test_a_hook_that_has_nothing_to_do_costs_next_to_nothing(found, program, repo):
    hooks.install(found, program)
    hook = repo.path / ".git/hooks/post-index-change"
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        subprocess.run([hook, "1", "0"], cwd=repo.path, check=True)
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.02  # starting Python alone takes longer; others may keep the machine busy


def test_a_users_hook_runs_first_with_the_same_input(found, program, push, log, hook, remote):
    executable(hook, user_hook(log))
    hooks.install(found, program)
    assert hook.with_name("pre-push.before-theta").read_text() == user_hook(log)
    assert push().returncode == 0
    lines = log.read_text().splitlines()
    assert lines[0] == f"user origin {remote.path}"
    assert lines[2] == f"theta hook pre-push -- origin {remote.path}"
    assert lines[1] == lines[3]
    assert lines[1].startswith("refs/heads/main ")


def test_a_users_hook_that_fails_stops_the_push_before_us(found, program, push, log, hook, remote):
    executable(hook, user_hook(log, status=7))
    hooks.install(found, program)
    assert push().returncode != 0
    assert "theta" not in log.read_text()
    assert remote.git("for-each-ref") == ""


@pytest.mark.parametrize("links", [True, False])
def test_a_kept_hook_keeps_its_mode(links, found, program, push, log, hook, monkeypatch):
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "no hard links, as on exFAT and some network drives")

        monkeypatch.setattr(os, "link", refuse)
    executable(hook, user_hook(log)).chmod(0o751)
    hooks.install(found, program)
    kept = hook.with_name("pre-push.before-theta")
    assert kept.stat().st_mode & 0o777 == 0o751
    assert push().returncode == 0
    assert log.read_text().startswith("user ")
    hooks.uninstall(found)
    assert hook.stat().st_mode & 0o777 == 0o751
    assert not [path for path in hook.parent.iterdir() if path.name.startswith(".tmp")]


def test_a_hook_that_was_not_executable_stays_so(found, program, push, log, hook):
    executable(hook, user_hook(log)).chmod(0o644)
    hooks.install(found, program)
    assert push().returncode == 0
    assert "user" not in log.read_text()


def test_a_hook_that_ignores_its_input(found, program, repo, remote, log, hook):
    executable(hook, "#!/bin/sh\nexit 0\n")
    hooks.install(found, program)
    commit = repo.commit()
    updates = "".join(f"create refs/heads/branch-{number} {commit}\n" for number in range(800))
    repo.git("update-ref", "--stdin", stdin=updates.encode())
    assert repo.process("push", "-q", str(remote.path), "--all").returncode == 0
    assert log.read_text().count("refs/heads/branch-") == 1600  # 100 KB, more than a pipe holds


def test_a_hook_that_is_a_link_is_kept_as_a_link(found, program, push, log, hook, repo):
    executable(repo.path / "scripts/push-check", user_hook(log))
    hook.symlink_to("../../scripts/push-check")
    hooks.install(found, program)
    kept = hook.with_name("pre-push.before-theta")
    assert kept.is_symlink()
    assert not hook.is_symlink()
    assert (repo.path / "scripts/push-check").read_text() == user_hook(log)
    assert push().returncode == 0
    assert log.read_text().startswith("user ")
    hooks.uninstall(found)
    assert hook.is_symlink()
    assert hook.read_text() == user_hook(log)


def test_a_link_to_nowhere_is_kept_too(found, program, push, hook):
    hook.symlink_to("nowhere")
    hooks.install(found, program)
    assert push().returncode == 0
    hooks.uninstall(found)
    assert hook.is_symlink()


def test_uninstall_puts_back_what_was_there(found, program, hook, log):
    executable(hook, user_hook(log))
    hooks.install(found, program)
    assert hooks.uninstall(found) == ALL
    assert hook.read_text() == user_hook(log)
    assert sorted(path.name for path in hook.parent.iterdir() if path.suffix != ".sample") == [
        "pre-push"
    ]
    assert hooks.uninstall(found) == []
    assert hook.read_text() == user_hook(log)


def test_uninstall_leaves_nothing_where_nothing_was(found, program, hook):
    before = sorted(hook.parent.iterdir())
    hooks.install(found, program)
    hooks.uninstall(found)
    assert sorted(hook.parent.iterdir()) == before


def test_a_program_that_moved_is_written_anew(found, program, tmp_path, hook, log):
    executable(hook, user_hook(log))
    hooks.install(found, program)
    moved = program.rename(tmp_path / "git-theta")
    assert hooks.missing(found) == ALL
    assert hooks.install_missing(found, moved) == ALL
    assert hooks.missing(found) == []
    assert shlex.quote(str(moved)) in hook.read_text()
    assert hook.with_name("pre-push.before-theta").read_text() == user_hook(log)


# --- beside git-lfs ------------------------------------------------------------------------------


def lfs_file(repo: Repo) -> None:
    repo.commit_files({".gitattributes": b"*.bin filter=lfs -text\n", "a.bin": b"large" * 100})


def lfs_objects(remote: Repo) -> list[Path]:
    return [path for path in (remote.path / "lfs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("order", ["lfs first", "theta first", "lfs by its filter alone"])
def test_git_lfs_uploads_its_own_whoever_came_first(
    order, found, program, repo, push, remote, log, home
):
    repo.git("lfs", "install", "--skip-repo")
    if order == "lfs first":
        repo.git("lfs", "update")
    hooks.install(found, program)
    if order == "theta first":
        assert repo.process("lfs", "update").returncode != 0  # it leaves a hook that is not its own
    lfs_file(repo)
    assert push().returncode == 0
    assert len(lfs_objects(remote)) == 1
    assert log.read_text().count("theta hook pre-push") == 1


def test_git_lfs_is_not_asked_where_it_is_not_used(
    found, program, push, log, tmp_path, monkeypatch
):
    executable(
        tmp_path / "bin/git-lfs", f"#!/bin/sh\necho lfs >> {shlex.quote(str(log))}\nexit 1\n"
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    hooks.install(found, program)
    assert push().returncode == 0
    assert "lfs\n" not in log.read_text()


def test_git_lfs_that_overwrites_us_is_noticed_and_chained(found, program, repo, push, remote, log):
    repo.git("lfs", "install", "--skip-repo")
    repo.git("lfs", "update")
    hooks.install(found, program)
    repo.git("lfs", "update", "--force")
    assert hooks.missing(found) == ["pre-push"]
    assert hooks.install_missing(found, program) == ["pre-push"]
    lfs_file(repo)
    assert push().returncode == 0
    assert len(lfs_objects(remote)) == 1
    assert "theta hook pre-push" in log.read_text()


# What `pre-commit install --hook-type pre-push` writes, as far as it matters here.
MANAGER = """\
#!/bin/sh
[ -z "$RUNS" ] || exit 1
refs=$(cat)
cd "$(dirname "$0")" && here=$PWD && cd - >/dev/null
echo "$refs" | RUNS=1 "$here/pre-push.legacy" "$@" || exit
echo manager >>{log}
"""


def test_a_manager_that_runs_ours_is_not_run_by_that_again(found, program, push, log, hook):
    """Ours ran pre-commit, that ran the one of ours that it kept, and so on: no push succeeded."""
    hooks.install(found, program)
    hook.rename(hook.with_name("pre-push.legacy"))
    executable(hook, MANAGER.format(log=shlex.quote(str(log))))
    assert hooks.install_missing(found, program) == ["pre-push"]
    done = push()
    assert (done.returncode, done.stderr) == (0, b"")
    told = [line.split(" ")[0] for line in log.read_text().splitlines()]
    assert told == ["theta", "refs/heads/main", "manager", "theta", "refs/heads/main"]


def test_a_newer_git_lfs_hook_replaces_the_older_one_that_was_kept(found, program, repo, hook):
    executable(hook, '#!/bin/sh\ngit lfs pre-push "$@" # older\n')
    hooks.install(found, program)
    repo.git("lfs", "update", "--force")
    newer = hook.read_text()
    hooks.install(found, program)
    assert hook.with_name("pre-push.before-theta").read_text() == newer


def test_two_hooks_of_the_user_are_his_to_merge(found, program, hook, log):
    executable(hook, user_hook(log))
    hooks.install(found, program)
    executable(hook, "#!/bin/sh\nsomething else\n")
    for install in (hooks.install, hooks.install_missing):
        with pytest.raises(HookError, match=r"pre-push\.before-theta") as caught:
            install(found, program)
        assert "merge it" in caught.value.hint
    assert hook.read_text() == "#!/bin/sh\nsomething else\n"
    assert hook.with_name("pre-push.before-theta").read_text() == user_hook(log)


def test_a_user_who_restored_the_same_hook_is_no_conflict(found, program, hook, log):
    executable(hook, user_hook(log))
    hooks.install(found, program)
    hook.with_name("pre-push.before-theta").chmod(0o644)
    executable(hook, user_hook(log))
    assert hooks.install(found, program) == ["pre-push"]
    assert hooks.missing(found) == []
    assert hook.with_name("pre-push.before-theta").stat().st_mode & 0o111


# --- where hooks are -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["tracked-hooks", "absolute", "~/hooks"])
def test_hooks_path_is_obeyed_and_not_written_to_by_the_way(
    path, found, program, repo, push, log, tmp_path, home, hook
):
    folder = {
        "tracked-hooks": repo.path / "tracked-hooks",
        "absolute": tmp_path / "absolute",
        "~/hooks": home / "hooks",
    }[path]
    repo.git("config", "core.hooksPath", path if path != "absolute" else str(folder))
    found = Repository.discover(found.top)
    executable(folder / "pre-push", user_hook(log))
    with pytest.raises(HookError, match=r"core\.hooksPath") as caught:
        hooks.install_missing(found, program)
    assert caught.value.hint == "git theta install --local"
    assert caught.value.path == str(folder)
    assert [file.name for file in folder.iterdir()] == ["pre-push"]

    assert hooks.install(found, program) == ALL
    assert not hook.exists()
    assert push().returncode == 0
    assert log.read_text().startswith("user ")
    assert "theta hook pre-push" in log.read_text()
    assert hooks.install_missing(found, program) == []


def test_hooks_that_are_switched_off(found, program, repo):
    repo.git("config", "core.hooksPath", "/dev/null")
    found = Repository.discover(found.top)
    assert hooks.missing(found) == ALL
    with pytest.raises(ThetaError):
        hooks.install_missing(found, program)
    with pytest.raises(ThetaError):
        hooks.install(found, program)


def test_a_linked_work_tree_uses_the_common_hooks(program, repo, push, log, tmp_path, hook):
    repo.commit()
    repo.git("worktree", "add", "-q", str(tmp_path / "second"))
    with Repository.discover(tmp_path / "second") as second:
        assert hooks.install_missing(second, program) == ALL
    assert hook.is_file()
    Repo(tmp_path / "second").git("push", "-q", "origin", "second")
    assert "theta hook pre-push" in log.read_text()


def test_a_submodule_has_its_own_hooks(program, repo, make_repo):
    inner = make_repo("inner")
    inner.commit()
    repo.git("submodule", "add", "-q", str(inner.path), "sub")
    with Repository.discover(repo.path / "sub") as found:
        assert hooks.install_missing(found, program) == ALL
    assert (repo.path / ".git/modules/sub/hooks/pre-push").is_file()
    assert not (repo.path / ".git/hooks/pre-push").exists()


def test_a_repository_without_a_hooks_folder(found, program, hook):
    for file in hook.parent.iterdir():
        file.unlink()
    hook.parent.rmdir()
    assert hooks.install_missing(found, program) == ALL
    assert hook.is_file()


_INSTALL = """
import sys
from pathlib import Path
from git_theta.errors import HookError
from git_theta.git import Repository, hooks
with Repository.discover(Path(sys.argv[1]).parents[1]) as repo:
    for install in (hooks.install, hooks.install_missing):
        try:
            install(repo, Path(sys.executable))
        except HookError as error:
            print(error.message, error.hint)
"""


def test_where_no_hook_can_be_executed_it_is_said(repo):
    """Git passed over all of ours, and a push succeeded without the objects."""
    folder = repo.path / ".git/hooks"
    shutil.rmtree(folder)
    said = on_tmpfs("noexec,size=1m", _INSTALL, folder).splitlines()
    assert len(said) == 2
    for line in said:
        assert "pre-push cannot be executed" in line
        assert "core.hooksPath" in line


def test_installing_at_once_never_chains_us_to_ourselves(repo, program, log, hook, push):
    executable(hook, user_hook(log))

    def install(_: int) -> None:
        with Repository.discover(repo.path) as found:
            hooks.install_missing(found, program)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(install, range(8)))
    assert hook.with_name("pre-push.before-theta").read_text() == user_hook(log)
    assert push().returncode == 0
    assert log.read_text().count("theta hook pre-push") == 1
    assert not [path for path in hook.parent.iterdir() if path.name.startswith(".tmp")]


def test_hooks_know_the_git_directory_as_git_does(repo, tmp_path):
    """Without asking git, which takes 3 ms at each change of the index."""
    repo.commit()
    told = tmp_path / "told"
    awaits = hooks.script("post-index-change", Path("/bin/true")).partition('[ -s "$state')[0]
    state = awaits[awaits.index("state=") :]
    hook = repo.path / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f"#!/bin/sh\n{state}asked=$(git rev-parse --git-dir)\n"
        f'[ "$state" -ef "$asked" ] && echo same >>{told} || echo "$state $asked" >>{told}\n'
    )
    hook.chmod(0o755)
    # A work tree elsewhere, in which another repository lies.
    other = Repo.init(tmp_path / "other")
    linked = tmp_path / "linked"
    repo.git("worktree", "add", "-q", str(linked))
    inside = repo.path / "folder"
    inside.mkdir()
    ways = (
        (("read-tree", "HEAD"), repo.path),
        (("read-tree", "HEAD"), inside),
        (("read-tree", "HEAD"), linked),
        (("--git-dir=.git", "read-tree", "HEAD"), repo.path),
        (("-C", "folder", "read-tree", "HEAD"), repo.path),
        (("-c", f"core.worktree={other.path}", "read-tree", "HEAD"), repo.path),
        (("--git-dir", f"{repo.path}/.git", "read-tree", "HEAD"), other.path),
        (("--work-tree", str(other.path), "read-tree", "HEAD"), repo.path / ".git"),
    )
    told.unlink(missing_ok=True)
    for words, folder in ways:
        repo.git(*words, cwd=folder)
    assert told.read_text().splitlines() == ["same"] * len(ways)
