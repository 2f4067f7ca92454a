"""`git theta merge`, `resolve`, `replay`, `log` and `strategies`, as people run them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load

from git_theta import manifest
from tests.support import checkpoints
from tests.support.branches import (
    BASE,
    BIAS,
    FIRST,
    PATH,
    SECOND,
    branch,
    changed,
    commit,
    file,
    is_settled,
    recipe,
)
from tests.support.manifests import entry_named
from tests.support.repo import Repo


@pytest.fixture
def branches(once, home, model) -> Repo:
    """Main and three branches: ``one`` and ``two`` overlap in layer.0, ``far`` in no parameter."""

    def work() -> None:
        commit(model, file(), "base")
        branch(model, "one", file(w0=1))
        branch(model, "two", file(w0=2, b1=2))
        branch(model, "far", file(w1=8))
        model.commit_files({"notes": b"main\n"}, "notes")

    once("branches", home, model, work)
    return model


@pytest.fixture
def conflict(once, home, branches) -> Repo:
    """On branch ``one``, in conflict with ``two``."""

    def work() -> None:
        branches.git("checkout", "-q", "one")
        assert branches.process("merge", "two").returncode == 1

    once("conflict", home, branches, work)
    return branches


def ok(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- merge, without any tensor being computed -----------------------------------------------------


def test_several_branches_in_one_commit(branches, theta):
    said = ok(theta(branches, "merge", "one", "far", "-m", "both"))
    assert "1 from one" in said
    assert "1 from far" in said
    assert branches.read(PATH) == file(w0=1, w1=8)
    tips = branches.git("rev-parse", "main~1", "one", "far").split()
    assert branches.git("log", "-1", "--format=%P").split()[1:] == tips[1:]
    assert branches.git("log", "-1", "--format=%s") == "both"
    assert branches.git("rev-parse", "ORIG_HEAD") == branches.git("rev-parse", "HEAD^1")
    assert is_settled(branches)
    assert [side["name"] for side in recipe(branches)["contributors"]] == ["main", "one", "far"]


def test_git_words_the_message_and_runs_hooks(branches, theta):
    hook = branches.write(".git/hooks/commit-msg", b"#!/bin/sh\necho hooked >> $1\n")
    hook.chmod(0o755)
    ok(theta(branches, "merge", "one", "far"))
    body = branches.git("log", "-1", "--format=%B")
    assert body.startswith("Merge branches 'one' and 'far'")
    assert "hooked" in body


def test_conflicts_between_several_branches_change_nothing(branches, theta):
    before = branches.git("rev-parse", "HEAD")
    done = theta(branches, "merge", "one", "two", "far")
    assert done.returncode == 36
    assert f"{PATH}: 1 tensor is in conflict; nothing was changed" in done.stderr
    assert f"{FIRST}: one and two changed it" in done.stderr
    assert branches.git("rev-parse", "HEAD") == before
    assert is_settled(branches)
    branches.process("merge", "--abort")


def test_other_files_are_merged_as_git_merges_them(branches, theta):
    for name, text in (("one", b"main\nof one\n"), ("far", b"by far\nmain\n")):
        branches.git("checkout", "-q", "-b", f"{name}-notes", "main")
        branches.commit_files({"notes": text, f"{name}.txt": b"new"})
        branches.git("merge", "-q", "--no-edit", name)
    branches.git("checkout", "-q", "main")
    ok(theta(branches, "merge", "one-notes", "far-notes"))
    assert branches.read("notes") == b"by far\nmain\nof one\n"
    assert branches.read("one.txt") == branches.read("far.txt") == b"new"
    assert branches.read(PATH) == file(w0=1, w1=8)


def test_other_files_in_conflict_change_nothing(branches, theta):
    for name in ("one", "far"):
        branches.git("checkout", "-q", name)
        branches.commit_files({"notes": name.encode()})
    branches.git("checkout", "-q", "main")
    done = theta(branches, "merge", "one", "far")
    assert done.returncode == 36
    assert "git cannot merge these files of the branches: notes" in done.stderr
    assert is_settled(branches)


def test_local_changes_are_never_lost(branches, theta):
    branches.write(PATH, file(b1=5))
    done = theta(branches, "merge", "one", "far")
    assert done.returncode == 34
    assert "local changes would be overwritten" in done.stderr
    assert branches.read(PATH) == file(b1=5)
    branches.git("add", PATH)
    assert "changes are staged" in theta(branches, "merge", "one", "far").stderr
    branches.git("reset", "-q", "--hard")
    branches.write("notes", b"mine")
    ok(theta(branches, "merge", "one", "far"))
    assert branches.read("notes") == b"mine"
    assert branches.git("status", "--porcelain") == " M notes"


def test_stopping_before_the_commit_and_going_back(branches, theta):
    before = branches.git("rev-parse", "HEAD")
    ok(theta(branches, "merge", "one", "far", "--no-commit"))
    assert branches.read(PATH) == file(w0=1, w1=8)
    assert branches.git("rev-parse", "HEAD") == before
    assert "a merge is under way" in theta(branches, "merge", "two").stderr
    branches.git("merge", "--abort")
    assert branches.read(PATH) == file()
    assert is_settled(branches)
    ok(theta(branches, "merge", "one", "far", "--no-commit", "-m", "later"))
    branches.git("commit", "-q", "--no-edit")
    assert branches.git("log", "-1", "--format=%s %P").count(" ") == 3


def test_a_checkout_that_fails_is_undone(branches, theta):
    for key, value in (("smudge", "exit 1"), ("clean", "cat"), ("required", "true")):
        branches.git("config", f"filter.broken.{key}", value)
    branches.git("checkout", "-q", "far")
    tracked = branches.read(".gitattributes")
    branches.write(".gitattributes", tracked + b"*.bad filter=broken\n")
    branches.git("add", ".gitattributes")
    branches.commit_files({"z.bad": b"x"})
    branches.git("checkout", "-q", "main")
    done = theta(branches, "merge", "one", "far")
    assert done.returncode == 33
    assert branches.read(PATH) == file()
    assert not (branches.path / "z.bad").exists()
    assert branches.git("status", "--porcelain") == ""


def test_a_plan_for_people_and_for_scripts(branches, theta):
    before = branches.git("rev-parse", "HEAD")
    done = theta(branches, "merge", "one", "two", "far", "--dry-run")
    assert done.returncode == 36
    assert f"in conflict: {FIRST}: one and two changed it" in done.stdout
    assert "1 tensor is in conflict; nothing was changed" in done.stderr
    assert "--strategy NAME" in done.stderr
    plan = json.loads(ok(theta(branches, "merge", "one", "far", "-n", "--json")))
    (row,) = plan["checkpoints"]
    assert (row["path"], row["tensors"], row["unchanged"]) == (PATH, 4, 2)
    assert row["taken"] == {"one": 1, "far": 1}
    assert row["device"] is None
    branches.git("checkout", "-q", "one")
    done = theta(branches, "merge", "two", "-n")
    assert (done.returncode, "1 from two" in done.stdout) == (36, True)
    branches.git("checkout", "-q", "main")
    assert branches.git("rev-parse", "HEAD") == before
    assert is_settled(branches)


def test_one_branch_is_merged_where_it_was_planned(branches, theta):
    """Git's driver is asked which files are contested, once, and plans nothing again."""
    driver, asked = branches.git("config", "merge.theta.driver"), branches.path / "asked"
    branches.git("config", "merge.theta.driver", f"echo x >>{asked} && {driver}")
    for hook in ("pre-merge-commit", "post-merge"):
        branches.write(f".git/hooks/{hook}", f"#!/bin/sh\necho {hook} >>{asked}\n".encode())
        (branches.path / ".git/hooks" / hook).chmod(0o755)
    branches.git("checkout", "-q", "one")
    done = theta(branches, "merge", "two", "--strategy", "take", "-p", "side=theirs")
    assert "Merged two" in ok(done)
    assert asked.read_text().split() == ["x", "pre-merge-commit", "post-merge"]
    assert branches.git("log", "-1", "--format=%s") == "Merge branch 'two' into one"
    assert branches.read(PATH) == file(w0=2, b1=2)
    assert recipe(branches) is None  # it is theirs as it is
    done = theta(branches, "merge", "far", "--json", "-m", "with far")
    assert json.loads(ok(done))["checkpoints"]
    assert branches.git("log", "-1", "--format=%s") == "with far"
    assert "Already up to date" in ok(theta(branches, "merge", "far", "one"))


