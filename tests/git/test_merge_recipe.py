"""Recipes of mergekit whose models are branches."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from tests.support import checkpoints, tiny_llama
from tests.support.branches import PATH, branch, commit, is_settled, recipe
from tests.support.repo import Repo

FOLDER = Path(__file__).parents[1] / "golden/mergekit"
EXPECTED = np.load(FOLDER / "expected.npz")
MODELS = [
    word
    for name in ("base", "code", "math", "chat")
    for word in ("--model", f"lab/{name}-tiny={name}")
]


@pytest.fixture
def lab(once, home, model) -> Repo:
    def work() -> None:
        commit(model, checkpoints.safetensors(tiny_llama.base()), "base")
        model.git("branch", "base")
        for name in ("code", "math", "chat"):
            branch(model, name, checkpoints.safetensors(tiny_llama.tuned(name)))

    once("lab", home, model, work)
    return model


def follow(repo: Repo, theta, label: str, *options: str):
    (repo.path.parent / "recipe.yml").write_bytes((FOLDER / f"{label}.yml").read_bytes())
    document = (FOLDER / f"{label}.yml").read_text("utf-8")
    named = [
        word
        for pair in zip(MODELS[::2], MODELS[1::2], strict=True)
        if re.search(rf"{pair[1].partition('=')[0]}(?!\+)", document)
        for word in pair
    ]
    return theta(repo, "merge", "--recipe", "../recipe.yml", *named, *options)


def check(data: bytes, label: str) -> None:
    merged = load(data)
    every = np.concatenate([merged[name].ravel() for name in tiny_llama.ordered(merged)])
    np.testing.assert_allclose(every, EXPECTED[label], rtol=3e-6, atol=3e-7)


def test_a_merge_by_a_recipe(lab, theta):
    done = follow(lab, theta, "ties")
    assert done.returncode == 0, done.stderr
    check(lab.read(PATH), "ties")
    assert is_settled(lab)
    assert lab.git("log", "-1", "--format=%s") == (
        "Merge lab/code-tiny, lab/math-tiny and lab/chat-tiny by ties"
    )
    parents = lab.git("rev-parse", "HEAD^@").split()
    assert parents == lab.git("rev-parse", "main~1", "code", "math", "chat").split()
    assert recipe(lab)["everything"] is True
    assert theta(lab, "replay").stdout == f"{PATH}: the same bits\n"
    # What is read back makes the same again.
    back = theta(lab, "log", "--recipe", "HEAD")
    assert back.returncode == 0, back.stderr
    (lab.path.parent / "again.yml").write_text(back.stdout, "utf-8")
    target = lab.path.parent / "again.safetensors"
    words = ("--recipe", "../again.yml", *MODELS[2:], "--output", str(target))
    done = theta(lab, "merge", *words)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == lab.read(PATH)


def test_a_recipe_that_scales_what_nobody_trained(lab, theta, tmp_path):
    """Without a commit; two rules by filters of names."""
    done = follow(lab, theta, "linear-sum", "-o", str(tmp_path / "merged.safetensors"))
    assert done.returncode == 0, done.stderr
    check((tmp_path / "merged.safetensors").read_bytes(), "linear-sum")
    assert lab.git("log", "-1", "--format=%s") == "base"


def test_slices_of_several_models(lab, theta, theta_here):
    """Layers of other numbers are merged; the configuration counts those of the result."""
    lab.commit_files({"config.json": json.dumps(tiny_llama.CONFIG).encode()})
    done = follow(lab, theta, "slices-task")
    assert done.returncode == 0, done.stderr
    check(lab.read(PATH), "slices-task")
    assert json.loads(lab.read("config.json"))["num_hidden_layers"] == 3
    assert is_settled(lab)
    assert theta(lab, "replay").stdout == f"{PATH}: the same bits\n"
    done = theta_here(lab, "log", "--recipe", "HEAD")
    assert "a model of layers of others is not written back" in done.stderr


def test_versions_of_one_branch(lab, theta):
    """They are its own ancestors: the commit has one parent."""
    lab.git("checkout", "-q", "chat")
    done = follow(lab, theta, "slerp")
    assert done.returncode == 0, done.stderr
    check(lab.read(PATH), "slerp")
    assert lab.git("rev-parse", "HEAD^@") == lab.git("rev-parse", "chat~1")
    assert is_settled(lab)
    back = theta(lab, "log", "--recipe", "HEAD").stdout
    assert "merge_method: slerp\n" in back
    assert "  - value: 0.7\n" in back


def test_all_that_cannot_be_done_is_listed(lab, theta_here):
    done = follow(lab, theta_here, "words")
    assert done.returncode == 34
    assert "this recipe cannot be followed, for 4 reasons" in done.stderr
    assert "    tokenizer_source: it makes another vocabulary" in done.stderr
    assert "--model lab/math-tiny+lab/poems-lora=REV names one" in done.stderr
    done = theta_here(lab, "merge", "--recipe", str(FOLDER / "ties.yml"), "--model", "nobody=main")
    assert "the recipe has lab/base-tiny" in done.stderr
    done = theta_here(lab, "merge", "--recipe", str(FOLDER / "ties.yml"), "code")
    assert "leave out code" in done.stderr
    half = {name: array.astype(np.float16) for name, array in tiny_llama.tuned("code").items()}
    lab.git("checkout", "-q", "code")
    commit(lab, checkpoints.safetensors(half), "half")
    lab.git("checkout", "-q", "main")
    done = follow(lab, theta_here, "ties-sum", "--dry-run")
    assert "the sides have different dtypes" in done.stdout
    assert "hint: git theta merge --recipe ../recipe.yml --model lab/base-tiny=base" in done.stderr
    assert done.returncode == 36
    # With a dtype, all models are cast to it.
    assert follow(lab, theta_here, "task-arithmetic", "--dry-run").returncode == 0


def test_a_recipe_of_a_merge_that_mergekit_cannot_do(lab, theta_here, theta):
    theta(lab, "merge", "code", "math", "--strategy", "ties")
    done = theta_here(lab, "log", "--recipe", "HEAD")
    assert done.returncode == 34
    assert "scope=model: mergekit trims tensor by tensor" in done.stderr
    assert theta_here(lab, "log", "--recipe", "HEAD~1").returncode == 2
