"""Branches with PEFT adapters, merged: PEFT loads the result, and it adds up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import adapters
from tests.support.adapters import CONFIG, FOLDER, PATH, QUERY, VALUE
from tests.support.branches import is_settled, recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # of what PEFT and transformers deprecate

KEY = QUERY.replace("query", "key")


ADAPTERS = {
    "main": (1, adapters.lora()),
    "one": (2, adapters.lora()),
    "two": (3, adapters.lora()),
    "far": (4, adapters.lora(2, 8, target_modules=["query", "key"])),
    "stable": (5, adapters.lora(4, 8, use_rslora=True)),
}


@pytest.fixture
def saved(tmp_path_factory, home) -> Path:
    """A folder with each adapter in one of its own."""
    folder = tmp_path_factory.getbasetemp() / "saved"
    if not folder.exists():
        for name, (seed, config) in ADAPTERS.items():
            adapters.write(folder / name, seed, config)
    return folder


@pytest.fixture
def hub(once, home, model, saved):
    """Main has a common adapter, one and two what became of it, far one of other modules."""

    def work() -> None:
        for name in ADAPTERS:
            model.git("checkout", "-q", "-B", name, "main")
            # Without the times of the saved files: git would take one for the other.
            shutil.copytree(
                saved / name, model.path / FOLDER, copy_function=shutil.copyfile, dirs_exist_ok=True
            )
            model.git("add", FOLDER)
            model.git("commit", "-q", "-m", name)
        model.git("checkout", "-q", "main")

    once("adapters", home, model, work)
    return model


@pytest.fixture
def updates(saved):
    """Returns what adapters add to each weight."""
    return lambda *names: [adapters.updates(saved / name) for name in names]


def ok(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def close(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-6)


def test_updates_add_up_exactly_and_the_configuration_says_so(hub, theta, updates, theta_here):
    base, one, two = updates("main", "one", "two")
    said = ok(theta(hub, "merge", "one", "two", "--strategy", "cat"))
    assert "4 merged with cat" in said
    close(adapters.updates(hub.path / FOLDER), {n: one[n] + two[n] - base[n] for n in base})
    config = adapters.read_config(hub.path / FOLDER)
    assert (config["r"], config["lora_alpha"]) == (12, 12)  # 4 of each, the common adapter's too
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert is_settled(hub)
    assert "the same bits" in ok(theta_here(hub, "replay"))
    (rule,) = recipe(hub, path=PATH)["rules"]
    assert (rule["strategy"], rule["hyperparameters"]) == ("cat", {"weight": [1.0, 1.0]})


def test_weights_that_add_up_to_one_are_the_mean(hub, theta, updates):
    one, two = updates("one", "two")
    ok(theta(hub, "merge", "one", "two", "--strategy", "cat", "-p", "weight=0.5"))
    close(adapters.updates(hub.path / FOLDER), {n: (one[n] + two[n]) / 2 for n in one})
    assert adapters.read_config(hub.path / FOLDER)["r"] == 8


def test_to_a_rank_as_good_as_any_of_that_rank(hub, theta, updates):
    base, one, two = updates("main", "one", "two")
    said = ok(theta(hub, "merge", "one", "two", "--strategy", "svd", "-p", "rank=6"))
    assert "svd at rank 6 drops up to" in said
    assert "use -p rank=12 or --strategy cat" in said
    assert adapters.read_config(hub.path / FOLDER)["r"] == 6
    for name, found in adapters.updates(hub.path / FOLDER).items():
        wanted = one[name] + two[name] - base[name]
        left = torch.linalg.svdvals(wanted)[6:].norm()
        torch.testing.assert_close((found - wanted).norm(), left, rtol=1e-4, atol=1e-6)


def test_git_alone_merges_to_the_rank_of_ours(hub, updates):
    """The configuration stays as it is, so that the driver can do it: rules of the team serve."""
    base, one, two = updates("main", "one", "two")
    hub.git("checkout", "-q", "one")
    hub.write(".theta.toml", b'[[merge.rules]]\nmatch = "*.lora_*"\nstrategy = "svd"\n')
    before = hub.read(CONFIG)
    hub.git("merge", "-q", "two")
    assert hub.read(CONFIG) == before
    for name, found in adapters.updates(hub.path / FOLDER).items():
        wanted = one[name] + two[name] - base[name]
        left = torch.linalg.svdvals(wanted)[4:].norm()
        torch.testing.assert_close((found - wanted).norm(), left, rtol=1e-4, atol=1e-6)


def test_git_alone_cannot_change_the_rank_and_resolve_writes_both_files(hub, theta, updates):
    base, one, two = updates("main", "one", "two")
    hub.git("checkout", "-q", "one")
    hub.git("config", "theta.merge.strategy", "cat")
    done = hub.process("merge", "two")
    assert done.returncode == 1
    assert "the merged adapter needs another adapter_config.json" in done.stderr.decode()
    assert f"git theta resolve {PATH}" in done.stderr.decode()
    close(adapters.updates(hub.path / FOLDER), one)
    assert f"{CONFIG} is renewed" in ok(theta(hub, "resolve", PATH))
    hub.git("commit", "-q", "--no-edit")
    close(adapters.updates(hub.path / FOLDER), {n: one[n] + two[n] - base[n] for n in base})
    assert is_settled(hub)


def test_one_branch_with_another_rank(hub, theta, updates):
    """Git would leave the configuration in conflict; as it is written anew, nothing is."""
    base, one, stable = updates("main", "one", "stable")
    hub.git("checkout", "-q", "one")
    ok(theta(hub, "merge", "stable", "--strategy", "cat", "-m", "both"))
    close(adapters.updates(hub.path / FOLDER), {n: one[n] + stable[n] - base[n] for n in base})
    assert not adapters.read_config(hub.path / FOLDER)["use_rslora"]
    assert len(hub.git("log", "-1", "--format=%P").split()) == 2
    assert is_settled(hub)


def test_each_module_keeps_its_rank_and_scale(hub, theta, updates):
    """Queries are on both branches, values on one of them and keys on the other."""
    base, one, far = updates("main", "one", "far")
    rule = f"*.{VALUE}.*=take:side=one"
    hub.git("checkout", "-q", "one")
    ok(theta(hub, "merge", "far", "--rule", rule, "--strategy", "cat"))
    merged = adapters.updates(hub.path / FOLDER)
    wanted = {QUERY: one[QUERY] + far[QUERY] - base[QUERY], VALUE: one[VALUE], KEY: far[KEY]}
    close(merged, wanted)
    config = adapters.read_config(hub.path / FOLDER)
    assert config["target_modules"] == ["query", "value", "key"]
    assert {config["r"], *config["rank_pattern"].values()} == {10, 4, 2}
    assert is_settled(hub)


def test_an_update_that_one_side_removed_and_the_other_changed(hub, theta):
    hub.git("checkout", "-q", "one")
    done = theta(hub, "merge", "far", "--strategy", "cat")
    assert f"{VALUE}.lora_A.weight: far deleted it, one changed it" in done.stderr


@pytest.mark.parametrize("method", ["average", "ties", "task_arithmetic"])
def test_factors_are_never_merged_one_by_one(hub, theta, method):
    hub.git("checkout", "-q", "one")
    done = theta(hub, "merge", "two", "--strategy", method)
    assert done.returncode == 36
    assert f"one and two changed it, and {method} cannot merge LoRA factors" in done.stderr
    assert hub.git("status", "--porcelain", PATH) == f"UU {PATH}"


def test_a_side_can_be_taken_without_knowing_more(hub, theta):
    hub.git("checkout", "-q", "one")
    ok(theta(hub, "merge", "two", "--strategy", "take", "-p", "side=theirs"))
    assert hub.git("diff", "--name-only", "two") == ""


@pytest.mark.parametrize("command", ["cherry-pick", "rebase"])
def test_replaying_a_change_of_factors_is_a_conflict_that_resolve_settles(
    hub, theta, command, updates
):
    base, one, two = updates("main", "one", "two")
    hub.git("checkout", "-q", "-B", "work", "one")
    done = hub.process(command, "two")
    assert done.returncode
    assert "task_arithmetic cannot merge LoRA factors" in done.stderr.decode()
    ok(theta(hub, "resolve", PATH, "--strategy", "cat"))
    close(adapters.updates(hub.path / FOLDER), {n: one[n] + two[n] - base[n] for n in base})


def test_replaying_what_each_side_changed_by_itself(hub):
    before = load_file(hub.path / PATH)
    for branch, word in (("query", QUERY), ("value", VALUE)):
        hub.git("checkout", "-q", "-B", branch, "main")
        tensors = {n: t * 2 if word in n else t for n, t in before.items()}
        save_file(tensors, hub.path / PATH, {"format": "pt"})
        hub.git("commit", "-q", "-a", "-m", branch)
    done = hub.process("cherry-pick", "query")
    assert (done.returncode, done.stderr) == (0, b"")
    found = load_file(hub.path / PATH)
    assert all(torch.equal(found[n], t * 2) for n, t in before.items())


def test_asking_shows_how_far_and_in_which_direction(hub, theta, updates):
    base, one, two = updates("main", "one", "two")
    hub.git("checkout", "-q", "one")
    assert hub.process("merge", "two").returncode == 1
    said = ok(theta(hub, "resolve", "-i", PATH, stdin=b"average\nsvd\ncat\n"))
    moved = one[QUERY] - base[QUERY]
    share = 100 * float(moved.norm() / base[QUERY].norm())
    cosine = float((moved * (two[QUERY] - base[QUERY])).sum())
    cosine /= float(moved.norm() * (two[QUERY] - base[QUERY]).norm())
    assert share > 100
    assert f"one moved it by {share:.0f} %" in said
    assert "opposite signs" not in said  # products of factors have no elements here
    assert f"cosine of the two changes {cosine:.2f}" in said
    assert "or a strategy such as svd or cat" in said
    wanted = one[VALUE] + two[VALUE] - base[VALUE]
    torch.testing.assert_close(
        adapters.updates(hub.path / FOLDER)[VALUE], wanted, rtol=1e-5, atol=1e-6
    )


def test_a_negative_alpha_is_as_good_as_any(hub, theta, updates):
    hub.git("checkout", "-q", "-b", "less", "one")
    adapters.write(hub.path / FOLDER, 6, adapters.lora(4, -8))
    hub.git("commit", "-q", "-a", "-m", "less")
    less = adapters.updates(hub.path / FOLDER)
    two, base = updates("two", "main")
    hub.git("checkout", "-q", "main")
    ok(theta(hub, "merge", "less", "two", "--strategy", "svd", "-p", "rank=12"))
    close(adapters.updates(hub.path / FOLDER), {n: less[n] + two[n] - base[n] for n in base})


def test_factors_that_do_not_fit_their_dtype(hub, theta):
    hub.git("checkout", "-q", "one")
    half = {name: tensor.half() for name, tensor in load_file(hub.path / PATH).items()}
    for name, start, weight in (("half", "one", 1), ("low", "half", 2), ("high", "half", 3)):
        hub.git("checkout", "-q", "-B", name, start)
        tensors = {n: t * weight if "lora_B" in n else t for n, t in half.items()}
        save_file(tensors, hub.path / PATH, {"format": "pt"})
        hub.git("commit", "-q", "-a", "-m", name)
    done = theta(hub, "merge", "low", "--strategy", "cat", "-p", "weight=1e6")
    assert done.returncode
    assert f"{PATH}: base_model.model.{QUERY}.lora_A.weight: the" in done.stderr
    assert "the merged factors are too large for float16" in done.stderr


# --- soft prompts ---------------------------------------------------------------------------------


@pytest.fixture
def prompts(once, home, model):
    """Branches one and two, each with a prompt of its own length; main has none."""

    def work() -> None:
        for name, seed, tokens in (("one", 1, 3), ("two", 2, 5)):
            model.git("checkout", "-q", "-B", name, "main")
            adapters.write(model.path / FOLDER, seed, adapters.prompt(tokens))
            model.git("add", FOLDER)
            model.git("commit", "-q", "-m", name)

    once("prompts", home, model, work)
    return model


def embeddings(repo):
    return load_file(repo.path / PATH)["prompt_embeddings"]


def test_prompts_are_joined_in_order_and_counted(prompts, theta, theta_here):
    tokens = []
    for name in ("two", "one"):
        prompts.git("checkout", "-q", name)
        tokens.append(embeddings(prompts))
    ok(theta(prompts, "merge", "two", "--strategy", "concat", "-p", "order.one=2"))
    assert torch.equal(embeddings(prompts), torch.cat(tokens))
    assert adapters.read_config(prompts.path / FOLDER)["num_virtual_tokens"] == 8
    adapters.load(prompts.path / FOLDER)  # PEFT would refuse another number
    assert is_settled(prompts)
    assert "the same bits" in ok(theta_here(prompts, "replay"))


def test_asking_about_prompts(prompts, theta):
    prompts.git("checkout", "-q", "one")
    first = embeddings(prompts)
    assert prompts.process("merge", "two").returncode == 1
    said = ok(theta(prompts, "resolve", "-i", PATH, stdin=b"svd\nconcat\n"))
    assert "the sides have different shapes (one: [3, 16], two: [5, 16])" in said
    assert "svd cannot merge it" in said
    assert "or a strategy such as concat" in said
    assert torch.equal(embeddings(prompts)[:3], first)
    assert adapters.read_config(prompts.path / FOLDER)["num_virtual_tokens"] == 8


def test_prompts_of_one_length_may_also_be_averaged(prompts, theta):
    prompts.git("checkout", "-q", "-b", "three", "two")
    adapters.write(prompts.path / FOLDER, 3, adapters.prompt(5))
    prompts.git("commit", "-q", "-a", "-m", "three")
    mine = embeddings(prompts)
    prompts.git("checkout", "-q", "-b", "four", "two")
    adapters.write(prompts.path / FOLDER, 4, adapters.prompt(5))
    prompts.git("commit", "-q", "-a", "-m", "four")
    expected = (mine + embeddings(prompts)) / 2
    ok(theta(prompts, "merge", "three", "--strategy", "average"))
    torch.testing.assert_close(embeddings(prompts), expected)


def test_adapters_of_different_types_are_refused(prompts, theta):
    prompts.git("checkout", "-q", "-b", "other", "main")
    adapters.write(prompts.path / FOLDER, 4, adapters.lora())
    (prompts.path / FOLDER / "README.md").unlink()  # git has no strategy for it
    prompts.git("add", FOLDER)
    prompts.git("commit", "-q", "-m", "lora")
    done = theta(prompts, "merge", "one", "--strategy", "concat")
    assert done.returncode
    assert "adapters of different types (other: LORA, one: PROMPT_TUNING)" in done.stderr
    rules = ("--all", "--rule", "*=take:side=theirs")
    assert " ".join(rules[:2]) in done.stderr
    failed = prompts.process("merge", "one")
    hint = failed.stderr.decode().partition("hint: git ")[2].partition("\n")[0]
    prompts.git(*hint.split())
    prompts.git("commit", "-q", "--no-edit")
    assert prompts.git("diff", "--name-only", "one") == ""
    prompts.git("reset", "-q", "--hard", "HEAD^")
    ok(theta(prompts, "merge", "one", *rules))
    assert prompts.git("diff", "--name-only", "one") == ""


def test_alpha_changed_on_one_branch_and_factors_on_the_other(hub, theta, updates):
    """The files do not overlap: Git would combine one's alpha with the other's factors."""
    base, one = updates("main", "one")
    hub.git("checkout", "-q", "-b", "louder", "main")
    config = adapters.read_config(hub.path / FOLDER)
    hub.commit_files({CONFIG: json.dumps({**config, "lora_alpha": 16}, indent=2).encode()})
    louder = adapters.updates(hub.path / FOLDER)
    hub.git("checkout", "-q", "one")
    done = theta(hub, "merge", "louder")
    assert done.returncode != 0
    assert "one and louder changed it" in done.stdout + done.stderr
    hub.git("reset", "-q", "--hard", "one")
    ok(theta(hub, "merge", "louder", "--strategy", "cat"))
    close(adapters.updates(hub.path / FOLDER), {n: one[n] + louder[n] - base[n] for n in base})
    assert is_settled(hub)