@pytest.mark.parametrize("option", ["merge.ff=only", "branch.one.mergeOptions=--ff-only"])
def test_what_is_configured_of_git_merge_holds(branches, theta, option):
    branches.git("checkout", "-q", "one")
    branches.git("config", *option.split("=", 1))
    done = theta(branches, "merge", "two", "--strategy", "take", "-p", "side=theirs")
    assert done.returncode == 34
    assert "Not possible to fast-forward" in done.stderr
    assert is_settled(branches)


def test_one_branch_in_conflict_is_left_to_be_resolved(branches, theta):
    branches.git("checkout", "-q", "one")
    done = theta(branches, "merge", "two")
    assert done.returncode == 36
    assert "git theta resolve" in done.stderr
    assert branches.git("status", "--porcelain") == f"UU {PATH}"


def test_what_git_refuses_is_no_usage_error(branches, theta):
    branches.commit_files({"notes": b"main goes on"})
    branches.write(PATH, file(b1=5))
    done = theta(branches, "merge", "far")
    assert done.returncode == 34  # git's own status is 2
    assert "would be overwritten by merge" in done.stderr
    assert branches.read(PATH) == file(b1=5)


def test_a_branch_ahead_of_main_is_taken_as_it_is(branches, theta):
    branches.git("checkout", "-q", "-b", "ahead")
    commit(branches, file(w0=9))
    branches.git("checkout", "-q", "main")
    ok(theta(branches, "merge", "ahead"))
    assert branches.git("rev-parse", "main") == branches.git("rev-parse", "ahead")


