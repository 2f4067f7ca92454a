"""History rewritten from Git LFS and plain files to git-theta, and back, with real git-lfs."""

from __future__ import annotations

import signal
import subprocess
import time
from functools import cache
from pathlib import Path

import pytest

import standalone_reader
from tests.git.conftest import PROGRAM
from tests.support import checkpoints
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=128)
ODD = "odd 'name\n\"[x]\té.safetensors"


def version(number: int) -> bytes:
    """A checkpoint that was fine-tuned ``number`` times."""
    arrays = BASE
    for seed in range(number):
        arrays = checkpoints.finetuned(arrays, seed=seed + 1)
    return checkpoints.safetensors(arrays)


@pytest.fixture
def lfs(once, home: Path, repo: Repo, theta) -> Repo:
    """A repository that git-lfs tracks, of a user who has git-theta installed too."""

    def track() -> None:
        repo.git("lfs", "install")
        repo.git("lfs", "track", "*.safetensors")
        assert theta(repo, "install").returncode == 0
        repo.git("add", ".gitattributes")
        repo.git("commit", "-q", "-m", "Track")

    once("lfs", home, repo, track)
    return repo


def refs(repo: Repo) -> dict[str, str]:
    rows = repo.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return {name: id_ for name, id_ in map(str.split, rows) if not name.startswith("refs/theta/")}


def files(repo: Repo, rev: str) -> dict[str, bytes]:
    """The content of every checkpoint of ``rev``, whichever way it is stored."""
    rows = repo.git("ls-tree", "-r", "-z", rev).split("\0")[:-1]
    found = (row.split("\t", 1) for row in rows if row.startswith("100"))
    return {
        path: content(repo.path, words.split(" ")[2])
        for words, path in found
        if path.endswith(".safetensors")
    }


@cache
def content(folder: Path, blob: str) -> bytes:
    text = Repo(folder).process("cat-file", "blob", blob).stdout
    if text.startswith(b'{"git-theta"'):
        return standalone_reader.rebuild(text, folder / ".git/theta/objects")
    if text.startswith(b"version https"):
        oid = text.split(b"sha256:")[1][:64].decode()
        return (folder / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid).read_bytes()
    return text


def body(repo: Repo, commit: str) -> list[str]:
    lines = repo.git("cat-file", "commit", commit).split("\n")
    return [line for line in lines if not line.startswith(("tree ", "parent "))]


@pytest.fixture
def history(lfs: Repo) -> Repo:
    """Branches, an octopus merge, tags, odd names, links, a submodule, modes, an old encoding."""
    lfs.commit_files({"m.safetensors": version(0), "README": b"one", ODD: version(0)}, "base")
    (lfs.path / "link.safetensors").symlink_to("m.safetensors")
    lfs.git("add", "link.safetensors")
    (lfs.path / "module").mkdir()
    head = lfs.git("rev-parse", "HEAD")
    lfs.git("update-index", "--add", "--cacheinfo", f"160000,{head},module")
    (lfs.path / "m.safetensors").chmod(0o755)
    lfs.git("add", "m.safetensors")
    lfs.git("-c", "i18n.commitEncoding=ISO-8859-1", "commit", "-q", "-m", "Größe\n\nbody\n")
    for number, name in enumerate(("a", "b"), start=1):
        lfs.git("switch", "-q", "-c", name, "main")
        lfs.commit_files({f"{name}/x.safetensors": version(number)}, name)
    lfs.git("switch", "-q", "main")
    lfs.commit_files({"m.safetensors": version(3)}, "main")
    lfs.git("merge", "-q", "-m", "octopus", "a", "b")
    lfs.git("commit", "-q", "--allow-empty", "-m", "empty")
    lfs.git("tag", "-a", "-m", "first", "v1", "HEAD~1")
    lfs.git("tag", "-a", "-m", "of a tag", "v1-again", "v1")
    lfs.git("tag", "light", "a")
    lfs.git("tag", "blob", "HEAD:README")
    return lfs


