"""The commands, as a person or a script runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.cli.app import COMMANDS
from git_theta.git import config
from tests.git.conftest import PROGRAM
from tests.support import checkpoints
from tests.support.manifests import entry_named
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(BASE)


def _json(done):
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*COMMANDS, "filter-process", "hook"])
def test_every_command_has_help_with_an_example(theta, repo, name):
    done = theta(repo, name, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert "git-theta" in done.stdout or "git theta" in done.stdout


@pytest.mark.parametrize("args", [["--help"], ["-h"], [], ["a", "b", "c", "7"], ["--", "--help"]])
def test_a_merge_driver_that_merges_nothing_never_says_that_it_did(args, theta, repo):
    done = theta(repo, "merge-driver", *args)
    assert done.returncode == 2
    assert "theta merge-driver" in done.stderr


def test_install_outside_a_repository(theta, tmp_path):
    folder = Repo(tmp_path)
    done = theta(folder, "install")
    assert done.returncode == 0, done.stderr
    configured = folder.git("config", "--global", "filter.theta.process")
    assert str(PROGRAM) in configured
    assert folder.git("config", "--global", "filter.theta.required") == "true"
    done = theta(folder, "install", "--local")
    assert done.returncode == 10
    assert "git init" in done.stderr


def test_install_names_what_it_touches_and_touches_no_repository_for_a_user(theta, repo, home):
    before = sorted(repo.path.rglob("*"))
    done = theta(repo, "install", "--global")
    assert done.returncode == 0, done.stderr
    assert sorted(repo.path.rglob("*")) == before
    assert str(home / ".gitconfig") in done.stdout
    hook = repo.write(".git/hooks/pre-push", b"#!/bin/sh\nexit 0\n")
    done = theta(repo, "install")
    for name in ("pre-push", "pre-push.before-theta", "post-index-change"):
        assert str(hook.with_name(name)) in done.stdout
    assert theta(repo, "uninstall", "--global").returncode == 0
    assert b"git-theta" in hook.read_bytes()


def test_install_without_a_home_names_the_other_ways(theta, repo):
    done = theta(repo, "install", env={"HOME": "", "XDG_CONFIG_HOME": "", "GIT_CONFIG_GLOBAL": ""})
    assert done.returncode == 33
    assert "--system" in done.stderr
    assert "--local" in done.stderr


def test_install_in_a_repository_that_git_does_not_trust(theta, repo):
    env = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    assert theta(repo, "install", env=env).returncode == 14
    done = theta(repo, "doctor", "--json", env=env)
    assert _findings(done)["repository"]["fix"].endswith(f"safe.directory {repo.path}")


def test_install_works_for_one_repository_only(theta, repo):
    assert theta(repo, "install", "--local").returncode == 0
    assert str(PROGRAM) in repo.git("config", "--local", "filter.theta.process")
    assert repo.process("config", "--global", "filter.theta.process").returncode == 1


def test_uninstall_takes_everything_back(theta, repo):
    hook = repo.write(".git/hooks/pre-push", b"#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    assert theta(repo, "install").returncode == 0
    assert b"git-theta" in hook.read_bytes()
    done = theta(repo, "uninstall")
    assert done.returncode == 0, done.stderr
    assert hook.read_bytes() == b"#!/bin/sh\nexit 0\n"
    assert repo.process("config", "filter.theta.process").returncode == 1


def test_track_and_untrack(theta, repo):
    assert theta(repo, "track", "*.safetensors", "my models/*").returncode == 0
    text = repo.read(".gitattributes").decode()
    assert "*.safetensors filter=theta diff=theta merge=theta -text\n" in text
    assert "my[[:space:]]models/* filter=theta" in text
    assert "already" in theta(repo, "track", "*.safetensors").stdout
    assert theta(repo, "track").stdout.splitlines() == ["*.safetensors", "my models/*"]
    assert _json(theta(repo, "track", "--json")) == {"patterns": ["*.safetensors", "my models/*"]}
    assert theta(repo, "untrack", "my models/*").returncode == 0
    assert "my" not in repo.read(".gitattributes").decode()
    done = theta(repo, "untrack", "*.absent")
    assert done.returncode == 2
    assert "*.absent" in done.stderr


def test_track_before_install_names_it(repo, theta):
    done = theta(repo, "track", "*.pt")
    assert "git theta install, then git add .gitattributes" in done.stdout
    theta(repo, "install", "--global")
    assert "install" not in theta(repo, "track", "*.bin").stdout


@pytest.mark.parametrize(
    "args",
    [
        ["checkout"],
        ["resolve", "a.safetensors"],
        ["add", "a.safetensors", "--update", "sparse", "--data", "a.safetensors"],
        ["migrate", "import"],
    ],
)
def test_without_the_filter_nothing_is_staged(args, model, theta):
    """Git would put the whole file into the index, in place of the manifest."""
    model.commit_files({"a.safetensors": checkpoints.safetensors(checkpoints.tensors())})
    model.write("a.safetensors", model.git("show", ":a.safetensors").encode())
    index = model.git("ls-files", "-s")
    theta(model, "uninstall", "--global")
    done = theta(model, *args)
    assert done.returncode == 12, done.stderr
    assert "git theta install" in done.stderr
    assert model.git("ls-files", "-s") == index


def test_install_in_a_clone_names_the_checkout_that_it_lacks(model, theta):
    assert 'Next: git theta track "*.safetensors"' in theta(model, "install").stdout
    model.commit_files({"a.safetensors": FIRST})
    assert "Next: git theta checkout" in theta(model, "install").stdout


def test_a_misspelt_command(theta_here, repo):
    done = theta_here(repo, "mrge", "main")
    assert done.returncode == 2
    assert "hint: git theta merge" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["push", "nowhere"], "there is no remote called nowhere"),
        (["fsck", "--remote", "nowhere"], "there is no remote called nowhere"),
        (["du", "--remote", "nowhere"], "there is no remote called nowhere"),
        (["fetch", "backup"], "backup is a remote"),
    ],
)
def test_a_remote_that_does_not_exist_or_is_not_meant(args, words, theta_here, model):
    model.git("remote", "add", "backup", "../backup.git")
    model.commit_files({"a.safetensors": FIRST})
    done = theta_here(model, *args)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_diff_of_an_untracked_file_says_so(theta_here, model):
    model.write("new.safetensors", FIRST)
    done = theta_here(model, "diff", "new.safetensors")
    assert (done.returncode, done.stdout) == (0, "")
    assert "git add new.safetensors" in done.stderr


def test_ls_files(model, theta):
    model.commit_files({"a.safetensors": FIRST, "notes.txt": b"text"})
    model.commit_files({"sub/b.pt": checkpoints.torch_zip(BASE)})
    rows = _json(theta(model, "ls-files", "--json"))["checkpoints"]
    assert [(row["path"], row["format"], row["tensors"]) for row in rows] == [
        ("a.safetensors", "safetensors", 4),
        ("sub/b.pt", "torch", 4),
    ]
    assert rows[0]["size"] == len(FIRST)
    assert rows[0]["missing"] == 0
    assert "a.safetensors" in theta(model, "ls-files").stdout
    assert len(_json(theta(model, "ls-files", "HEAD~1", "--json"))["checkpoints"]) == 1
    assert theta(model, "ls-files", "nowhere").returncode == 2


def test_show(model, theta):
    model.commit_files({"m.safetensors": FIRST})
    tuned = checkpoints.safetensors(checkpoints.finetuned(BASE, scale=1e-6))
    model.commit_files({"m.safetensors": tuned})
    document = _json(theta(model, "show", "HEAD:m.safetensors", "--json"))
    assert document["size"] == len(FIRST)
    assert document["max_depth"] == 2
    by_name = {row["name"]: row for row in document["tensors"]}
    assert by_name["layer.0.weight"]["encodings"] == ["delta"]
    assert by_name["layer.0.weight"]["raw"] == 64 * 32 * 4
    assert 0 < by_name["layer.0.weight"]["stored"] < 64 * 32 * 4
    text = theta(model, "show", "HEAD~1:m.safetensors", "layer.1.weight").stdout
    assert "full" in text
    assert "64x32" in text
    assert "encoded against" not in text
    text = theta(model, "show", "m.safetensors", "layer.1.weight").stdout
    before = model.git("rev-parse", "HEAD~1").strip()[:12]
    assert f"encoded against layer.1.weight of m.safetensors in commit {before}" in text
    assert "(skeleton)" in theta(model, "show", ":m.safetensors").stdout


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["HEAD:absent.safetensors"], 22, "git theta ls-files"),
        (["HEAD:.gitattributes"], 22, "git theta track"),
        (["HEAD:m.safetensors", "nothing"], 2, "lists them"),
    ],
)
def test_show_of_what_is_not_there(model, theta, args, code, words):
    model.commit_files({"m.safetensors": FIRST})
    done = theta(model, "show", *args)
    assert done.returncode == code
    assert words in done.stderr


def test_status(model, theta):
    model.commit_files({"m.safetensors": FIRST, "gone.safetensors": FIRST})
    assert "nothing changed" in theta(model, "status").stdout
    arrays = BASE | {"layer.0.bias": BASE["layer.0.bias"] + 1}
    model.write("m.safetensors", checkpoints.safetensors(arrays))
    assert "git add" in theta(model, "status").stdout
    model.git("add", "m.safetensors")
    (model.path / "gone.safetensors").unlink()
    model.write("new.safetensors", checkpoints.safetensors(checkpoints.tensors(9)))
    model.git("add", "new.safetensors")
    rows = {row["path"]: row for row in _json(theta(model, "status", "--json"))["checkpoints"]}
    assert (rows["m.safetensors"]["staged"], rows["m.safetensors"]["changed"]) == ("modified", 1)
    assert rows["m.safetensors"]["stored"] > 0
    assert rows["gone.safetensors"]["work_tree"] == "missing"
    assert rows["new.safetensors"]["staged"] == "added"
    text = theta(model, "status").stdout
    assert "modified: m.safetensors: 1 of 4 tensors changed, " in text
    assert "gone.safetensors: the file is gone" in text


def test_fetch(model, theta, remote, tmp_path):
    model.commit_files({"m.safetensors": FIRST})
    model.commit_files({"m.safetensors": checkpoints.safetensors(checkpoints.tensors(7, rows=8))})
    model.git("remote", "add", "origin", str(remote.path))
    model.git("push", "-q", "origin", "main")
    clone = Repo.clone(remote.path, tmp_path / "clone")
    done = theta(clone, "fetch", "HEAD~1")
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith("Downloaded 0 objects")
    assert theta(clone, "fetch", "HEAD~1").stdout.startswith("Downloaded 0 objects")
    clone.git("remote", "remove", "origin")
    clone.git("checkout", "-q", "HEAD~1")
    assert clone.read("m.safetensors") == FIRST
    assert theta(clone, "fetch", "nowhere").returncode == 2


def test_a_clone_that_skips_large_files_is_completed_later(model, theta, remote, tmp_path):
    model.commit_files({"m.safetensors": FIRST})
    model.git("push", "-q", str(remote.path), "main")
    skip = {"GIT_LFS_SKIP_SMUDGE": "1"}
    model.git("clone", "-q", str(remote.path), str(tmp_path / "clone"), env=skip)
    clone = Repo(tmp_path / "clone")
    assert manifest.is_manifest(clone.read("m.safetensors"))
    assert not list((clone.path / ".git").glob("theta/objects/*/*"))
    assert clone.process("status", "--porcelain", env=skip).stdout == b""
    done = theta(clone, "checkout", env=skip)
    assert done.returncode == 0, done.stderr
    assert clone.read("m.safetensors") == FIRST


def test_track_says_what_a_pattern_matches(repo, theta):
    repo.write("my model [v1]/a.bin", b"")
    shown = theta(repo, "track", "my model [v1]/*.bin", "*.pt", "*.bin").stdout.splitlines()
    assert shown[0].startswith("Tracking my model [v1]/*.bin (its brackets taken as they are")
    assert shown[1:3] == ["Tracking *.pt (no file matches it yet)", "Tracking *.bin"]


def _findings(done) -> dict[str, dict[str, object]]:
    return {finding["check"]: finding for finding in _json(done) if not finding["ok"]}


def test_doctor_is_content_with_a_good_repository(model, theta):
    model.commit_files({"m.safetensors": FIRST})
    done = theta(model, "doctor")
    assert done.returncode == 0, done.stdout
    assert "WRONG" not in done.stdout


def test_doctor_before_anything_is_set_up(repo, theta):
    done = theta(repo, "doctor", "--json")
    assert done.returncode == 1
    found = _findings(done)
    assert set(found) == {"configuration", "hooks", ".gitattributes"}
    assert found["configuration"]["fix"] == "git theta install"
    assert "pre-push is not installed" in found["hooks"]["detail"]
    assert found[".gitattributes"]["fix"] == 'git theta track "*.safetensors"'


def test_doctor_finds_the_other_project_of_that_name(repo, theta, tmp_path):
    # Distributions are found by their metadata, wherever the path leads.
    for name, version in (("git_theta", "0.2.0"), ("theta_vcs", "0.1.0")):
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\n")
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    found = _findings(theta(repo, "doctor", "--json", env=environment))
    assert "pip uninstall git-theta" in found["git-theta"]["fix"]


def test_doctor_finds_a_stale_program(model, theta):
    written = config.settings(Path("/nowhere/git-theta"))["filter.theta.process"]
    model.git("config", "--global", "filter.theta.process", written)
    found = _findings(theta(model, "doctor", "--json"))
    assert "/nowhere/git-theta no longer exists" in found["configuration"]["detail"]


@pytest.mark.parametrize(
    ("version", "fix"),
    [("2.30.9", "install git 2.31 or newer"), ("2.34.1", "install git 2.38 or newer")],
)
def test_doctor_finds_a_git_that_is_too_old(version, fix, model, theta, tmp_path):
    old = tmp_path / "bin/git"
    old.parent.mkdir()
    git = shutil.which("git")
    old.write_text(
        f'#!/bin/sh\n[ "$*" = version ] && exec echo git version {version}\nexec {git} "$@"\n'
    )
    old.chmod(0o755)
    path = f"{old.parent}:{os.environ['PATH']}"
    assert _findings(theta(model, "doctor", "--json", env={"PATH": path}))["git"]["fix"] == fix


def test_doctor_finds_a_line_that_overrides_ours(model, theta):
    with (model.path / ".gitattributes").open("a") as file:
        file.write("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    found = _findings(theta(model, "doctor", "--json"))
    assert "overrides line" in found[".gitattributes"]["detail"]


def test_doctor_finds_manifests_in_the_work_tree(model, theta):
    model.commit_files({"m.safetensors": FIRST})
    model.write("m.safetensors", model.git("show", ":m.safetensors").encode() + b"\n")
    assert _findings(theta(model, "doctor", "--json"))["checkpoints"]["fix"] == "git theta checkout"


def test_the_filter_works_without_our_environment(model):
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(model.path.parent)}
    keep = {"GIT_CONFIG_GLOBAL"}
    env = bare | {name: value for name, value in os.environ.items() if name in keep}
    model.write("m.safetensors", FIRST)
    done = subprocess.run(
        ["git", "add", "m.safetensors"], cwd=model.path, env=env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert manifest.is_manifest(model.git("show", ":m.safetensors").encode())


def test_a_work_tree_cannot_make_the_filter_import_its_files(model):
    for name in ("numpy", "git_theta", "click", "zstandard"):
        model.write(f"{name}.py", b"raise SystemExit('code from the work tree ran')")
    model.write("m.safetensors", FIRST)
    done = model.process("add", "m.safetensors")
    assert done.returncode == 0, done.stderr


def test_a_wrong_setting_is_named(model):
    model.git("config", "theta.chunksize", "many")
    model.write("m.safetensors", FIRST)
    done = model.process("add", "m.safetensors")
    assert done.returncode != 0
    assert b"theta.chunkSize=many" in done.stderr


def test_heavy_libraries_stay_out_of_the_filter():
    code = (
        "import sys, git_theta.cli.filter_process, git_theta.core.registry as r\n"
        "[r.encoding_named(n) for n in r.names('encodings')]\n"
        "print([m for m in ('torch', 'git', 'rich', 'safetensors', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_usage_errors_exit_with_2(theta, repo):
    assert theta(repo, "nonsense").returncode == 2
    assert theta(repo, "--version").stdout.startswith("git-theta")


def test_fsck_of_a_good_repository(model, theta):
    model.commit_files({"m.safetensors": FIRST})
    done = theta(model, "fsck", "--full")
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("1 checkpoint, ")
    assert done.stdout.endswith("0 problems\n")


def test_fsck_names_what_a_damaged_object_concerns(model, theta, remote):
    model.commit_files({"m.safetensors": FIRST})
    model.git("remote", "add", "origin", str(remote.path))
    model.git("push", "-q", "origin", "main")
    described = manifest.parse(model.git("show", "HEAD:m.safetensors").encode() + b"\n")
    oid = entry_named(described, "layer.0.bias").chunks[0].chain[0].oid
    file = model.path / ".git/theta/objects" / oid[:2] / oid
    size = file.stat().st_size
    file.unlink()  # git-lfs links objects to a remote on the same disk: that one stays whole
    file.write_bytes(bytes(size))
    done = theta(model, "fsck")
    assert done.returncode == 1
    assert oid[:12] in done.stdout
    assert "needed by HEAD:m.safetensors: " in done.stdout
    report = _json(theta(model, "fsck", "--json"))
    assert [problem["kind"] for problem in report["problems"]] == ["corrupt"]
    assert theta(model, "fsck", "--repair").returncode == 0
    assert theta(model, "fsck").returncode == 0


def test_the_index_is_rebuilt_with_one_command(model, theta):
    model.commit_files({"m.safetensors": FIRST})
    for file in (model.path / ".git/theta").glob("index.db*"):
        file.unlink()
    done = theta(model, "fsck", "--reindex")
    assert done.returncode == 0, done.stderr
    assert not done.stdout.endswith(" 0 frames\n")
    before = sorted(path.name for path in (model.path / ".git/theta/objects").rglob("*"))
    model.commit_files({"copy.safetensors": FIRST})
    assert before == sorted(path.name for path in (model.path / ".git/theta/objects").rglob("*"))
    assert theta(model, "fsck", "--reindex", "--full").returncode == 2


def test_gc_removes_only_what_nothing_needs(model, theta):
    folder = model.path / ".git/theta/objects"

    def objects() -> set[str]:
        return {path.name for path in folder.rglob("*") if path.is_file()}

    model.commit_files({"m.safetensors": FIRST})
    needed = objects()
    model.write("m.safetensors", checkpoints.safetensors(checkpoints.tensors(5)))
    model.git("stash", "-q")
    stashed = objects()
    model.write("m.safetensors", checkpoints.safetensors(checkpoints.tensors(6)))
    model.git("add", "m.safetensors")
    staged = objects()
    assert needed < stashed < staged
    assert theta(model, "gc", "--older-than", "0").stdout.startswith("0 objects removed")
    model.git("reset", "-q", "--hard")
    assert theta(model, "gc").stdout.startswith("0 objects removed")  # too young
    assert "would be" in theta(model, "gc", "--older-than", "0", "--dry-run").stdout
    assert objects() == staged
    found = _json(theta(model, "gc", "--older-than", "0", "--json"))
    assert set(found["objects"]) == staged - stashed
    assert objects() == stashed
    model.git("stash", "pop", "-q")
    assert model.read("m.safetensors") == checkpoints.safetensors(checkpoints.tensors(5))


def test_gc_removes_nothing_when_what_a_manifest_needs_is_not_known(model, theta):
    model.commit_files({"m.safetensors": FIRST})
    model.git("rm", "-q", "--cached", "m.safetensors")
    model.git("commit", "-q", "--amend", "--allow-empty", "-m", "none")
    newer = model.git("hash-object", "-w", "--stdin", stdin=b'{"git-theta":99,"x":1}\n')
    model.git("update-index", "--add", "--cacheinfo", f"100644,{newer},newer.safetensors")
    done = theta(model, "gc", "--older-than", "0")
    assert done.returncode == 23
    assert "newer.safetensors" in done.stderr
    assert list((model.path / ".git/theta/objects").rglob("*"))


def test_what_only_begins_like_a_manifest_stops_no_gc(model, theta):
    model.commit_files({"notes.txt": b'{"git-theta":1,"format":1}\n'})
    done = theta(model, "gc", "--older-than", "0")
    assert done.returncode == 0
    assert done.stderr == ""