def test_renamed_on_one_of_several_branches_and_changed_on_another(branches, theta):
    branches.git("checkout", "-q", "far")
    branches.git("mv", PATH, "new.safetensors")
    branches.git("commit", "-q", "-m", "rename")
    branches.git("checkout", "-q", "main")
    done = theta(branches, "merge", "one", "far")
    assert done.returncode == 36
    assert "git cannot merge these files of the branches: new.safetensors" in done.stderr
    branches.git("checkout", "-q", "one")
    ok(theta(branches, "merge", "far"))
    assert branches.read("new.safetensors") == file(w0=1, w1=8)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nowhere",), "nowhere: no such branch or commit"),
        (("one", "-p", "density=1"), "-p density=1 without --strategy"),
        (("one", "two", "--strategy", "tiess"), "did you mean ties?"),
        (("one", "two", "--rule", "bias"), "'bias' is not a rule"),
    ],
)
def test_mistakes_on_the_command_line(branches, theta, args, words):
    done = theta(branches, "merge", *args)
    assert done.returncode
    assert words in done.stderr
    assert is_settled(branches)


def test_unrelated_histories(branches, theta):
    branches.git("checkout", "-q", "--orphan", "other")
    branches.git("commit", "-q", "-m", "other")
    branches.git("checkout", "-q", "main")
    assert "no common ancestor" in theta(branches, "merge", "one", "other").stderr


def test_checkpoints_with_the_same_names_are_prepassed_each_by_itself(branches, theta, theta_here):
    """What TIES must know of one model is not what it must know of another."""
    other = "other.safetensors"
    commit(branches, file(), path=other)
    for seed, name in enumerate(("x", "y"), 1):
        branches.git("checkout", "-q", "-b", name, "main")
        commit(branches, checkpoints.safetensors(checkpoints.finetuned(BASE, 1e-3, seed)))
        large = checkpoints.safetensors(checkpoints.finetuned(BASE, 1.0, seed + 9))
        commit(branches, large, path=other)
    branches.git("checkout", "-q", "main")
    ok(theta(branches, "merge", "x", "y", "--strategy", "ties"))
    # Replay merges each by itself.
    said = ok(theta_here(branches, "replay"))
    assert f"{PATH}: the same bits" in said
    assert f"{other}: the same bits" in said


def test_nan_on_request(branches, theta, theta_here):
    broken = changed(w0=3)
    broken[FIRST][0, 0] = np.nan
    branch(branches, "broken", checkpoints.safetensors(broken))
    branches.git("checkout", "-q", "one")
    done = theta(branches, "merge", "broken", "--strategy", "average")
    assert f"{FIRST} has NaN in an input of the merge" in done.stderr
    assert "--allow-nan" in done.stderr
    assert is_settled(branches)  # nothing was begun: the hint can be followed
    ok(theta(branches, "merge", "broken", "--strategy", "average", "--allow-nan"))
    merged = load(branches.read(PATH))[FIRST]
    assert np.isnan(merged[0, 0])
    np.testing.assert_allclose(merged[1], BASE[FIRST][1] + 2, atol=1e-6)
    assert recipe(branches)["allow_nan"] is True
    assert "the same bits" in ok(theta_here(branches, "replay"))


