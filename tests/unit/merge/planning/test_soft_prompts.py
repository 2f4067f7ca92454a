from __future__ import annotations

import pytest

from git_theta.merge.adapter_config.merged import needed
from git_theta.merge.planning.soft_prompts import PromptUnit
from git_theta.merge.planning.versions import UNKNOWN
from tests.support.adapter_plans import configured, decide, reason
from tests.support.manifests import manifest, tensor, versions


def prompt(word: str, tokens: int, width: int = 4, dtype: str = "F32"):
    return tensor("prompt_embeddings", word, dtype, (tokens, width))


PROMPT = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}


def test_a_prompt_of_all_tokens():
    found = versions(manifest(), *(manifest(prompt(word, n)) for word, n in (("b", 2), ("c", 6))))
    (unit,) = decide(configured(found, PROMPT, PROMPT, base=None), "*=concat").units
    assert isinstance(unit, PromptUnit)
    assert (unit.results[0].shape, unit.parts) == ((8, 4), 1)
    two = {**PROMPT, "num_transformer_submodules": 2}
    decided = decide(configured(found, two, two, base=None), "*=concat")
    assert decided.units[0].parts == 2
    assert needed(decided)["num_virtual_tokens"] == 4
    # A prefix is keys and values for each token, once, whatever the model.
    prefix = {**two, "peft_type": "PREFIX_TUNING"}
    decided = decide(configured(found, prefix, prefix, base=None), "*=concat")
    assert decided.units[0].parts == 1
    assert needed(decided)["num_virtual_tokens"] == 8


def test_a_prompt_of_one_side_has_that_side_s_number_of_tokens():
    found = versions(manifest(), *(manifest(prompt(word, n)) for word, n in (("b", 2), ("c", 6))))
    theirs = {**PROMPT, "num_virtual_tokens": 6}
    decided = decide(configured(found, PROMPT, theirs, base=None), "*=take:side=theirs")
    assert needed(decided)["num_virtual_tokens"] == 6


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (prompt("c", 2, 5), "prompts of different widths (main: (4,), dev: (5,))"),
        (prompt("c", 2, dtype="F16"), "have different dtypes"),
        (prompt("c", 3), "3 tokens are not 2 prompts of the same length"),
        (tensor("prompt_embeddings", "c", "F32", (4,)), "different widths"),
        (prompt("c", 0), "F32 [0, 4] is not a prompt"),
    ],
)
def test_what_is_no_prompt_or_another(theirs, words):
    two = {**PROMPT, "num_transformer_submodules": 2}
    found = versions(manifest(), manifest(prompt("b", 2)), manifest(theirs))
    assert words in reason(configured(found, two, two, base=None), "*=concat")


def test_prompts_whose_configuration_is_not_known():
    found = versions(manifest(), manifest(prompt("b", 2)), manifest(prompt("c", 2)))
    words = "adapter_config.json of main and dev is not known"
    assert reason(configured(found, UNKNOWN, UNKNOWN), "*=concat") == words
    assert decide(found, "*=concat").units  # without one, there is nothing to keep in action
