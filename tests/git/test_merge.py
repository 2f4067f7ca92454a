"""Every way in which git merges files, on checkpoints: the file is right, or a conflict says so."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile

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
from tests.support.repo import Repo


@pytest.fixture
def apart(once, home, model):
    """Main and a branch called rte in ``model``, both with a commit after ``base``."""

    def prepare(ours: bytes, theirs: bytes, base: bytes | None = None) -> Repo:
        def work() -> None:
            commit(model, file() if base is None else base, "base")
            branch(model, "rte", theirs)
            commit(model, ours, "ours")

        once((ours, theirs, base), home, model, work)
        return model

    return prepare


def averages(repo: Repo) -> Repo:
    repo.git("config", "theta.merge.strategy", "average")
    return repo


# --- without any tensor being computed ------------------------------------------------------------


def test_changes_of_different_parameters_are_put_together(apart):
    model = apart(file(w0=1), file(w1=2))
    model.git("merge", "-q", "rte")
    assert model.read(PATH) == file(w0=1, w1=2)
    assert is_settled(model)
    assert recipe(model)["rules"] == []
    assert [side["name"] for side in recipe(model)["contributors"]] == ["main", "rte"]


def test_what_is_taken_is_not_stored_again(apart):
    model = apart(file(w0=1), file(w1=2))
    before = _objects(model)
    model.git("merge", "-q", "rte")
    new = _objects(model) - before
    assert sum(size for _, size in new) < 1000  # the header, which is the same, and nothing else


def _objects(repo: Repo) -> set[tuple[str, int]]:
    files = (repo.path / ".git/theta/objects").rglob("*")
    return {(file.name, file.stat().st_size) for file in files if file.is_file()}


def test_additions_and_removals_make_a_new_header(apart):
    ours = changed(w0=1)
    ours["adapter"] = np.ones((3, 32), np.float16)
    theirs = changed(w1=2)
    del theirs[BIAS]
    model = apart(checkpoints.safetensors(ours, by="us"), checkpoints.safetensors(theirs))
    model.git("merge", "-q", "rte")
    merged = load(model.read(PATH))
    expected = {**ours, SECOND: theirs[SECOND]}
    del expected[BIAS]
    assert merged.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(merged[name], array)
    assert b'"__metadata__":{"by":"us"}' in model.read(PATH)
    assert is_settled(model)


def test_metadata_that_one_side_changed_is_taken(apart):
    theirs = checkpoints.safetensors(changed(w1=2), by="them")
    model = apart(file(w0=1), theirs)
    model.git("merge", "-q", "rte")
    assert model.read(PATH) == checkpoints.safetensors(changed(w0=1, w1=2), by="them")


def test_a_change_on_both_sides_is_a_conflict_that_leaves_ours(apart):
    model = apart(file(w0=1, b1=1), file(w0=2, w1=1))
    done = model.process("merge", "rte")
    assert done.returncode == 1
    words = done.stderr.decode()
    assert f"{PATH}: 1 tensor is in conflict; the file in the work tree is ours" in words
    assert f"{FIRST}: main and rte changed it" in words
    assert f"git theta resolve {PATH} --strategy NAME" in words
    assert model.read(PATH) == file(w0=1, b1=1)
    assert model.git("status", "--porcelain") == f"UU {PATH}"
    model.git("merge", "--abort")
    assert model.read(PATH) == file(w0=1, b1=1)
    assert is_settled(model)


def test_many_conflicts_are_told_by_kind(apart):
    both = {"w0": 1.0, "w1": 1.0, "b1": 1.0}
    model = apart(file(**both), file(**dict.fromkeys(both, 2.0)))
    words = model.process("merge", "rte").stderr.decode()
    assert "3 tensors are in conflict" in words
    assert "layer.*.weight (2): main and rte changed it" in words


def test_different_shapes_are_a_conflict_that_shows_them(apart):
    longer = changed()
    longer[FIRST] = np.zeros((40, 32), np.float32)
    model = apart(file(w0=1), checkpoints.safetensors(longer))
    words = averages(model).process("merge", "rte").stderr.decode()
    assert f"{FIRST}: the sides have different shapes (main: [32, 32], rte: [40, 32])" in words


def test_integers_are_never_averaged(apart):
    sides = [checkpoints.safetensors({**BASE, "step": np.array([n])}) for n in range(3)]
    model = apart(sides[1], sides[2], base=sides[0])
    words = averages(model).process("merge", "rte").stderr.decode()
    assert "step: main and rte changed it, and I64 is never averaged" in words
    model.git("merge", "--abort")
    model.write(".theta.toml", b'[[merge.rules]]\nmatch="step"\nstrategy="take"\nside="theirs"\n')
    model.git("merge", "-q", "rte")
    assert load(model.read(PATH))["step"] == 2


def test_the_same_change_on_both_sides(apart):
    model = apart(file(w0=1), file(w0=1))
    model.git("merge", "-q", "rte")
    assert model.read(PATH) == file(w0=1)


def test_a_crash_leaves_ours_and_says_why(apart):
    model = apart(file(w0=1), file(w1=2))
    objects = model.path / ".git/theta/objects"
    objects.rename(objects.with_name("gone"))
    done = model.process("merge", "rte")
    shutil.rmtree(objects, ignore_errors=True)
    objects.with_name("gone").rename(objects)
    assert done.returncode
    assert "missing locally and there is no remote" in done.stderr.decode()
    assert model.read(PATH) == file(w0=1)
    model.git("merge", "--abort")
    assert is_settled(model)


def test_a_side_that_is_stored_otherwise(model):
    """Committed by someone who had not installed git-theta."""
    raw = ("-c", "filter.theta.process=", "-c", "filter.theta.required=false")
    commit(model, file())
    model.git("checkout", "-q", "-b", "raw")
    model.write(PATH, file(w0=1))
    model.git(*raw, "add", PATH)
    model.git(*raw, "commit", "-q", "-m", "raw")
    model.git("checkout", "-q", "-f", "main")
    commit(model, file(w1=1))
    model.git("merge", "-q", "-m", "merge", "raw")
    assert model.read(PATH) == file(w0=1, w1=1)
    assert model.git("show", f"HEAD:{PATH}").startswith('{"git-theta"')


def test_a_side_that_has_left_is_not_merged(model):
    """The merge would untrack the path, and leave a manifest there as text."""
    commit(model, file())
    model.git("checkout", "-q", "-b", "left")
    (model.path / ".gitattributes").unlink()
    model.write(PATH, file(w0=1))
    model.git("add", "-A")
    model.git("commit", "-q", "-m", "left")
    model.git("checkout", "-q", "-f", "main")
    commit(model, file(w1=1))
    words = model.process("merge", "left").stderr.decode()
    assert "left does not store this file with git-theta" in words
    assert model.read(PATH) == file(w1=1)


def test_files_without_known_tensors(apart):
    model = apart(b"ours", b"theirs", base=b"base")
    done = model.process("merge", "rte")
    assert done.returncode == 1
    assert "no tensors are known that all sides have" in done.stderr.decode()
    assert model.read(PATH) == b"ours"


def test_a_rename_on_one_side(model):
    commit(model, file(), "base")
    branch(model, "rte", file(w1=2))
    model.git("mv", PATH, "new.safetensors")
    model.git("commit", "-q", "-m", "rename")
    commit(model, file(w0=1), path="new.safetensors")
    model.git("merge", "-q", "rte")
    assert model.read("new.safetensors") == file(w0=1, w1=2)
    assert not (model.path / PATH).exists()
    assert is_settled(model)


def test_both_sides_add_the_file(model):
    branch(model, "rte", file(w0=1))
    commit(model, file(w1=2))
    words = model.process("merge", "rte").stderr.decode()
    assert "2 tensors are in conflict" in words
    assert model.read(PATH) == file(w1=2)


def test_deleted_on_one_side_and_changed_on_the_other(model):
    commit(model, file(), "base")
    branch(model, "rte", file(w0=1))
    model.git("rm", "-q", PATH)
    model.git("commit", "-q", "-m", "remove")
    assert model.process("merge", "rte").returncode == 1
    assert model.read(PATH) == file(w0=1)
    assert model.git("status", "--porcelain") == f"DU {PATH}"


def test_their_side_on_request(apart):
    model = apart(file(w0=1), file(w0=2))
    done = model.process("merge", "-q", "-X", "theirs", "rte")
    assert done.returncode == 1  # -X is for lines of text: a strategy decides between tensors
    model.git("checkout", "--theirs", "--", PATH)
    assert model.read(PATH) == file(w0=2)
    model.git("add", PATH)
    model.git("commit", "-q", "-m", "theirs")
    assert is_settled(model)


@pytest.mark.parametrize(
    "command", [("rebase", "rte"), ("cherry-pick", "rte"), ("stash", "pop"), ("am", "-3", "patch")]
)
def test_a_change_is_replayed_where_nothing_else_changed(model, command, tmp_path):
    commit(model, file(), "base")
    branch(model, "rte", file(w1=2))
    if command[0] == "stash":
        model.write(PATH, file(w0=1))
        model.git("stash", "-q")
        model.git("reset", "-q", "--hard", "rte")
    else:
        commit(model, file(w0=1), "ours")
    if command[0] == "am":
        patch = model.git("format-patch", "-1", "--stdout", "--full-index", "--binary", "rte")
        (model.path / "patch").write_text(patch + "\n")
    model.git(*command)
    assert model.read(PATH) == file(w0=1, w1=2)


def test_switching_branches_with_a_change_that_is_kept(model):
    commit(model, file(), "base")
    branch(model, "rte", file(w1=2))
    model.write(PATH, file(w0=1))
    model.git("checkout", "-q", "-m", "rte")
    assert model.read(PATH) == file(w0=1, w1=2)
    model.git("checkout", "-q", "-f", "main")
    model.write(PATH, file(w1=1, b1=1))
    model.git("config", "theta.merge.strategy", "average")  # it adds the change all the same
    model.git("checkout", "-q", "-m", "rte")
    np.testing.assert_allclose(
        load(model.read(PATH))[SECOND], changed(w1=3)[SECOND], rtol=1e-6, atol=1e-6
    )


def test_merge_tree_writes_a_tree(apart):
    model = apart(file(w0=1), file(w1=2))
    tree = model.git("merge-tree", "--write-tree", "main", "rte")
    assert model.git("rev-parse", "HEAD^{tree}") != tree
    model.git("read-tree", "-u", "-m", tree)
    assert model.read(PATH) == file(w0=1, w1=2)
    words = model.git("show", f"{tree}:{PATH}")
    assert "git-theta" in words


def test_a_merge_in_a_bare_repository(apart, tmp_path):
    model = apart(file(w0=1), file(w1=2))
    bare = Repo.clone(model.path, tmp_path / "bare.git", "--bare")
    (bare.path / "theta").symlink_to(model.path / ".git/theta")
    tree = bare.git(
        "-c",
        "core.attributesFile=" + str(model.path / ".gitattributes"),
        "merge-tree",
        "--write-tree",
        "main",
        "rte",
    )
    merged = manifest.parse(bare.git("show", f"{tree}:{PATH}").encode() + b"\n")
    assert merged.recipe is not None


def test_octopus_stops_in_conflict_and_its_markers_are_not_added(model, theta):
    commit(model, file(), "base")
    branch(model, "one", file(w0=1))
    branch(model, "two", file(w1=1))
    model.commit_files({"other": b"x"})
    done = model.process("merge", "one", "two")
    assert done.returncode == 1
    words = done.stderr.decode()
    assert f"{PATH}: git merges several branches at once" in words
    assert "hint: git reset --merge && git theta merge one two\n" in words
    assert model.read(PATH).startswith(b"<<<<<<<")
    done = model.process("add", PATH)
    assert done.returncode
    assert "left conflict markers in it" in done.stderr.decode()
    assert "git theta merge" in done.stderr.decode()
    assert theta(model, "resolve", PATH).returncode == 0
    assert model.read(PATH) == file(w0=1, w1=1)
    model.git("commit", "-q", "--no-edit")
    assert is_settled(model)


def test_octopus_that_fails_early_leaves_everything_and_its_hint_merges(model):
    commit(model, file(), "base")
    for name, place in (("one", "w0"), ("two", "w1"), ("three", "b1")):
        branch(model, name, file(**{place: 1}))
    model.commit_files({"other": b"x"})
    done = model.process("merge", "one", "two", "three")
    assert done.returncode == 2
    assert model.read(PATH) == file()
    assert is_settled(model)
    (hint,) = set(re.findall("hint: (git reset.*)", done.stderr.decode()))
    assert hint.endswith("git theta merge one two three")
    subprocess.run(hint, shell=True, cwd=model.path, check=True)
    assert model.read(PATH) == file(w0=1, w1=1, b1=1)


def test_missing_objects_are_fetched(apart, remote, tmp_path):
    model = apart(file(w0=1), file(w1=2))
    model.git("remote", "add", "origin", str(remote.path))
    model.git("push", "-q", "origin", "main", "rte")
    clone = Repo.clone(remote.path, tmp_path / "clone")
    clone.git("merge", "-q", "origin/rte")
    assert clone.read(PATH) == file(w0=1, w1=2)
    clone.git("push", "-q", "origin", "main")
    other = Repo.clone(remote.path, tmp_path / "other")
    assert other.read(PATH) == file(w0=1, w1=2)


def test_a_large_result_is_written_by_the_hook(apart):
    model = apart(file(w0=1), file(w1=2))
    model.git("config", "theta.directabove", "0")
    model.git("merge", "-q", "rte")
    assert model.read(PATH) == file(w0=1, w1=2)
    assert is_settled(model)


# --- with tensors: torch takes seconds to start, so each test here does much ----------------------


def test_strategies_of_configuration_and_team_file(apart):
    """Rules of the team before the user's default, the first match; the bits of a mean."""
    model = apart(file(w0=1, w1=1, b1=4), file(w0=3, w1=3, b1=8))
    model.git("config", "theta.merge.strategy", "take:side=ours")
    model.write(
        ".theta.toml",
        b'[[merge.rules]]\nmatch = "*.bias"\npath = "other*"\nstrategy = "take"\nside = "base"\n'
        b'[[merge.rules]]\nmatch = "layer.0.*"\nstrategy = "average"\nweight = {rte = 3.0}\n'
        b'[[merge.rules]]\nmatch = "*.bias"\nstrategy = "take"\nside = "theirs"\n',
    )
    model.git("add", ".theta.toml")
    model.git("commit", "-q", "-m", "rules")
    model.git("merge", "-q", "rte")
    merged = load(model.read(PATH))
    np.testing.assert_array_equal(
        merged[FIRST], (changed(w0=1)[FIRST] + 3 * changed(w0=3)[FIRST]) / np.float32(4)
    )
    np.testing.assert_array_equal(merged[SECOND], changed(w1=1)[SECOND])
    np.testing.assert_array_equal(merged[BIAS], changed(b1=8)[BIAS])
    assert is_settled(model)
    rules = recipe(model)["rules"]
    assert [rule["strategy"] for rule in rules] == ["average", "take", "take"]
    assert rules[0]["hyperparameters"] == {"normalize": True, "weight": [1.0, 3.0]}
    assert recipe(model)["device"] == "cpu"