def crossed(branches: Repo) -> None:
    """Main and ``one``, each with the other's first commit merged into a second of its own."""
    branches.git("checkout", "-q", "main")
    commit(branches, file(w0=3))
    tips = [branches.git("rev-parse", name) for name in ("main", "one")]
    for name, other, shift in (("main", tips[1], 5), ("one", tips[0], 7)):
        branches.git("checkout", "-q", name)
        branches.git("merge", "-q", "-s", "ours", other)
        commit(branches, file(w0=shift))


def test_branches_that_merged_each_other_before(branches, theta):
    """Git makes one ancestor of several, so that only git can merge them."""
    crossed(branches)
    branches.git("checkout", "-q", "main")
    branch(branches, "third", file(w0=9))
    options = "--strategy task_arithmetic"
    for args, hint in (
        ("one third", f"merge one {options} && git theta merge third {options}"),
        ("one --all", f"merge one {options} --no-all"),
    ):
        done = theta(branches, "merge", *args.split(), *options.split())
        assert "several common ancestors" in done.stderr
        assert f"hint: git theta {hint}\n" in done.stderr
    done = theta(branches, *hint.split())
    ok(done)
    assert "Git first merges their common ancestors" in done.stderr
    # The mean of main's 3 and one's 1 is what both started from: 2 + (5 - 2) + (7 - 2).
    merged = load(branches.read(PATH))[FIRST]
    np.testing.assert_allclose(merged, BASE[FIRST] + np.float32(10), atol=1e-5)
    assert recipe(branches)["base"]["recipe"]["fallback_to_base"] is True
    assert is_settled(branches)


def test_routing_by_the_order_of_the_file(branches, theta, tmp_path, theta_here):
    """The first glob that matches counts, after the recipe was written and read too."""
    file = tmp_path / "routing.json"
    file.write_text('{"layer.0.*": {"one": 3, "two": 1}, "*": {"two": 1}}')
    ok(theta(branches, "merge", "one", "two", "--strategy", "smear", "-p", f"routing={file}"))
    merged = load(branches.read(PATH))[FIRST]
    np.testing.assert_allclose(merged, BASE[FIRST] + np.float32(1.25), atol=1e-6)
    file.unlink()
    assert "the same bits" in ok(theta_here(branches, "replay"))


# --- resolve --------------------------------------------------------------------------------------


def test_taking_a_side_of_what_is_contested(conflict, theta):
    said = ok(theta(conflict, "resolve", PATH, "--strategy", "take", "-p", "side=ours"))
    assert f"Resolved and staged {PATH}" in said
    assert "2 from" not in said
    assert conflict.read(PATH) == file(w0=1, b1=2)
    assert conflict.git("status", "--porcelain") == f"M  {PATH}"
    conflict.git("commit", "-q", "--no-edit")
    assert [side["name"] for side in recipe(conflict)["contributors"]] == ["one", "two"]
    assert is_settled(conflict)


def test_rules_of_the_team_count_in_resolve(conflict, theta):
    conflict.write(".theta.toml", b'[merge]\nstrategy = "take:side=theirs"\n')
    ok(theta(conflict, "resolve", PATH))
    assert conflict.read(PATH) == file(w0=2, b1=2)


def test_what_cannot_be_resolved_is_left_as_it_is(conflict, theta):
    done = theta(conflict, "resolve", PATH)
    assert done.returncode == 36
    assert f"{FIRST}: one and two changed it" in done.stderr
    assert conflict.git("status", "--porcelain") == f"UU {PATH}"
    assert "notes: no such file in the index" in theta(conflict, "resolve", "notes").stderr
    conflict.git("merge", "--abort")
    assert "is not in conflict" in theta(conflict, "resolve", PATH).stderr


def test_a_deleted_checkpoint_is_for_git(branches, theta):
    branches.git("rm", "-q", PATH)
    branches.git("commit", "-q", "-m", "remove")
    assert branches.process("merge", "one").returncode == 1
    done = theta(branches, "resolve", PATH)
    assert "the other side deleted it" in done.stderr
    assert f"git rm {PATH}" in done.stderr


