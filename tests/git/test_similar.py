"""`git theta similar`: task vectors of revisions, compared by projections and exactly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"
ADAPTER = "adapter/adapter_model.safetensors"
RANDOM = np.random.default_rng(6)
SHAPES = {"layer.0.weight": (60, 40), "layer.1.weight": (50, 70), "layer.1.bias": (70,)}
BASE = {name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
TASKS = [{n: RANDOM.standard_normal(s) for n, s in SHAPES.items()} for _ in range(2)]
MIXES = {"math": (1.0, 0.0), "code": (0.0, 1.0), "both": (0.6, 0.8), "minus": (-1.0, 0.2)}


def mixed(one: float, other: float) -> dict[str, np.ndarray]:
    return {
        name: (base + 0.01 * (one * TASKS[0][name] + other * TASKS[1][name])).astype(np.float32)
        for name, base in BASE.items()
    }


def adapter(mix: tuple[float, float]) -> dict[str, bytes]:
    """Both tasks' factors of layer 0 side by side, weighted, at a scale of 2."""
    parts = [(np.random.default_rng(task), weight) for task, weight in enumerate(mix) if weight]
    down = np.vstack([random.standard_normal((4, 40)) for random, _ in parts])
    up = np.hstack([weight * random.standard_normal((60, 4)) for random, weight in parts])
    tensors = {"base_model.model.layer.0.lora_A.weight": down}
    tensors["base_model.model.layer.0.lora_B.weight"] = up
    config = {"peft_type": "LORA", "r": len(down), "lora_alpha": 2 * len(down)}
    return {
        ADAPTER: checkpoints.safetensors({n: a.astype(np.float32) for n, a in tensors.items()}),
        "adapter/adapter_config.json": json.dumps(config).encode(),
    }


def product(files: dict[str, bytes]) -> np.ndarray:
    from safetensors.numpy import load

    (_, down), (_, up) = sorted(load(files[ADAPTER]).items())
    return 2 * up.astype(np.float64) @ down.astype(np.float64)


@pytest.fixture
def history(once, home, model) -> Repo:
    """A branch for each mix of two tasks, with the full model and the adapter."""

    def work() -> None:
        model.commit("Base", **{PATH: checkpoints.safetensors(BASE)})
        for name, mix in MIXES.items():
            model.git("checkout", "-q", "-b", name, "main")
            files = {PATH: checkpoints.safetensors(mixed(*mix))}
            model.commit_files({**files, **adapter(mix)}, name)
        model.git("checkout", "-q", "main")
        model.git("checkout", "-q", "--orphan", "pages")
        model.git("rm", "-q", "-r", "-f", ".")
        model.commit("Pages", **{"index.html": b"x"})
        model.git("checkout", "-q", "main")

    once("similar history", home, model, work)
    return model