def test_a_history_comes_in_and_goes_back_to_the_same_commits(history, theta):
    before, old = refs(history), history.git("rev-list", "--all").split()
    contents = {commit: files(history, commit) for commit in old}
    work = {path: history.read(path) for path in contents[before["refs/heads/main"]]}
    stamp = (history.path / "m.safetensors").stat().st_mtime_ns

    done = theta(history, "migrate", "import", "--everything", "--map", "map.txt")
    assert done.returncode == 0, done.stderr
    assert history.git("status", "--porcelain") == "?? map.txt"
    assert (history.path / "m.safetensors").stat().st_mtime_ns == stamp  # not written again
    pairs = dict(line.split() for line in history.read("map.txt").decode().splitlines())
    (history.path / "map.txt").unlink()
    assert set(pairs) == set(old)
    for commit, new in pairs.items():
        assert body(history, new) == body(history, commit)
        parents = history.git("log", "-1", "--format=%P", commit).split()
        assert history.git("log", "-1", "--format=%P", new).split() == [pairs[p] for p in parents]
        assert files(history, new) == contents[commit]
    assert history.git("show", "HEAD:.gitattributes") == (
        "*.safetensors filter=theta diff=theta merge=theta -text"
    )
    assert history.git("show", "HEAD:m.safetensors").startswith('{"git-theta"')
    assert history.git("ls-tree", "HEAD", "m.safetensors").startswith("100755 blob")
    assert history.git("ls-tree", "HEAD", "module").startswith("160000 commit")
    after = refs(history)
    assert after["refs/tags/blob"] == before["refs/tags/blob"]
    assert (
        history.git("rev-parse", "v1-again^{commit}")
        == pairs[history.git("rev-parse", "refs/theta/original/1/old/tags/v1^{commit}")]
    )
    assert "tagger C O Mitter" in history.git("cat-file", "tag", "v1")
    assert history.git("fsck", "--no-dangling") == ""
    assert theta(history, "fsck").returncode == 0

    done = theta(history, "migrate", "export", "--everything")
    assert done.returncode == 0, done.stderr
    assert refs(history) == before
    assert history.git("status", "--porcelain") == ""
    assert {path: history.read(path) for path in work} == work
    assert history.process("lfs", "fsck").returncode == 0

    assert theta(history, "migrate", "undo").returncode == 0
    assert refs(history) == after
    assert theta(history, "migrate", "undo").returncode == 0
    assert refs(history) == before
    assert history.git("for-each-ref", "refs/theta") == ""
    assert history.git("status", "--porcelain") == ""


def test_equal_versions_are_stored_once_and_others_as_differences(lfs, theta):
    for number in range(4):
        lfs.commit_files({"m.safetensors": version(number), f"{number}/c.safetensors": version(0)})
    done = theta(lfs, "migrate", "import")
    assert "4 versions" in done.stdout
    assert "Rewrote 5 commits" in done.stdout
    sizes = [
        path.stat().st_size
        for path in (lfs.path / ".git/theta/objects").rglob("*")
        if path.is_file()
    ]
    assert sum(sizes) < 0.65 * 4 * len(version(0))
    assert len({lfs.git("rev-parse", f"HEAD:{n}/c.safetensors") for n in range(4)}) == 1


def test_a_dry_run_changes_nothing(lfs, theta):
    lfs.commit_files({"m.safetensors": version(0)})
    lfs.commit_files({"m.safetensors": version(1)})

    def state() -> dict[Path, int]:
        found = (path for path in lfs.path.rglob("*") if path.is_file() and path.name != "lock")
        return {path: path.stat().st_mtime_ns for path in found if "index" not in path.name}

    theta(lfs, "migrate", "undo")  # makes our folder
    before = state()
    done = theta(lfs, "migrate", "import", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert state() == before
    assert not (lfs.path / ".git/theta/migrate/scratch").exists()
    said = done.stdout.splitlines()[0]
    assert said.startswith("2 versions: ")
    assert theta(lfs, "migrate", "import").stdout.splitlines()[0] == said


def test_plain_files_come_in_by_globs_and_go_back(repo, theta):
    theta(repo, "install")
    first = repo.commit_files({"README": b"x", ".gitattributes": b"*.txt text"}, "before")
    repo.commit_files({"a.bin": version(0), "keep/b.bin": version(1), "empty.bin": b""}, "files")
    repo.commit_files({"a.bin": version(1)}, "change")
    repo.git("rm", "-q", "a.bin")
    repo.commit("gone")
    before = repo.git("rev-parse", "HEAD")
    done = theta(repo, "migrate", "import", "-I", "*.bin", "-X", "keep/**")
    assert done.returncode == 0, done.stderr
    assert repo.git("rev-parse", "HEAD~3") == first  # nothing in it had to change
    ours = "*.bin filter=theta diff=theta merge=theta -text"
    assert (
        repo.git("show", "HEAD~1:.gitattributes")
        == f"*.txt text\n{ours}\nkeep/** !filter !diff !merge !text"
    )
    assert repo.git("show", "HEAD:.gitattributes") == repo.git("show", "HEAD~1:.gitattributes")
    assert repo.git("show", "HEAD~1:a.bin").startswith('{"git-theta"')
    assert repo.process("show", "HEAD~1:keep/b.bin").stdout == version(1)
    assert repo.git("cat-file", "-s", "HEAD~1:empty.bin") == "0"
    assert repo.process("cat-file", "--filters", "HEAD~2:a.bin").stdout == version(0)
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "migrate", "undo")
    assert repo.git("rev-parse", "HEAD") == before

    assert theta(repo, "migrate", "import", "-I", "*.bin").returncode == 0
    assert repo.git("show", "HEAD:keep/b.bin").startswith('{"git-theta"')
    done = theta(repo, "migrate", "export", "--plain")
    assert done.returncode == 0, done.stderr
    assert repo.git("rev-parse", "HEAD") == before
    assert repo.git("status", "--porcelain") == ""