def test_resolving_in_a_rebase(branches, theta):
    sides = [checkpoints.safetensors({**BASE, "step": np.array([n])}) for n in range(3)]
    commit(branches, sides[0])
    branch(branches, "left", sides[1])
    branch(branches, "right", sides[2])
    branches.git("checkout", "-q", "right")
    done = branches.process("rebase", "left")
    assert done.returncode == 1
    assert "step: ours and theirs changed it, and I64 is never averaged" in done.stderr.decode()
    ok(theta(branches, "resolve", PATH, "--rule", "step=take:side=theirs"))
    branches.git("rebase", "--continue")
    assert load(branches.read(PATH))["step"] == 2


# --- log and strategies ---------------------------------------------------------------------------


def test_log_tells_what_each_commit_changed(branches, theta):
    ok(theta(branches, "merge", "one", "far"))
    branches.git("mv", PATH, "new.safetensors")
    branches.git("commit", "-q", "-m", "rename")
    rows = json.loads(ok(theta(branches, "log", "new.safetensors", "--json")))
    subjects = [row["subject"] for row in rows]
    assert subjects[:2] == ["rename", "Merge branches 'one' and 'far'"]
    assert sorted(subjects[2:]) == ["base", "far", "one"]
    assert rows[0]["checkpoints"][0]["recipe"] is None
    merge = rows[1]["checkpoints"][0]
    assert (merge["changed"], merge["added"], merge["removed"]) == (2, 0, 0)
    assert merge["stored"] < 1000
    assert merge["recipe"] == "the changes of main, one and far"
    said = ok(theta(branches, "log"))
    assert f"modified: {PATH}: 1 of 4 tensors changed, " in said
    assert "merged by the changes of main, one and far" in said
    assert f"added: {PATH}: 4 tensors, " in said
    shown = branches.git("diff", "HEAD~1^", "HEAD~1")
    assert "\n  merged by the changes of main, one and far\n" in shown
    assert shown.strip() == ok(theta(branches, "diff", "HEAD~1^", "HEAD~1")).strip()
    assert ok(theta(branches, "log", "-n", "1")).count("\n") == 2
    assert ok(theta(branches, "log", "notes")) == ""


