"""Recipes of mergekit: its own results, refusals with all reasons, and files of strangers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from git_theta.errors import MergeError
from git_theta.merge.compute.executor import execute
from git_theta.merge.mergekit.document import parse
from git_theta.merge.mergekit.translate import follow
from git_theta.merge.mergekit.writing import text_of
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import policy_for
from git_theta.merge.planning.versions import Contributor, Versions
from git_theta.merge.rules.request import Request
from tests.support import tiny_llama

FOLDER = Path(__file__).parents[3] / "golden/mergekit"
EXPECTED = np.load(FOLDER / "expected.npz")
NAMES = list(tiny_llama.shapes())


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, np.ndarray]]:
    labels = ("code", "math", "chat")
    return {"lab/base-tiny": tiny_llama.base()} | {
        f"lab/{label}-tiny": tiny_llama.tuned(label) for label in labels
    }


@pytest.mark.parametrize("label", EXPECTED.files)
def test_a_recipe_has_the_results_of_mergekit(merger, models, label):
    """Every tensor, those that nobody trained included."""
    followed = follow(parse((FOLDER / f"{label}.yml").read_bytes()), NAMES)
    sides = tuple(Contributor(n, merger.store(models[n])) for n in followed.contributors)
    base = merger.store(models[followed.base]) if followed.base else None
    versions = Versions(sides, base, "model.safetensors")
    request = Request(
        rules=followed.rules, include_one_sided=True, everything=True, slices=followed.slices
    )
    plan = make_plan(
        versions, policy_for("merge", request.rules, versions, request), merger.workspace
    )
    merged = load(merger.file(execute(plan, merger.workspace).manifest))

    every = np.concatenate([merged[name].ravel() for name in tiny_llama.ordered(merged)])
    np.testing.assert_allclose(every, EXPECTED[label], rtol=3e-6, atol=3e-7)


@pytest.mark.parametrize(
    ("label", "reasons"),
    [
        (
            "words",
            [
                "tokenizer_source: it makes another vocabulary; files of tokenizers are merged as "
                "git would",
                "chat_template: a chat template is a file of its own: edit and commit it",
                "lab/math-tiny+lab/poems-lora: it adds an adapter to a model first; commit the sum "
                "as a branch",
            ],
        ),
    ],
)
def test_what_cannot_be_done_is_listed(label, reasons):
    with pytest.raises(MergeError, match="this recipe cannot be followed, for") as caught:
        follow(parse((FOLDER / f"{label}.yml").read_bytes()), NAMES)
    assert list(caught.value.details) == reasons


@pytest.mark.parametrize("label", [n for n in EXPECTED.files if not n.startswith("slices-")])
def test_what_is_written_means_the_same(label):
    document = parse((FOLDER / f"{label}.yml").read_bytes())
    followed = follow(document, NAMES)
    rules = [
        {"match": rule.match, "strategy": rule.strategy}
        | {"hyperparameters": rule.bind(followed.contributors).values}
        for rule in followed.rules
    ]
    models = [{"name": name} for name in followed.contributors]
    text = text_of(
        {"contributors": models, "rules": rules, "everything": True}, NAMES, followed.base
    )
    again = follow(parse(text.encode()), NAMES)
    assert (again.contributors, again.base) == (followed.contributors, followed.base)
    for name in NAMES:
        one, other = (
            next(rule for rule in each.rules if rule.matches(name)).bind(each.contributors)
            for each in (followed, again)
        )
        assert one.strategy.name == other.strategy.name
        assert one.values == other.values


TWO = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("merge_method: evolve", "merge_method evolve is not known here"),
        ("merge_method: ties", "base_model: ties needs one"),
        ("merge_method: ties\nbase_model: a", "weight"),
        ("merge_method: slerp\nbase_model: a", "t is missing"),
        ("merge_method: slerp\nbase_model: a\nparameters: {t: 1.5}", "0 to 1"),
        ("merge_method: slerp\nbase_model: a\nparameters: {t: much}", "'much' is not a number"),
        ("merge_method: slerp\nbase_model: c\nparameters: {t: 0.5}", "other numbers of models"),
        ("merge_method: linear\nparameters: {normalize: 3}", "3 is not a boolean"),
        ("merge_method: linear\ndtype: int4", "dtype 'int4' is not one of"),
        ("merge_method: dare_ties\nbase_model: c\nparameters: {density: 0}", "a density of 0"),
        ("merge_method: ties\nbase_model: c\nparameters: {density: 0.5, rescale: true}", "rescale"),
        ("merge_method: breadcrumbs\nbase_model: c\nparameters: {density: 0.995}", "more than 1"),
    ],
)
def test_why_a_recipe_is_refused(text, reason):
    given = TWO if reason != "weight" else "models: [{model: b}]\n"
    with pytest.raises(MergeError) as caught:
        follow(parse((given + text).encode()), NAMES)
    assert any(reason in each for each in caught.value.details), caught.value.details


def test_a_negative_weight_elects_no_signs():
    text = "models: [{model: b, parameters: {weight: -1}}]\nmerge_method: ties\nbase_model: a"
    with pytest.raises(MergeError) as caught:
        follow(parse(text.encode()), NAMES)
    assert "a negative weight" in caught.value.details[0]


def test_a_model_of_layers_of_others(merger, models):
    """Bit for bit what a slice says: two layers of one model, and the last of another."""
    document = parse((FOLDER / "stack.yml").read_bytes())
    followed = follow(document, NAMES)
    sides = tuple(Contributor(n, merger.store(models[n])) for n in followed.contributors)
    request = Request(everything=True, slices=followed.slices, out_dtype=document.dtype)
    versions = Versions(sides, None, "model.safetensors")
    plan = make_plan(versions, policy_for("merge", (), versions, request), merger.workspace)
    merged = load(merger.file(execute(plan, merger.workspace).manifest))
    code, chat = models["lab/code-tiny"], models["lab/chat-tiny"]
    expected = dict(code) | {"lm_head.weight": chat["lm_head.weight"]}
    expected["model.norm.weight"] = chat["model.norm.weight"]
    last = (name for name in chat if ".layers.1." in name)
    expected |= {name.replace(".1.", ".2."): chat[name] for name in last}
    assert merged.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(merged[name], array.astype(np.float16))


@pytest.mark.parametrize(
    "source",
    [
        "{model: a}",
        "{model: a, layer_range: [2, 2]}",
        "{model: a, layer_range: [0, 1], parameters: {scale: 2}}",
    ],
)
def test_slices_that_are_not_followed(source):
    text = f"merge_method: passthrough\nslices: [{{sources: [{source}]}}]"
    with pytest.raises(MergeError, match="cannot be followed"):
        follow(parse(text.encode()), NAMES)


@pytest.mark.parametrize(
    ("method", "base", "ranges", "reason"),
    [
        ("slerp", "a", ("0, 1", "0, 3"), "b: a slice to 3 of 2 layers"),
        ("slerp", "a", ("0, 1", "0, 2"), "slices: the sources of a slice have different numbers"),
        ("slerp", "a", ("1, 1", "1, 1"), "a: a slice without layers"),
        ("slerp", "c", ("0, 1", "1, 2"), "slices: c is not among the sources of a slice"),
        ("ties", "null", ("0, 1", "1, 2"), "base_model: ties needs one"),
    ],
)
def test_slices_that_cannot_be_merged(method, base, ranges, reason):
    sources = [
        f"{{model: {name}, layer_range: [{layers}]}}"
        for name, layers in zip("ab", ranges, strict=True)
    ]
    document = f"merge_method: {method}\nbase_model: {base}\nparameters: {{t: 0.5, weight: 1}}\n"
    document += f"slices: [{{sources: [{', '.join(sources)}]}}]"
    with pytest.raises(MergeError) as caught:
        follow(parse(document.encode()), NAMES)
    assert any(line.startswith(reason) for line in caught.value.details)


def test_slices_of_one_model_are_taken_only_where_the_method_leaves_it_as_it_is():
    text = (FOLDER / "slices-linear.yml").read_text("utf-8") + "parameters: {normalize: false}"
    with pytest.raises(MergeError) as caught:
        follow(parse(text.encode()), NAMES)
    assert caught.value.details == ("slices: linear of one model in a slice",)


def test_few_rules_stand_for_many_tensors():
    """A rule for each of a layer's tensors would be as long as the model's manifest."""
    names = [name.replace(".0.", f".{n}.") for n in range(32) for name in NAMES if ".0." in name]
    names += [name for name in NAMES if ".layers." not in name]
    text = (FOLDER / "slerp.yml").read_text("utf-8").replace("[0, 2]", "[0, 32]")
    rules = follow(parse(text.encode()), names).rules
    assert len(rules) < 8
    for name in names:
        wanted = 0.7 if "self_attn" in name else 0.35 if "mlp" in name else 0.5
        assert next(rule for rule in rules if rule.matches(name)).given["t"] == wanted


NOT_YAML = [
    b"a: [1, 2",
    b"\xff\xfe\x00",
    b"a: !!python/object/apply:os.system ['true']",
    b"a: " + b"[" * 40 + b"]" * 40,
    b"a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]",
    b"a: " + b"1" * 5000,
    b"merge_method: linear\nmodels: [{model: 0x" + b"f" * 5000 + b"}]",
    b"merge_method: linear\nmodels: [{model: a, layer_range: [1" + b":0" * 5000 + b"]}]",
    b"#" * ((1 << 18) + 1),
    b"[1, 2]",
    b"merge_method: [linear]",
    b"",
]


@pytest.mark.parametrize("text", NOT_YAML, ids=range(len(NOT_YAML)))
def test_a_file_of_a_stranger(text):
    with pytest.raises(MergeError):
        parse(text)


@pytest.mark.parametrize(
    "value", ["3", "[]", "[1, 2]", "{a: b}", "text", "null", "[{model: 3}]", "[{}]", "[[a]]"]
)
@pytest.mark.parametrize("key", ["models", "slices", "base_model", "parameters", "dtype"])
def test_a_recipe_of_other_types_than_expected(key, value):
    text = {"merge_method": "linear", "models": "[{model: a, parameters: {weight: 1}}]"}
    text |= {key: value}
    document = "\n".join(f"{name}: {each}" for name, each in text.items())
    with suppress(MergeError):
        follow(parse(document.encode()), NAMES)
