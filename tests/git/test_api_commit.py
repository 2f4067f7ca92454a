"""State dicts committed from Python, without a file in the work tree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import git_theta
from git_theta import errors
from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"


def _state(seed: int = 0) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(it) for name, it in checkpoints.tensors(seed).items()}


def _assert_state(repo: Repo, rev: str, expected: dict[str, torch.Tensor]) -> None:
    found = git_theta.load_state_dict(PATH, rev, repo.path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_new_branch_begins_at_head_and_nothing_else_moves(model: Repo, tmp_path) -> None:
    head, state = model.git("rev-parse", "HEAD"), _state()
    made = git_theta.commit_state_dict(
        state, PATH, "Step 100\n\nloss 0.5", branch="runs/one", repo=model.path
    )
    assert model.git("rev-parse", "runs/one") == made
    assert model.git("rev-parse", "runs/one~", "HEAD") == f"{head}\n{head}"
    assert model.git("log", "-1", "--format=%B%an", made) == "Step 100\n\nloss 0.5\nA U Thor"
    assert model.git("diff", "--name-status", head, made) == f"A\t{PATH}"
    assert model.git("status", "--porcelain") == ""
    assert not (model.path / PATH).exists()
    _assert_state(model, "runs/one", state)
    git_theta.checkout("runs/one", PATH, tmp_path / "file.safetensors", repo=model.path)
    loaded = load_file(tmp_path / "file.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    with git_theta.open(PATH, "runs/one", model.path) as checkpoint:
        assert checkpoint.metadata() == {"format": "pt"}


def test_the_next_commit_stores_differences_and_an_equal_one_none(model: Repo) -> None:
    arrays = checkpoints.tensors(rows=256)
    first = git_theta.commit_state_dict(arrays, PATH, "One", "run", model.path)
    arrays["layer.0.weight"] = arrays["layer.0.weight"] + np.float32(1e-4)
    second = git_theta.commit_state_dict(arrays, PATH, "Two", "run", model.path)
    assert model.git("rev-parse", "run~") == first
    commit = git_theta.log(PATH, "run", model.path)[0]
    assert commit.checkpoints[0].difference.changed == 1
    assert commit.checkpoints[0].difference.stored < arrays["layer.0.weight"].nbytes / 2
    assert git_theta.commit_state_dict(arrays, PATH, "Three", "run", model.path) == second
    assert model.git("rev-parse", "run") == second


def test_on_the_current_branch_the_index_follows(model: Repo) -> None:
    state = _state()
    made = git_theta.commit_state_dict(state, PATH, "Here", repo=model.path)
    assert model.git("rev-parse", "main", "HEAD") == f"{made}\n{made}"
    assert model.git("status", "--porcelain") == f" D {PATH}"
    model.git("restore", PATH)
    assert model.git("status", "--porcelain") == ""
    assert load_file(model.path / PATH).keys() == state.keys()
    model.git("checkout", "-q", "--detach")
    other = git_theta.commit_state_dict(_state(1), PATH, "Detached", repo=model.path)
    assert model.git("rev-parse", "main", "HEAD") == f"{made}\n{other}"


def test_staged_changes_operations_and_other_work_trees_are_left_alone(
    model: Repo, tmp_path
) -> None:
    head = model.git("rev-parse", "HEAD")
    model.write(PATH, checkpoints.safetensors())
    model.git("add", PATH)
    with pytest.raises(errors.UsageError, match=f"{PATH}: has staged changes"):
        git_theta.commit_state_dict(_state(1), PATH, "Over", repo=model.path)
    model.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    with pytest.raises(errors.UsageError, match="other is checked out in"):
        git_theta.commit_state_dict(_state(1), PATH, "Over", "other", model.path)
    (model.path / ".git/MERGE_HEAD").write_text(head)
    with pytest.raises(errors.MergeError, match="a merge is under way"):
        git_theta.commit_state_dict(_state(1), PATH, "Over", "main", model.path)
    assert model.git("rev-parse", "main", "other") == f"{head}\n{head}"
    made = git_theta.commit_state_dict(_state(1), PATH, "Free", "free", model.path)
    assert model.git("rev-parse", "free") == made
    assert model.git("diff", "--cached", "--name-only") == PATH


def test_what_cannot_be_committed_says_why_and_commits_nothing(model: Repo) -> None:
    model.commit_files({"folder/note.txt": b"x"})
    before = model.git("for-each-ref")
    for state, path, message, branch, said in [
        (_state(), "model.pt", "m", "b", r"ends in \.safetensors"),
        (_state(), "../m.safetensors", "m", "b", "outside the repository"),
        (_state(), PATH, " \n", "b", "needs a message"),
        (_state(), PATH, "m", "a..b", "not a name that a branch can have"),
        (_state(), PATH, "m", "-d", "not a name that a branch can have"),
        ({"step": 3}, PATH, "m", "b", "step is a int, not a tensor"),
        ({3: torch.zeros(1)}, PATH, "m", "b", "3 is not a name"),
        ({"a": torch.zeros(2, device="meta")}, PATH, "m", "b", "meta, without values"),
        ({"a": torch.eye(2).to_sparse()}, PATH, "m", "b", "sparse_coo"),
        ({"a": np.zeros(2, "datetime64[s]")}, PATH, "m", "b", "safetensors does not have"),
    ]:
        with pytest.raises(errors.UsageError, match=said):
            git_theta.commit_state_dict(state, path, message, branch, model.path)
    with pytest.raises(errors.UsageError, match="metadata maps strings"):
        git_theta.commit_state_dict({}, PATH, "m", repo=model.path, metadata={"a": 1})  # type: ignore[dict-item]
    assert model.git("for-each-ref") == before


def test_a_path_that_is_not_tracked_or_would_replace_files_is_refused(
    repo: Repo, model: Repo
) -> None:
    model.commit_files({"m.safetensors/note.txt": b"x"})
    with pytest.raises(errors.UsageError, match=r"would replace m\.safetensors/note\.txt"):
        git_theta.commit_state_dict(_state(), "m.safetensors", "m", "b", model.path)
    model.git("rm", "-q", ".gitattributes")
    model.git("commit", "-q", "-m", "Untracked")
    with pytest.raises(errors.UsageError, match="does not track it"):
        git_theta.commit_state_dict(_state(), PATH, "m", "b", model.path)


def test_without_a_commit_there_is_nothing_to_begin_at(repo: Repo) -> None:
    with pytest.raises(errors.UsageError, match="no commit yet"):
        git_theta.commit_state_dict(_state(), PATH, "m", repo=repo.path)


def test_commits_of_several_writers_to_one_branch_all_stay(model: Repo) -> None:
    def commit(number: int) -> str:
        state = {"a": np.full(8, number, np.float32)}
        path = f"{number}.safetensors"
        return git_theta.commit_state_dict(state, path, f"Run {number}", "runs", model.path)

    with ThreadPoolExecutor(4) as pool:
        made = [*pool.map(commit, range(8))]
    assert set(model.git("rev-list", "main..runs").split()) == set(made)
    assert model.git("ls-tree", "--name-only", "runs").count(".safetensors") == 8


def test_a_bare_repository_takes_commits_and_a_push_their_objects(
    model: Repo, server, tmp_path
) -> None:
    bare = Repo.clone(model.path, tmp_path / "bare.git", "--bare")
    made = git_theta.commit_state_dict(_state(), PATH, "In a bare one", "main", bare.path)
    assert bare.git("rev-parse", "main") == made
    _assert_state(bare, "main", _state())
    bare.git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"))
    with pytest.raises(errors.UsageError, match="linked is checked out in"):
        git_theta.commit_state_dict(_state(), PATH, "m", "linked", bare.path)
    git_theta.commit_state_dict(_state(), PATH, "To push", "run", model.path)
    model.git("push", "-q", server.repository(), "run")
    fresh = Repo.clone(server.url + "/team/model.git", tmp_path / "fresh", "-b", "run")
    assert load_file(fresh.path / PATH).keys() == _state().keys()


# --- every dtype, tied and 0-d tensors -----------------------------------------------------------

TORCH = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    torch.float8_e8m0fnu,
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128),
]


def _every_dtype() -> dict[str, torch.Tensor]:
    raw = torch.randint(0, 2, (6 * 16,), dtype=torch.uint8, generator=torch.Generator())
    state = {str(kind): raw[: 6 * kind.itemsize].clone().view(kind).reshape(2, 3) for kind in TORCH}
    state["nan"] = torch.tensor([0x7FC00001, -0x00400000, -0x80000000], dtype=torch.int32).view(
        torch.float32
    )
    state["scalar"] = torch.tensor(2.5, dtype=torch.bfloat16)
    state["empty"] = torch.empty(0, 3)
    state["transposed"] = torch.arange(6.0).reshape(2, 3).T
    state["conjugate"] = torch.tensor([1 + 2j]).conj()
    state["tied"] = state["again"] = torch.arange(4.0)
    return state


def _bits(tensor: torch.Tensor) -> list[int]:
    plain = tensor.resolve_conj().contiguous().reshape(-1)
    return plain.view(torch.uint8).tolist()


def test_every_dtype_comes_back_in_both_frameworks(model: Repo, tmp_path) -> None:
    state = _every_dtype()
    git_theta.commit_state_dict(state, PATH, "All", "all", model.path)
    with git_theta.open(PATH, "all", model.path, framework="pt") as checkpoint:
        whole = checkpoint.load_state_dict()
        for name, tensor in state.items():
            for found in (checkpoint[name], checkpoint.get_slice(name)[...], whole[name]):
                assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
                assert _bits(found) == _bits(tensor), name
            assert list(checkpoint.get_bytes(name)) == _bits(tensor)
    with git_theta.open(PATH, "all", model.path) as arrays:
        for name, tensor in state.items():
            assert arrays[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
            assert arrays[name].shape == tensor.shape
            assert list(arrays[name].tobytes()) == _bits(tensor), name
        back = dict(arrays)
    git_theta.commit_state_dict(
        back, PATH, "Of numpy", "back", model.path, metadata={"format": "pt"}
    )
    assert model.git("diff", "all", "back") == ""


def test_without_ml_dtypes_bf16_says_what_to_do(
    model: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2)}
    git_theta.commit_state_dict(state, PATH, "All", "all", model.path)
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with git_theta.open(PATH, "all", model.path) as checkpoint:
        assert checkpoint["b"].tolist() == [1, 1]
        with pytest.raises(errors.UsageError, match=r"a is BF16.*\n.*pip install ml_dtypes"):
            checkpoint["a"]
        assert checkpoint.get_bytes("a") == b"\x80\x3f\x80\x3f"


def test_torch_files_with_tied_and_strided_tensors(model: Repo) -> None:
    table = torch.arange(24.0).reshape(4, 6)
    state = {
        "table": table,
        "tied": table,
        "turned": table.T,
        "row": table[2],
        "n": torch.tensor(7),
    }
    torch.save(state, model.path / "model.pt")
    model.commit("Torch", **{"model.pt": model.read("model.pt")})
    for rev in ("HEAD", None):
        with git_theta.open("model.pt", rev, model.path, framework="pt") as checkpoint:
            assert checkpoint.keys() == state.keys()
            assert all(torch.equal(checkpoint[name], tensor) for name, tensor in state.items())
            assert torch.equal(checkpoint.get_slice("turned")[1:3], table.T[1:3])
            assert checkpoint.metadata() is None
        with git_theta.open("model.pt", rev, model.path) as arrays:
            for name, tensor in state.items():
                np.testing.assert_array_equal(arrays[name], tensor.numpy(), strict=True)
    loaded = git_theta.load_state_dict("model.pt", repo=model.path)
    loaded["tied"][2, 0] = -1
    assert loaded["table"][2, 0] == loaded["turned"][0, 2] == loaded["row"][0] == -1


def test_packed_floats_are_as_torch_has_them_and_bytes_for_numpy(model: Repo) -> None:
    head = b'{"a":{"dtype":"F4","shape":[2,4],"data_offsets":[0,4]}}'
    head += b" " * (-len(head) % 8)
    model.commit("F4", **{PATH: len(head).to_bytes(8, "little") + head + b"\x12\x34\x56\x78"})
    with git_theta.open(PATH, repo=model.path, framework="pt") as checkpoint:
        assert checkpoint["a"].dtype == torch.float4_e2m1fn_x2
        assert checkpoint["a"].view(torch.uint8).tolist() == [[0x12, 0x34], [0x56, 0x78]]
    with git_theta.open(PATH, repo=model.path) as arrays:
        with pytest.raises(errors.UsageError, match=r"F4(.|\n)*get_bytes\('a'\)"):
            arrays["a"]
        assert arrays.get_bytes("a") == b"\x12\x34\x56\x78"