def test_a_torch_file_keeps_its_pickle_and_gets_new_checksums(model):
    import torch

    def save(path: str, epoch: int, **shifts: float) -> None:
        tensors = {name: torch.from_numpy(a.copy()) for name, a in changed(**shifts).items()}
        tensors["tied"] = tensors[SECOND]
        tensors["turned"] = tensors[FIRST].t()
        torch.save({"model": tensors, "epoch": epoch}, model.path / path)
        model.git("add", path)
        model.git("commit", "-q", "-m", path)

    save("model.pt", 1)
    model.git("checkout", "-q", "-b", "rte")
    save("model.pt", 2, w0=3, b1=1)
    model.git("checkout", "-q", "main")
    save("model.pt", 1, w0=1, w1=5)
    averages(model).git("merge", "-q", "rte")
    merged = torch.load(model.path / "model.pt")
    expected = {
        FIRST: changed(w0=2)[FIRST],
        SECOND: changed(w1=5)[SECOND],
        BIAS: changed(b1=1)[BIAS],
    }
    for name, array in expected.items():
        np.testing.assert_allclose(merged["model"][name].numpy(), array, rtol=1e-6, atol=1e-6)
    assert merged["epoch"] == 2
    assert merged["model"]["tied"].data_ptr() == merged["model"][SECOND].data_ptr()
    assert merged["model"]["turned"].data_ptr() == merged["model"][FIRST].data_ptr()
    with zipfile.ZipFile(model.path / "model.pt") as archive:
        assert archive.testzip() is None
    assert is_settled(model)