def ranked(theta_here, repo: Repo, *args: str) -> dict[str, Any]:
    done = theta_here(repo, "similar", "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def vector(name: str) -> np.ndarray:
    made = mixed(*MIXES[name])
    return np.concatenate([(made[n].astype(np.float64) - BASE[n]).ravel() for n in SHAPES])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


def remove_objects(repo: Repo) -> None:
    for file in (repo.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.unlink()


def test_branches_are_ranked_and_nothing_is_decoded_twice(history, theta_here):
    history.git("tag", "same-as-code", "code")
    history.git("branch", "same-as-math", "math")
    found = ranked(theta_here, history, "math", "--", PATH)
    assert found["base"] == history.git("rev-parse", "main")
    rows = {row["revision"]: row for row in found["others"]}
    assert [*rows] == ["both", "code", "minus", "main"]  # pages has no such file
    assert rows["main"] == {
        "revision": "main",
        "commit": history.git("rev-parse", "main"),
        "cosine": None,
        "norm": 0.0,
    }
    for name in ("both", "code", "minus"):
        assert rows[name]["cosine"] == pytest.approx(cosine(vector("math"), vector(name)), abs=0.05)
        assert rows[name]["norm"] == pytest.approx(np.linalg.norm(vector(name)), rel=0.05)
    remove_objects(history)
    assert ranked(theta_here, history, "math", "--", PATH) == found
    # A projection that is damaged is made again, and what is not here is said.
    for file in (history.path / ".git/theta/similar").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert theta_here(history, "similar", "math", "--", PATH).returncode == 20


def test_exact_cosines_are_those_of_numpy(history, theta_here):
    found = ranked(theta_here, history, "math", "code", "both", "minus", "--exact", "--", PATH)
    for row in found["others"]:
        name = row["revision"]
        assert row["cosine"] == pytest.approx(cosine(vector("math"), vector(name)), rel=1e-9)
        assert row["norm"] == pytest.approx(np.linalg.norm(vector(name)), rel=1e-9)
    assert not (history.path / ".git/theta/similar").exists()


def test_adapters_are_compared_by_their_products(history, theta_here):
    products = {name: product(adapter(mix)) for name, mix in MIXES.items()}
    for exact, error in ((("--exact",), 1e-6), ((), 0.06)):
        found = ranked(theta_here, history, "both", "[mc]*", *exact, "--", ADAPTER)
        assert {row["revision"] for row in found["others"]} == {"math", "minus", "code"}
        for row in found["others"]:
            expected = cosine(products["both"], products[row["revision"]])
            assert row["cosine"] == pytest.approx(expected, abs=error)
            norm = np.linalg.norm(products[row["revision"]])
            assert row["norm"] == pytest.approx(norm, rel=max(error, 1e-6))


def test_all_checkpoints_count_and_all_pairs_are_shown(history, theta_here):
    names = ["math", "code", "both", "minus"]
    found = ranked(theta_here, history, *names, "--exact", "--matrix")
    assert found["paths"] == sorted([ADAPTER, PATH])
    folder = Repo(history.path / "adapter")
    folder.path.mkdir()
    for path, expected in (("..", [ADAPTER, PATH]), (".", [ADAPTER]), ("../*.safetensors", None)):
        paths = ranked(theta_here, folder, *names, "--", path)["paths"]
        assert paths == sorted(expected or [ADAPTER, PATH])
    for command in (("gc",), ("fsck",)):  # what is kept beside the objects is none of theirs
        assert theta_here(history, *command).returncode == 0
    full = {n: np.append(vector(n), product(adapter(MIXES[n]))) for n in names}
    expected = [[cosine(full[row], full[column]) for column in names] for row in names]
    np.testing.assert_allclose(found["matrix"], expected, atol=1e-6)
    said = theta_here(history, "similar", *names, "--matrix", "--exact").stdout.splitlines()
    assert said[0].split() == ["1", "2", "3", "4", "REVISION"]
    assert said[1].split() == ["1", *(f"{value:.3f}" for value in expected[0]), "math"]
    line = theta_here(history, "similar", "math", "-n", "1", "--exact").stdout.splitlines()[1]
    assert line.split()[0] == f"{expected[0][2]:.3f}"
    assert line.endswith("both")


@pytest.fixture
def diagonals(history) -> dict[str, dict[str, np.ndarray]]:
    """Fisher diagonals beside the models of three of the branches, each in a commit more."""
    random = np.random.default_rng(8)
    one, other = ({n: random.exponential(size=s) for n, s in SHAPES.items()} for _ in range(2))
    found = {"math": one, "both": {n: one[n] + 0.1 * other[n] for n in one}, "code": other}
    for array in found["code"].values():
        array.flat[::3] = 0
    for name in found["math"]:
        found["math"][name].flat[::3] = 0  # where neither has any, there is nothing to compare
    for name, values in found.items():
        history.git("checkout", "-q", name)
        single = {n: array.astype(np.float32) for n, array in values.items()}
        files = {"model.fisher.safetensors": checkpoints.safetensors(single)}
        history.commit_files(files, "Fisher information")
        found[name] = {n: array.astype(np.float64) for n, array in single.items()}
    history.git("checkout", "-q", "main")
    return found


def task2vec(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Achille and others 2019: 1 - cos(F / (F + G), G / (F + G))."""
    first, second = (np.concatenate([d[n].ravel() for n in SHAPES]) for d in (one, other))
    total = np.where(first + second > 0, first + second, 1)
    first, second = first / total, second / total
    return 1 - first @ second / np.linalg.norm(first) / np.linalg.norm(second)


def test_revisions_are_ranked_by_task2vec_where_fisher_diagonals_are_tracked(
    history, diagonals, theta_here
):
    found = ranked(theta_here, history, "math", "code", "both", "minus", "--task2vec", "--matrix")
    names = ["math", "code", "both", "minus"]
    known = [each for each in names if each in diagonals]
    expected = [[task2vec(diagonals[a], diagonals[b]) for b in known] for a in known]
    matrix = found["task2vec_matrix"]
    np.testing.assert_allclose([row[:3] for row in matrix[:3]], expected, atol=1e-12)
    assert matrix[3] == [None] * 4
    first = ranked(theta_here, history, "math", "minus", "code", "both", "--task2vec")
    assert [each["revision"] for each in first["others"]] == ["both", "code", "minus"]
    assert first["others"][0]["task2vec"] == pytest.approx(expected[0][2])
    lines = theta_here(history, "similar", "math", "code", "--task2vec").stdout.splitlines()
    assert lines[0].split() == ["TASK2VEC", "COSINE", "NORM", "COMMIT", "REVISION"]
    assert lines[1].split()[0] == f"{expected[0][1]:.3f}"
    done = theta_here(history, "similar", "minus", "math", "--task2vec")
    assert done.returncode == 2
    assert "no Fisher diagonals are tracked" in done.stderr
    assert "git_theta.stats.fisher" in done.stderr


def test_mistakes_are_told(history, theta_here):
    for args, code, words in (
        (("math", "nothing*"), 2, "no such branch or tag"),
        (("pages",), 2, "has no checkpoint"),
        (("math", "nowhere"), 2, "no such revision"),
        (("math", "--", "other.pt"), 2, "has no checkpoint there"),
        ((), 2, "Missing"),
    ):
        done = theta_here(history, "similar", *args)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