def test_strategies_are_listed_without_torch(theta, repo, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('slow')")
    env = {"PYTHONPATH": str(tmp_path)}
    said = ok(theta(repo, "strategies", env=env))
    assert "ties" in said
    assert "the same as average" in said
    rows = json.loads(ok(theta(repo, "strategies", "--json", env=env)))
    assert {k: rows[0][k] for k in ("name", "same_as")} == {"name": "take", "same_as": None}
    assert all(row["summary"].endswith(".") for row in rows)
    assert "whose tensor it is" in ok(theta(repo, "strategies", "take", env=env))
    assert "HYPERPARAMETER" in ok(theta(repo, "strategies", "ties", env=env))


def test_a_merge_is_planned_and_checked_without_torch(branches, theta, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('slow')")
    env = {"PYTHONPATH": str(tmp_path)}
    asked = ("merge", "one", "two", "--dry-run", "--strategy", "ties")
    done = theta(branches, *asked, "-p", "density=0.3", env=env | {"GIT_THETA_DEVICE": "cpu"})
    assert f"{PATH}: 4 tensors\n" in ok(done)
    assert "1 merged with ties (density=0.3)" in done.stdout
    assert "MB, on CPU" in done.stdout or "KB, on CPU" in done.stdout
    done = theta(branches, *asked, "-p", "dens=0.3", env=env)
    assert "ties has no hyperparameter 'dens'" in done.stderr


def test_a_strategy_that_is_broken_hides_no_other(theta, repo, tmp_path):
    (tmp_path / "broken.py").write_text("def merge(:")
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[git_theta.strategies]\nodd = broken:merge\n")
    said = ok(theta(repo, "strategies", env={"PYTHONPATH": str(tmp_path)}))
    assert "odd" in said
    assert "it cannot be loaded: SyntaxError" in said
    assert "ties" in said


def test_without_torch_the_error_says_what_to_install(branches, theta, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    done = theta(
        branches, "merge", "one", "two", "--strategy", "ties", env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 11
    assert 'pip install "theta-vcs[merge]"' in done.stderr


# --- with tensors: torch takes seconds to start, so each test here does much ----------------------


def test_a_strategy_over_several_branches_and_its_replay(branches, theta):
    ok(
        theta(
            branches, "merge", "one", "two", "far",
            *("--strategy", "task_arithmetic", "-p", "weight.two=2", "-p", "lambda=0.5"),
        )
    )  # fmt: skip
    merged = load(branches.read(PATH))
    np.testing.assert_allclose(merged[FIRST], BASE[FIRST] + np.float32(2.5), atol=1e-5)
    np.testing.assert_array_equal(merged[BIAS], changed(b1=2)[BIAS])
    np.testing.assert_array_equal(merged[SECOND], changed(w1=8)[SECOND])
    assert len(branches.git("log", "-1", "--format=%P").split()) == 4
    assert is_settled(branches)
    (rule,) = recipe(branches)["rules"]
    assert rule["hyperparameters"] == {"lambda": 0.5, "weight": [1.0, 1.0, 2.0, 1.0]}
    for threads in ("1", "3"):
        env = {"PYTHONHASHSEED": threads, "GIT_THETA_THREADS": threads, "OMP_NUM_THREADS": threads}
        assert f"{PATH}: the same bits" in ok(theta(branches, "replay", env=env))
    assert "task_arithmetic(lambda=0.5" in ok(theta(branches, "log", "-n1"))


def test_all_parameters_on_request(branches, theta):
    """On the base model, a branch's changes are scaled, not taken."""
    args = ("--all", "--strategy", "task_arithmetic", "-p", "lambda=0.25")
    ok(theta(branches, "merge", "far", *args))
    merged = load(branches.read(PATH))
    np.testing.assert_allclose(merged[SECOND], BASE[SECOND] + np.float32(2), atol=1e-5)
    assert len(branches.git("log", "-1", "--format=%P").split()) == 2
    assert is_settled(branches)


def test_all_parameters_of_a_branch_that_is_ahead(branches, theta, theta_here):
    """HEAD is the common ancestor itself, and no contributor: the branch alone is merged."""
    branches.git("checkout", "-q", "--detach", "main~")
    args = ("--all", "--strategy", "task_arithmetic", "-p", "lambda=0.25")
    said = ok(theta(branches, "merge", "far", *args))
    assert "1 merged with task_arithmetic" in said
    merged = load(branches.read(PATH))[SECOND]
    np.testing.assert_allclose(merged, BASE[SECOND] + np.float32(2), atol=1e-5)
    assert "the same bits" in ok(theta_here(branches, "replay"))
    # What is ours there is the ancestor's.
    branches.git("checkout", "-q", "--detach", "main~")
    ok(theta(branches, "merge", "far", "--rule", "layer.1.*=take:side=ours", *args))
    np.testing.assert_array_equal(load(branches.read(PATH))[SECOND], BASE[SECOND])


def test_a_branch_that_is_ahead_is_no_merge(branches, theta):
    branches.git("checkout", "-q", "--detach", "main~")
    done = theta(branches, "merge", "far", "--strategy", "average")
    ok(done)
    assert "use --all to apply the strategy" in done.stderr
    assert branches.git("rev-parse", "HEAD") == branches.git("rev-parse", "far")


def test_rules_that_match_nothing_are_told(branches, theta):
    args = ("--rule", "layr.*=ties", "--rule", "layer.0.*=average", "--strategy", "average", "-n")
    done = theta(branches, "merge", "one", "two", *args)
    ok(done)
    assert done.stderr == "git-theta: no tensor matches --rule 'layr.*=ties'\n"


def test_what_no_strategy_can_merge_hints_at_taking_a_side(branches, theta):
    other = {name: array.astype(np.float16) for name, array in changed(w0=3).items()}
    branch(branches, "half", checkpoints.safetensors(other))
    branches.git("checkout", "-q", "one")
    done = theta(branches, "merge", "half", "--strategy", "average")
    assert "different dtypes" in done.stderr
    rule = "layer.*.weight=take:side=SIDE"
    where = "where SIDE is ours, theirs, one, half"
    assert f"git theta resolve {PATH} --rule '{rule}' --strategy average, {where}" in done.stderr
    rule = rule.replace("SIDE", "ours")
    ok(theta(branches, "resolve", PATH, "--rule", rule, "--rule", "*=take:side=theirs"))
    branches.git("commit", "-q", "--no-edit")
    assert is_settled(branches)
    # The same words work where nothing was begun.
    branches.git("checkout", "-q", "main")
    done = theta(branches, "merge", "half", "two", "--strategy", "average")
    rules = (f"--rule 'layer.*.{part}=take:side=SIDE'" for part in ("weight", "bias"))
    command = f"git theta merge half two {' '.join(rules)} --strategy average"
    assert f"{command}, where" in done.stderr


def test_a_conflict_in_a_rebase_is_no_rule_s_fault(branches, theta):
    other = {name: array.astype(np.float16) for name, array in changed(w0=3).items()}
    branch(branches, "half", checkpoints.safetensors(other))
    done = branches.process("rebase", "half", "one")
    assert done.returncode
    assert f"git theta resolve {PATH} --strategy NAME" in done.stderr.decode()


def test_some_of_several_files_in_conflict(branches, theta):
    commit(branches, file(), path="other.safetensors")
    assert branches.process("checkout", "one").returncode == 0
    branches.git("merge", "-q", "main")
    assert branches.process("merge", "two").returncode == 1
    said = ok(theta(branches, "resolve", PATH, "other.safetensors", "--strategy", "average"))
    assert said.count("Resolved and staged") == 1
    branches.git("commit", "-q", "--no-edit")
    assert is_settled(branches)
    assert "is not in conflict" in theta(branches, "resolve", PATH, "other.safetensors").stderr


def test_a_branch_that_stores_the_file_otherwise_is_named_with_it(branches, theta):
    branches.git("checkout", "-q", "-b", "plain", "main")
    (branches.path / ".gitattributes").unlink()
    branches.write(PATH, file(w0=7))
    branches.git("add", "-A")
    branches.git("commit", "-q", "-m", "untracked")
    branches.git("checkout", "-q", "main")
    done = theta(branches, "merge", "one", "plain", "--strategy", "average")
    assert done.returncode
    assert f"{PATH}: plain does not store this file with git-theta" in done.stderr


@pytest.mark.parametrize("where", ["in the work tree", "in a clone"])
def test_a_broken_team_file_stops_no_checkout(branches, theta, where, tmp_path):
    """It comes with any commit, and going back to another one must be possible."""
    branches.write(".theta.toml", b"[merge]\nstrategy = average\n")
    branches.git("add", ".theta.toml")
    branches.git("commit", "-q", "-m", "broken")
    repo = branches
    if where == "in a clone":
        remote = Repo.init(tmp_path / "remote.git", "--bare")
        branches.git("push", "-q", "--all", str(remote.path))
        repo = Repo.clone(remote.path, tmp_path / "clone", "-b", "main")
        assert repo.read(PATH) == file()
    done = repo.process("checkout", "one" if repo is branches else "origin/one")
    assert done.returncode == 0, done.stderr
    assert repo.read(PATH) == file(w0=1)
    done = repo.process("checkout", "main")
    assert done.returncode == 0, done.stderr
    repo.write(PATH, file(w0=5))
    done = repo.process("commit", "-q", "-a", "-m", "more")
    assert done.returncode == 0
    assert ".theta.toml: cannot be read" in done.stderr.decode()
    assert "its settings do not count until it is mended" in done.stderr.decode()
    assert is_settled(repo)
    # Merging by other rules than the team's would be wrong.
    done = repo.process("merge", "two" if repo is branches else "origin/two")
    assert done.returncode == 1
    assert repo.read(PATH) == file(w0=5)
    done = theta(repo, "doctor")
    assert ".theta.toml: cannot be read" in done.stdout


def test_asking_whatever_rules_cannot_merge(conflict, theta):
    conflict.git("config", "theta.merge.strategy", "concat")
    said = ok(theta(conflict, "resolve", "-i", PATH, stdin=b"average\n"))
    assert "one moved it by" in said
    assert is_settled(conflict) is False


def test_asking_for_each_kind_of_parameter(conflict, theta):
    conflict.git("config", "mergetool.prompt", "false")
    answers = b"nonsense\n?\naverage:weight.ours=3\n"
    done = conflict.process("mergetool", "-t", "theta", stdin=answers)
    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "[1/1] layer.0.weight" in said
    assert "NAME:KEY=VALUE  with hyperparameters" in said
    assert f"{PATH}.orig is git's copy" in done.stderr.decode()
    assert (conflict.path / f"{PATH}.orig").exists()
    assert "one moved it by" in said
    assert "cosine of the two changes 1.00; opposite signs in 0 % of what both changed" in said
    assert "there is no strategy called 'nonsense'" in said
    expected = (changed(w0=1)[FIRST] * 3 + changed(w0=2)[FIRST]) / np.float32(4)
    np.testing.assert_allclose(load(conflict.read(PATH))[FIRST], expected, rtol=1e-6)
    (conflict.path / f"{PATH}.orig").unlink()
    conflict.git("commit", "-q", "--no-edit")
    assert is_settled(conflict)


def test_stopping_when_asked(conflict, theta):
    before = conflict.git("status", "--porcelain")
    done = theta(conflict, "resolve", "-i", PATH, stdin=b"q\n")
    assert done.returncode == 130
    assert conflict.git("status", "--porcelain") == before


def test_an_answer_is_for_the_parameters_that_were_shown(model, theta):
    """``0.weight`` is of the kind ``*.weight``, which ``head.weight`` is not, though it matches."""
    names = ("0.weight", "1.weight", "head.weight", "tail.weight")

    def shifted(shift: float) -> bytes:
        arrays = {name: np.full((4, 4), shift, np.float32) for name in names}
        return checkpoints.safetensors(arrays)

    commit(model, shifted(0))
    branch(model, "one", shifted(1))
    branch(model, "two", shifted(3))
    model.git("checkout", "-q", "one")
    assert model.process("merge", "two").returncode == 1
    rule = ("--rule", "tail.*=take:side=ours")
    said = ok(theta(model, "resolve", "-i", PATH, *rule, stdin=b"t\naverage\n"))
    assert "[1/2] *.weight (2 tensors)" in said
    assert "[2/2] head.weight" in said
    merged = {name: float(array[0, 0]) for name, array in load(model.read(PATH)).items()}
    assert merged == {"0.weight": 3, "1.weight": 3, "head.weight": 2, "tail.weight": 1}


def test_sides_with_nan_are_shown_as_far_as_they_are_known(branches, theta):
    broken = changed(w0=3)
    broken[FIRST][0, 0] = np.nan
    branch(branches, "broken", checkpoints.safetensors(broken))
    branches.git("checkout", "-q", "one")
    assert branches.process("merge", "broken").returncode == 1
    said = ok(theta(branches, "resolve", "-i", PATH, stdin=b"o\n"))
    assert "broken moved it by an unknown share; cosine of the two changes undefined" in said
    np.testing.assert_array_equal(load(branches.read(PATH))[FIRST], changed(w0=1)[FIRST])


def test_a_replay_that_gives_other_bits(branches, theta_here):
    branches.git("checkout", "-q", "one")
    branches.git("merge", "-q", "far")
    ok(theta_here(branches, "replay", "--json"))
    said = theta_here(branches, "replay", "HEAD~1").stderr
    assert "HEAD~1 merged no checkpoint" in said
    merged, other = (
        manifest.parse(branches.git("show", f"{rev}:{PATH}").encode() + b"\n")
        for rev in ("HEAD", "two")
    )
    tensors = (entry_named(other, FIRST) if e.name == FIRST else e for e in merged.tensors)
    branches.write(PATH, manifest.dump(replace(merged, tensors=tuple(tensors))))
    branches.git("commit", "-q", "-a", "--amend", "--no-edit")
    done = theta_here(branches, "replay")
    assert done.returncode == 34
    assert f"{PATH}: 1 tensor with other bits: {FIRST}" in done.stdout


@pytest.mark.parametrize("deleted", ["keep", "remove"])
def test_a_checkpoint_that_one_of_three_branches_deleted(branches, theta, deleted):
    """It could not be settled at all, and a weight for the branch that lacks it was refused."""
    branches.git("checkout", "-q", "far")
    branches.git("rm", "-q", PATH)
    branches.git("commit", "-q", "-m", "without")
    branches.git("checkout", "-q", "main")
    typed = (
        "one",
        "two",
        "far",
        "--strategy",
        "average",
        "-p",
        "weight.far=2",
        "-p",
        "weight.one=3",
    )
    done = theta(branches, "merge", *typed)
    assert done.returncode == 36
    assert "--deleted keep (or --deleted remove)" in done.stderr
    assert is_settled(branches)
    ok(theta(branches, "merge", *typed, "--deleted", deleted))
    assert (branches.path / PATH).exists() == (deleted == "keep")
    if deleted == "keep":
        merged = load(branches.read(PATH))
        np.testing.assert_allclose(merged[FIRST], BASE[FIRST] + 1, atol=1e-6)  # main has 0
    assert branches.git("status", "--porcelain") == ""