def test_lfs_objects_that_are_missing_are_fetched_or_named(lfs, theta, remote):
    commit = lfs.commit_files({"sub/m.safetensors": version(0)})
    (stored,) = (path for path in (lfs.path / ".git/lfs/objects").rglob("*") if path.is_file())
    last = lfs.commit_files({"sub/m.safetensors": version(1)})
    lfs.git("remote", "add", "origin", str(remote.path))
    before = refs(lfs)
    lfs.git("push", "-q", "origin", "main")
    away = stored.rename(lfs.path / ".git/away")
    there = next((remote.path / "lfs/objects").rglob(stored.name))
    hidden = there.rename(there.with_name("hidden"))
    done = theta(lfs, "migrate", "import")
    assert done.returncode == 20
    assert f"sub/m.safetensors (commit {commit[:12]})" in done.stderr
    assert "git lfs push --all origin" in done.stderr
    assert refs(lfs) == {**before, "refs/remotes/origin/main": last}
    hidden.rename(there)
    assert theta(lfs, "migrate", "import", "--dry-run").returncode == 20  # it fetches nothing
    done = theta(lfs, "migrate", "import")
    assert "Not rewritten: remotes/origin/main" in done.stdout
    assert "git push --force-with-lease origin main" in done.stdout
    assert "git switch main && git reset --hard origin/main" in done.stdout
    assert files(lfs, "HEAD~1") == {"sub/m.safetensors": version(0)}
    assert away.exists()


def test_a_damaged_lfs_object_stops_it(lfs, theta):
    lfs.commit_files({"m.safetensors": version(0)})
    before = refs(lfs)
    (stored,) = (path for path in (lfs.path / ".git/lfs/objects").rglob("*") if path.is_file())
    stored.chmod(0o644)
    stored.write_bytes(version(1))
    done = theta(lfs, "migrate", "import")
    assert done.returncode == 21
    assert "m.safetensors (commit" in done.stderr
    assert refs(lfs) == before


