"""Adapters made, saved and merged by PEFT itself, beside the same merged here."""

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from git_theta.adapters import LowRank, Names, Parameter, Replacement, Scaling, read_adapter
from git_theta.core.dtypes import dtype
from git_theta.core.layout import Geometry
from git_theta.encodings.float_formats import FORMATS, spacing, widen
from git_theta.errors import FormatError, UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft
    import transformers

KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
LORA = {"r": 4, "lora_alpha": 6, "target_modules": ["query", "value", "dense"]}
IA3 = {"target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class Convolutions(torch.nn.Module):
    """A layer of each kind that LoRA knows beside linear ones."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3)
        self.second = torch.nn.Conv2d(8, 5, 1)
        self.words = torch.nn.Embedding(20, 6)
        self.last = torch.nn.Linear(6, 9)


def bert(**changes):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(
        **small, vocab_size=50, intermediate_size=48, max_position_embeddings=16, **changes
    )
    return transformers.BertForSequenceClassification(config)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2, n_inner=32
    )
    return transformers.GPT2LMHeadModel(config)


def fresh(build, kind):
    torch.manual_seed(0)
    model = build().to(kind)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def words(tensor):
    sizes = {2: torch.uint16, 4: torch.uint32, 8: torch.uint64}
    return tensor.detach().contiguous().view(sizes[tensor.element_size()]).numpy()


def saved(folder, build, config, kind=torch.float32, stored=None):
    """An adapter with random weights that PEFT saved, and the state that merging it gives."""
    model = peft.get_peft_model(fresh(build, kind), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        elif "ia3_" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
        elif parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    if stored is not None:
        path = folder / "adapter_model.safetensors"
        save_file({name: it.to(stored) for name, it in load_file(path).items()}, path)
    loaded = peft.PeftModel.from_pretrained(fresh(build, kind), folder)
    return loaded.merge_and_unload().state_dict()


def parameters(state):
    return {name: Parameter(KINDS[it.dtype], tuple(it.shape)) for name, it in state.items()}


def check(folder, base, merged, renamed=None, exact=True):
    """Merges here and compares every parameter; returns the updates by parameter."""
    base = {name: it for name, it in base.items() if it.dtype in KINDS}
    updates = read_adapter(folder, Names(parameters(base), renamed))
    found = {update.parameter: update for update in updates}
    assert len(found) == len(updates)
    for name, before in base.items():
        expected = words(merged[name])
        if name not in found:
            assert np.array_equal(words(before), expected), name
            continue
        kind, shape = KINDS[before.dtype], tuple(before.shape)
        raw = words(before).reshape(-1).view(np.uint8)
        result = found[name].apply(raw, kind, shape)
        result_words = result.view(expected.dtype).reshape(shape)
        if exact:
            assert np.array_equal(result_words, expected), name
        if isinstance(found[name], LowRank):
            assert within_a_step(found[name], result_words, expected, words(before), kind), name
        else:
            assert np.array_equal(result_words, expected), name
        stored_exactly(found[name], result, raw, Geometry(dtype(kind), shape))
    return found


def within_a_step(update, result, expected, before, kind):
    """Whether two sums differ by one rounding step, at the size of what is summed."""
    form = FORMATS[kind]
    result, expected, before = (widen(it, form) for it in (result, expected, before))
    terms = np.abs(update.left.values()).T @ np.abs(update.right.values()) * update.scale
    step = spacing(np.abs(before) + terms.reshape(before.shape), form)
    # In float64 the routine's own rounding is not imitated: half a step for each of four terms.
    return bool((np.abs(result - expected) <= step * (3 if kind == "F64" else 1)).all())


def stored_exactly(update, result, raw, geometry):
    """The merged parameter is stored as the update, with nothing beside it."""
    if update.encoding is not None:
        encoded = update.encode(result, raw, geometry)
        if encoded is None:  # factors larger than the matrix save nothing
            shape = (geometry.shape[0], int(np.prod(geometry.shape[1:])))
            assert len(update.left.words) > min(shape)
            return
        assert [part.nbytes for part in encoded.parts[-2:]] == [0, 0]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("stored", [None, torch.bfloat16])
def test_lora_in_every_dtype(tmp_path, kind, stored):
    merged = saved(tmp_path, bert, peft.LoraConfig(**LORA), kind, stored)
    found = check(tmp_path, fresh(bert, kind).state_dict(), merged, exact=kind != torch.float64)
    assert len(found) == 11
    if stored is not None:
        assert {update.left.dtype for update in found.values()} == {"BF16"}


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True},
        {"rank_pattern": {"query": 2, r"layer\.1\..*\.value": 7}},
        {"alpha_pattern": {"layer.0.attention.self.query": 3, "dense": 1}},
        {"rank_pattern": {"dense": 1}},
        {"rank_pattern": {"uery": 3}, "alpha_pattern": {"query|value": 2.5}},
        {"use_rslora": True, "rank_pattern": {"key|value": 5}, "alpha_pattern": {".*layer.1.*": 9}},
        {"init_lora_weights": "gaussian", "lora_dropout": 0.1},
        {"modules_to_save": ["classifier", "pooler"], "target_modules": ["query"]},
        {"bias": "all", "target_modules": ["query"]},
        {"bias": "lora_only", "target_modules": ["query"]},
        {"lora_bias": True},
        {"target_modules": ["word_embeddings", "query"]},
        {"target_modules": "all-linear"},
    ],
)  # fmt: skip
def test_lora_of_every_kind(tmp_path, changes):
    merged = saved(tmp_path, bert, peft.LoraConfig(**(LORA | changes)))
    # The matrix routine sums the classifier's two rows in another order.
    exact = changes.get("target_modules") != "all-linear"
    check(tmp_path, fresh(bert, torch.float32).state_dict(), merged, exact=exact)


def test_lora_of_transposed_weights(tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    merged = saved(tmp_path, gpt2, config)
    found = check(tmp_path, fresh(gpt2, torch.float32).state_dict(), merged)
    # c_fc is square here: only the configuration says that it is transposed.
    assert sorted(found) == sorted(
        name for name in merged if "c_attn.w" in name or "c_fc.w" in name
    )


def test_lora_of_convolutions_and_embeddings(tmp_path):
    config = peft.LoraConfig(r=3, target_modules=["first", "second", "words", "last"])
    merged = saved(tmp_path, Convolutions, config)
    base = fresh(Convolutions, torch.float32).state_dict()
    # PEFT multiplies the factors of a convolution with a convolution, which sums in its own order.
    found = check(tmp_path, base, merged, exact=False)
    assert len(found) == 4


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_ia3_in_every_dtype(tmp_path, kind):
    merged = saved(tmp_path, bert, peft.IA3Config(**IA3), kind)
    found = check(tmp_path, fresh(bert, kind).state_dict(), merged)
    assert {type(update) for update in found.values()} == {Scaling}
    # Key and value, weight and bias; the output of attention and of the layer, weight only.
    assert len(found) == 2 * (4 + 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"feedforward_modules": r".*\.output\.dense"},
        {"feedforward_modules": []},
        {"modules_to_save": ["classifier"]},
    ],
)
def test_ia3_of_every_kind(tmp_path, changes):
    merged = saved(tmp_path, bert, peft.IA3Config(**(IA3 | changes)))
    check(tmp_path, fresh(bert, torch.float32).state_dict(), merged)


def test_ia3_of_transposed_weights(tmp_path):
    config = peft.IA3Config(
        target_modules=["c_attn", "c_fc"], feedforward_modules=["c_fc"], fan_in_fan_out=True
    )
    merged = saved(tmp_path, gpt2, config)
    check(tmp_path, fresh(gpt2, torch.float32).state_dict(), merged)


def test_ia3_of_convolutions(tmp_path):
    config = peft.IA3Config(target_modules=["first", "second"], feedforward_modules=["second"])
    merged = saved(tmp_path, Convolutions, config)
    check(tmp_path, fresh(Convolutions, torch.float32).state_dict(), merged)


@pytest.fixture
def adapter(tmp_path):
    """A LoRA of the classifier's query, with its classifier; and the base's parameters."""
    config = peft.LoraConfig(r=4, target_modules=["query"], modules_to_save=["classifier"])
    merged = saved(tmp_path, bert, config)
    return tmp_path, parameters(merged)


def configured(folder, **changes):
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in fields.items() if v != "absent"}))


def edited(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_the_checkpoint_of_the_encoder_alone(adapter):
    folder, known = adapter
    encoder = {name.removeprefix("bert."): it for name, it in known.items()}
    found = {update.parameter: update for update in read_adapter(folder, Names(encoder))}
    assert "encoder.layer.0.attention.self.query.weight" in found
    assert isinstance(found["classifier.weight"], Replacement)


def test_the_checkpoint_of_a_larger_model(adapter):
    folder, known = adapter
    larger = {f"model.text.{name}": it for name, it in known.items()}
    found = {update.parameter for update in read_adapter(folder, Names(larger))}
    assert "model.text.bert.encoder.layer.1.attention.self.query.weight" in found


def test_names_by_map(adapter):
    folder, known = adapter
    odd = {
        name.replace("bert.encoder.layer", "blocks").replace("query", "q"): it
        for name, it in known.items()
    }
    renamed = {
        f"bert.encoder.layer.{i}.attention.self.query": f"blocks.{i}.attention.self.q"
        for i in range(2)
    }
    found = {update.parameter for update in read_adapter(folder, Names(odd, renamed))}
    assert "blocks.1.attention.self.q.weight" in found


def test_a_parameter_can_be_left_out(adapter):
    folder, known = adapter
    rest = {name: it for name, it in known.items() if "classifier" not in name}
    with pytest.raises(UsageError, match="no tensor for classifier"):
        read_adapter(folder, Names(rest))
    found = read_adapter(folder, Names(rest, {"classifier": ""}))
    assert {type(update) for update in found} == {LowRank}


def test_an_unmatched_name_lists_candidates(adapter):
    folder, known = adapter
    other = {name.replace("self.query", "self.queries"): it for name, it in known.items()}
    with pytest.raises(UsageError) as error:
        read_adapter(folder, Names(other))
    assert "bert.encoder.layer.0.attention.self.queries.weight" in str(error.value)
    assert "--map bert.encoder.layer.0.attention.self.query.weight=NAME" in str(error.value)
    assert error.value.path == str(folder / "adapter_model.safetensors")


def test_an_ambiguous_name_lists_candidates(adapter):
    folder, known = adapter
    known = {name: it for name, it in known.items() if "classifier" not in name}
    both = {f"{side}.{name}": it for name, it in known.items() for side in ("left", "right")}
    with pytest.raises(UsageError) as error:
        read_adapter(folder, Names(both, {"classifier": ""}))
    for side in ("left", "right"):
        assert f"    {side}.bert.encoder.layer.0.attention.self.query.weight" in str(error.value)


def test_another_models_shapes(adapter):
    folder, known = adapter
    for name in ("bert.encoder.layer.0.attention.self.query.weight", "classifier.weight"):
        for shape in ((32, 31), (32,), (32, 32, 2)):
            with pytest.raises(UsageError, match="for another model"):
                read_adapter(folder, Names(known | {name: Parameter("F32", shape)}))


def test_parameters_that_are_no_floats(adapter):
    folder, known = adapter
    for name in ("bert.encoder.layer.0.attention.self.query.weight", "classifier.weight"):
        quantised = known | {name: Parameter("I8", known[name].shape)}
        with pytest.raises(UsageError, match="I8"):
            read_adapter(folder, Names(quantised))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none(adapter, number):
    folder, known = adapter

    def spoil(tensors):
        next(it for name, it in sorted(tensors.items()) if "lora_B" in name)[1, 1] = number

    edited(folder, spoil)
    with pytest.raises(FormatError, match="NaN"):
        read_adapter(folder, Names(known))


def test_a_rank_that_does_not_match_the_configuration(adapter):
    folder, known = adapter
    configured(folder, r=8)
    with pytest.raises(FormatError, match="rank 4, but its configuration says 8"):
        read_adapter(folder, Names(known))


KEY = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        (f"{KEY}.lora_B.weight", torch.zeros(32, 3)),
        (f"{KEY}.lora_B.weight", torch.zeros(32)),
        (f"{KEY}.lora_B.weight", torch.zeros(32, 4, 3)),
        (f"{KEY}.lora_A.weight", torch.zeros(4, 32, dtype=torch.int32)),
        (f"{KEY}.lora_B.weight", torch.zeros(32, 4, dtype=torch.int32)),
        (f"{KEY}.lora_B.weight", None),
        (f"{KEY}.lora_A.weight", None),
        (f"{KEY}.lora_A.other.weight", torch.zeros(4, 32)),
        (f"{KEY}.lora_embedding_A", torch.zeros(4, 32)),
        (f"{KEY}.ia3_l", torch.ones(32, 1)),
    ],
)
def test_factors_that_do_not_fit_each_other(adapter, name, tensor):
    folder, known = adapter

    def change(tensors):
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor

    edited(folder, change)
    with pytest.raises(FormatError):
        read_adapter(folder, Names(known))


def test_what_peft_has_and_this_has_not(adapter):
    folder, known = adapter
    for changes in (
        {"use_dora": True},
        {"init_lora_weights": "pissa_niter_4"},
        {"layer_replication": [[0, 1]]},
        {"peft_type": "LOHA"},
        {"target_parameters": ["x"]},
    ):
        before = (folder / "adapter_config.json").read_text()
        configured(folder, **changes)
        with pytest.raises(UsageError, match="cannot be merged here") as error:
            read_adapter(folder, Names(known))
        assert error.value.hint is not None
        (folder / "adapter_config.json").write_text(before)
    edited(folder, lambda it: it.update({f"{KEY}.lora_magnitude_vector": torch.ones(32)}))
    with pytest.raises(UsageError, match="lora_magnitude_vector cannot be merged here"):
        read_adapter(folder, Names(known))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "\xff",
        "[" * 100_000,
        '{"peft_type": "LORA", "r": "x"}',
        '{"peft_type": "LORA", "rank_pattern": {"(": 3}}',
        '{"peft_type": "LORA", "rank_pattern": 3}',
        '{"peft_type": "IA3", "feedforward_modules": "("}',
        '{"peft_type": "LORA", "lora_alpha": null}',
    ],
)
def test_a_configuration_that_is_none(adapter, text):
    folder, known = adapter
    (folder / "adapter_config.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match="not a PEFT configuration"):
        read_adapter(folder, Names(known))


def test_a_configuration_without_end(adapter):
    folder, known = adapter
    with (folder / "adapter_config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match="larger than"):
        read_adapter(folder, Names(known))


def test_files_that_are_not_there(adapter, tmp_path):
    folder, known = adapter
    with pytest.raises(UsageError, match="there is no adapter"):
        read_adapter(tmp_path / "nowhere", Names(known))
    (folder / "adapter_config.json").unlink()
    with pytest.raises(UsageError, match="needs its adapter_config"):
        read_adapter(folder / "adapter_model.safetensors", Names(known))


def test_the_file_itself_and_a_pickle(adapter):
    folder, known = adapter
    path = folder / "adapter_model.safetensors"
    first = {update.parameter for update in read_adapter(path, Names(known))}
    tensors = load_file(path)
    path.unlink()
    # Not contiguous, as torch.save keeps it.
    tensors[f"{KEY}.lora_B.weight"] = tensors[f"{KEY}.lora_B.weight"].T.contiguous().T
    torch.save(tensors, folder / "adapter_model.bin")
    updates = read_adapter(folder, Names(known))
    assert {update.parameter for update in updates} == first
    update = next(it for it in updates if "layer.0" in it.parameter)
    expected = tensors[f"{KEY}.lora_B.weight"].numpy().T
    assert np.array_equal(update.left.words.view(np.float32), expected)


def test_a_file_that_is_no_adapter(adapter):
    folder, known = adapter
    path = folder / "adapter_model.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(FormatError) as error:
        read_adapter(folder, Names(known))
    assert error.value.path == str(path)
    save_file({}, path)
    with pytest.raises(FormatError, match="no tensors"):
        read_adapter(folder, Names(known))


def test_an_adapter_all_of_which_is_left_out(adapter):
    folder, known = adapter
    with pytest.raises(FormatError, match="updates nothing"):
        read_adapter(folder, Names(known, {"bert": "", "classifier": ""}))


def test_names_as_whole_state_dicts_have_them(adapter):
    folder, known = adapter

    def rename(tensors):
        for name in list(tensors):
            new = name.replace(".weight", ".default.weight") if "lora_" in name else name
            new = new.replace("classifier.", "classifier.modules_to_save.default.")
            tensors[new] = tensors.pop(name)
        tensors["base_model.model.classifier.original_module.weight"] = torch.zeros(2, 32)

    edited(folder, rename)
    assert len(read_adapter(folder, Names(known))) == 4


def test_two_modules_that_map_to_one_parameter(adapter):
    folder, known = adapter
    names = [f"bert.encoder.layer.{i}.attention.self.query" for i in range(2)]
    with pytest.raises(UsageError, match="twice"):
        read_adapter(folder, Names(known, {names[0]: names[1]}))


def test_a_parameter_replaced_and_then_added_to(adapter):
    folder, known = adapter
    replaced = torch.full((32, 32), 0.5)
    edited(folder, lambda it: it.update({f"{KEY}.base_layer.weight": replaced}))
    found = {update.parameter: update for update in read_adapter(folder, Names(known))}
    update = found["bert.encoder.layer.0.attention.self.query.weight"]
    tensors = load_file(folder / "adapter_model.safetensors")
    delta = tensors[f"{KEY}.lora_B.weight"] @ tensors[f"{KEY}.lora_A.weight"] * 2
    assert isinstance(update, Replacement)
    assert np.array_equal(update.values.words, words(replaced + delta))


def test_replacements_are_rounded_to_the_checkpoints_dtype(adapter):
    folder, known = adapter
    half = {name: Parameter("BF16", it.shape) for name, it in known.items()}
    found = {update.parameter: update for update in read_adapter(folder, Names(half))}
    tensors = load_file(folder / "adapter_model.safetensors")
    expected = tensors["base_model.model.classifier.weight"].to(torch.bfloat16)
    raw = np.zeros(expected.numel() * 2, np.uint8)
    result = found["classifier.weight"].apply(raw, "BF16", tuple(expected.shape))
    assert result.tobytes() == words(expected).tobytes()


@pytest.fixture
def ia3(tmp_path):
    merged = saved(tmp_path, bert, peft.IA3Config(**IA3))
    return tmp_path, parameters(merged)


@pytest.mark.parametrize(
    ("shape", "error"),
    [((31, 1), UsageError), ((2, 16), FormatError), ((0,), FormatError), ((), UsageError)],
)
def test_vectors_that_do_not_fit(ia3, shape, error):
    folder, known = ia3
    name = "base_model.model.bert.encoder.layer.0.attention.self.value.ia3_l"
    edited(folder, lambda it: it.update({name: torch.ones(shape)}))
    with pytest.raises(error):
        read_adapter(folder, Names(known))


def test_vectors_for_what_cannot_be_scaled(ia3):
    folder, known = ia3
    module = "bert.encoder.layer.0.attention.self.value"
    for name, parameter in (
        (f"{module}.weight", Parameter("I8", (32, 32))),
        (f"{module}.bias", Parameter("I8", (32,))),
        (f"{module}.bias", Parameter("F32", (33,))),
    ):
        with pytest.raises(UsageError):
            read_adapter(folder, Names(known | {name: parameter}))


def test_a_module_without_a_bias(ia3):
    folder, known = ia3
    name = "bert.encoder.layer.0.attention.self.value"
    rest = {it: known[it] for it in known if it != f"{name}.bias"}
    found = [update.parameter for update in read_adapter(folder, Names(rest))]
    assert len(found) == 11
    left_out = read_adapter(folder, Names(known, {name: ""}))
    assert len(left_out) == 10


def test_a_bias_of_another_shape(tmp_path):
    merged = saved(tmp_path, bert, peft.LoraConfig(**LORA, lora_bias=True))
    known = parameters(merged)
    name = "bert.encoder.layer.0.attention.self.query.bias"
    for other in (Parameter("F32", (33,)), Parameter("I8", (32,))):
        with pytest.raises(UsageError):
            read_adapter(tmp_path, Names(known | {name: other}))


def test_an_adapter_with_numbers_that_are_packed(adapter):
    folder, known = adapter
    edited(folder, lambda it: it.update({"x": torch.zeros(3, dtype=torch.complex64)}))
    with pytest.raises(FormatError, match="cannot hold C64") as error:
        read_adapter(folder, Names(known))
    assert error.value.path == str(folder / "adapter_model.safetensors")