@pytest.mark.parametrize("command", ["rebase", "cherry-pick", "revert", "stash"])
def test_a_change_is_added_where_both_changed(model, command):
    """Never averaged, whatever is configured: history would be corrupted."""
    averages(model)
    commit(model, file(), "base")
    branch(model, "rte", file(w0=4))
    commit(model, file(w0=1), "ours")
    expected = {"rebase": 5, "cherry-pick": 5, "revert": -3, "stash": 8}[command]
    if command == "revert":
        model.git("reset", "-q", "--hard", "rte")
        commit(model, file(w0=1))
        model.git("revert", "--no-edit", "HEAD~1")
    elif command == "stash":
        model.write(PATH, file(w0=5))
        model.git("stash", "-q")
        model.git("reset", "-q", "--hard", "rte")
        model.git("stash", "pop", "-q")
    else:
        model.git(command, "rte")
    merged = load(model.read(PATH))[FIRST]
    np.testing.assert_allclose(merged, BASE[FIRST] + np.float32(expected), atol=1e-5)


def test_criss_cross_histories(apart):
    """The virtual ancestor of two ancestors is their mean, made by everybody the same."""
    model = averages(apart(file(w0=2), file(w0=4)))
    tips = [model.git("rev-parse", name) for name in ("main", "rte")]
    model.git("merge", "-q", tips[1])
    commit(model, checkpoints.safetensors({**load(model.read(PATH)), BIAS: changed(b1=1)[BIAS]}))
    model.git("checkout", "-q", "rte")
    model.git("merge", "-q", tips[0])
    commit(
        model, checkpoints.safetensors({**load(model.read(PATH)), SECOND: changed(w1=1)[SECOND]})
    )
    model.git("checkout", "-q", "main")
    model.git("merge", "-q", "rte")
    merged = load(model.read(PATH))
    np.testing.assert_allclose(merged[FIRST], BASE[FIRST] + np.float32(3), atol=1e-5)
    np.testing.assert_array_equal(merged[SECOND], changed(w1=1)[SECOND])
    np.testing.assert_array_equal(merged[BIAS], changed(b1=1)[BIAS])
    assert recipe(model)["base"]["recipe"]["fallback_to_base"] is True
    assert is_settled(model)