def test_killed_at_any_moment_it_goes_on(lfs, theta):
    for number in range(6):
        lfs.commit_files({"m.safetensors": version(number)})
    before = refs(lfs)
    journal = lfs.path / ".git/theta/migrate/import"
    process = subprocess.Popen(
        [str(PROGRAM), "migrate", "import"], cwd=lfs.path, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert refs(lfs) == before
    assert lfs.git("status", "--porcelain") == ""
    known = journal.read_text()
    with journal.open("a") as file:
        file.write("a" * 30)  # a line that was cut off
    done = theta(lfs, "migrate", "import")
    assert done.returncode == 0, done.stderr
    assert journal.read_text().startswith(known)
    assert journal.read_text().count("\n") == 7  # 6 versions, each once, and what was cut off
    assert [files(lfs, f"HEAD~{n}")["m.safetensors"] for n in range(6)] == [
        version(5 - n) for n in range(6)
    ]


def test_a_work_tree_that_could_not_follow_does_when_asked_again(lfs, theta):
    lfs.commit_files({"m.safetensors": version(0)})
    before = refs(lfs)
    lock = lfs.path / ".git/index.lock"
    lock.touch()
    done = theta(lfs, "migrate", "import")
    assert done.returncode == 33
    assert "git theta migrate again" in done.stderr
    assert refs(lfs) != before
    lock.unlink()
    assert lfs.git("status", "--porcelain") != ""
    done = theta(lfs, "migrate", "import")
    assert done.returncode == 0
    assert "Nothing to migrate" in done.stdout
    assert lfs.git("status", "--porcelain") == ""
    assert theta(lfs, "migrate", "undo").returncode == 0
    assert refs(lfs) == before


def test_it_refuses_what_would_lose_something(lfs, theta, tmp_path):
    lfs.commit_files({"m.safetensors": version(0), "README": b"x"})
    before = refs(lfs)

    def refused(*args: str) -> str:
        done = theta(lfs, "migrate", *args)
        assert done.returncode == 2, done.stderr
        assert refs(lfs) == before
        return done.stderr

    lfs.write("README", b"changed")
    assert "README" in refused("import")
    lfs.git("checkout", "-q", "README")
    assert "no migration" in refused("undo")
    assert "neither a branch nor a tag" in refused("import", "nothing")
    lfs.git("switch", "-q", "--detach")
    lfs.git("worktree", "add", "-q", str(tmp_path / "other"), "main")
    assert "another work tree" in refused("import", "main")
    lfs.git("worktree", "remove", "--force", str(tmp_path / "other"))
    lfs.git("switch", "-q", "main")
    assert theta(lfs, "migrate", "import").returncode == 0
    lfs.commit("on top")
    before = refs(lfs)
    assert "moved since" in refused("undo")
    clone = Repo.clone(f"file://{lfs.path}", tmp_path / "shallow", "--depth=1", "--no-checkout")
    assert "--unshallow" in theta(clone, "migrate", "import").stderr


def test_an_untracked_attributes_file_is_not_overwritten(repo, theta):
    theta(repo, "install")
    repo.commit_files({"a.bin": version(0)})
    before = refs(repo)
    repo.write(".gitattributes", b"mine")
    done = theta(repo, "migrate", "import")
    assert done.returncode == 2
    assert ".gitattributes" in done.stderr
    assert (repo.read(".gitattributes"), refs(repo)) == (b"mine", before)


def test_pointers_in_the_work_tree_become_files(lfs, theta, tmp_path, remote, monkeypatch):
    lfs.commit_files({"m.safetensors": version(0)})
    lfs.git("remote", "add", "origin", str(remote.path))
    lfs.git("push", "-q", "origin", "main")
    with monkeypatch.context() as patch:
        patch.setenv("GIT_LFS_SKIP_SMUDGE", "1")
        clone = Repo.clone(remote.path, tmp_path / "clone")
    assert clone.read("m.safetensors").startswith(b"version https")
    done = theta(clone, "migrate", "import")
    assert done.returncode == 0, done.stderr
    assert clone.read("m.safetensors") == version(0)
    assert clone.git("status", "--porcelain") == ""


def test_attributes_files_of_folders_are_rewritten_too(lfs, theta):
    lfs.commit_files(
        {"sub/.gitattributes": b"x.* filter=lfs diff=lfs merge=lfs -text\n*.md text\n"}
    )
    lfs.commit_files(
        {"sub/x.safetensors": version(0), "sub/x.png": b"image", "y.safetensors": version(0)}
    )
    before = refs(lfs)
    done = theta(lfs, "migrate", "import", "-I", "sub/x.*", "-I", "*.safetensors")
    assert done.returncode == 0, done.stderr
    assert lfs.git("show", "HEAD:sub/.gitattributes").startswith("x.* filter=theta")
    assert lfs.git("show", "HEAD:sub/x.png").startswith('{"git-theta"')
    assert lfs.git("status", "--porcelain") == ""
    theta(lfs, "migrate", "export")
    assert refs(lfs) == before
    done = theta(lfs, "migrate", "import", "-I", "*.safetensors")
    assert done.returncode == 2  # the folder's own line would store it with git-lfs
    assert "sub/x.safetensors" in done.stderr
    assert refs(lfs) == before
