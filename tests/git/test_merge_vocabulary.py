"""Models whose vocabularies both grew, merged by token, and used by transformers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.support import checkpoints
from tests.support.branches import branch, commit, is_settled, recipe
from tests.support.vocabularies import bpe

PATH = "model.safetensors"


def save(folder, seed: int, added: list[str]) -> None:
    """A Llama of one layer with a tokenizer, as ``save_pretrained`` writes them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = bpe(added=added)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=made.get_vocab_size(),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)


@pytest.fixture
def grown(once, home, model):
    """Main and a side, which each added a token and trained all."""

    def commit(seed: int, added: list[str]) -> None:
        save(model.path, seed, added)
        model.git("add", ".")
        model.git("commit", "-q", "-m", f"tokens {added}")

    def work() -> None:
        commit(0, [])
        model.git("checkout", "-q", "-b", "side")
        commit(1, ["<side>"])
        model.git("checkout", "-q", "main")
        commit(2, ["<main>"])

    once("grown", home, model, work)
    return model


def loaded(folder):
    """Tokenizer and model, as people load them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)


def test_the_union_of_two_vocabularies_is_used_by_transformers(grown, theta_here, tmp_path):
    import torch

    sides = {}
    for name in ("side", "main"):
        grown.git("checkout", "-q", name)
        shutil.copytree(grown.path, tmp_path / name, ignore=shutil.ignore_patterns(".git"))
        sides[name] = loaded(tmp_path / name)
    done = theta_here(grown, "merge", "side", "--strategy", "average", "--rows", "union")
    assert done.returncode == 0, done.stderr
    assert is_settled(grown)
    tokenizer, merged = loaded(grown.path)
    assert tokenizer.tokenize("abcd<side>ab<main>") == ["abcd", "<side>", "ab", "<main>"]
    table = merged.get_input_embeddings().weight
    assert len(table) == merged.config.vocab_size == len(tokenizer)

    def row(name: str, token: str):
        own, network = sides[name]
        return network.get_input_embeddings().weight[own.convert_tokens_to_ids(token)]

    for token, owner in (("<side>", "side"), ("<main>", "main")):
        number = tokenizer.convert_tokens_to_ids(token)
        assert torch.equal(table[number], row(owner, token))
    mean = (row("side", "abcd") + row("main", "abcd")) / 2
    torch.testing.assert_close(table[tokenizer.convert_tokens_to_ids("abcd")], mean)
    ids = tokenizer("ab<side><main>", return_tensors="pt").input_ids
    assert bool(merged(ids).logits.isfinite().all())
    assert len(recipe(grown)["tokenizers"]) == 3
    assert theta_here(grown, "replay").stdout == f"{PATH}: the same bits\n"


def test_resolve_writes_the_tokenizer_too(grown, theta_here):
    assert grown.process("merge", "side").returncode != 0
    done = theta_here(grown, "resolve", PATH, "--strategy", "average", "--rows", "ours")
    assert done.returncode == 0, done.stderr
    found = json.loads(grown.read("tokenizer.json"))
    assert [each["content"] for each in found["added_tokens"]] == ["<main>"]
    assert grown.git("ls-files", "--unmerged") == ""


def test_without_a_tokenizer_on_every_side_rows_go_by_number_and_the_merge_says_so(model, theta):
    rng = np.random.default_rng(1)

    def file(rows: int) -> bytes:
        return checkpoints.safetensors({"wte.weight": rng.standard_normal((rows, 4)).astype("f4")})

    commit(model, file(4), "base")
    branch(model, "side", file(5))
    model.commit_files({PATH: file(4), "tokenizer.json": bpe().to_str().encode()})
    done = theta(model, "merge", "side", "--strategy", "average", "--rows", "theirs")
    assert done.returncode == 0, done.stderr
    told = "there is no tokenizer beside it in side and the common ancestor"
    assert f"{PATH}: rows are matched by number: {told}" in done.stderr
