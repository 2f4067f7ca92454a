"""A recipe of mergekit as what it says: a method, models, and their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from git_theta.errors import MergeError
from git_theta.merge.mergekit.yaml_text import load
from git_theta.merge.rules.request import OUT_DTYPES

Settings = Mapping[str, Any]

# What a recipe may say that changes more than tensors, and why it is not done.
_REFUSED = {
    "modules": "it merges the parts of a model by separate recipes",
    "tokenizer_source": "it makes another vocabulary; files of tokenizers are merged as git would",
    "tokenizer": "it makes another vocabulary; files of tokenizers are merged as git would",
    "chat_template": "a chat template is a file of its own: edit and commit it",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A model that is merged, its own parameters, and the layers that are taken, if it says so."""

    model: str
    parameters: Settings = field(default_factory=dict)
    layers: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class OutputSlice:
    """Layers of the result: of which layers they are made, by parameters of their own."""

    sources: tuple[Source, ...]
    base: str | None
    parameters: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """``shared`` are parameters of the whole merge; a slice's own are more specific.

    ``dtype`` is the safetensors name of the result's, and ``problems`` what cannot be followed.
    Models that are merged whole are in one slice, whose sources have no layers.
    """

    method: str
    slices: tuple[OutputSlice, ...]
    shared: Settings
    dtype: str | None
    problems: tuple[str, ...]

    @property
    def is_stack(self) -> bool:
        """Return whether layers are taken as they are, each slice from one model."""
        is_sliced = any(each.layers for one in self.slices for each in one.sources)
        is_single = all(len(each.sources) == 1 for each in self.slices)
        return self.method == "passthrough" and is_sliced and is_single

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models, each once: those that are merged, then the bases."""
        merged = [source.model for each in self.slices for source in each.sources]
        return tuple(dict.fromkeys([*merged, *(each.base for each in self.slices if each.base)]))


def parse(text: bytes) -> Document:
    """Return the recipe in ``text``. Raises ``MergeError`` where it is none of mergekit's."""
    found = load(text)
    if not isinstance(found, Mapping):
        raise MergeError("it is not a mergekit recipe: a mapping with merge_method is expected")
    method = found.get("merge_method")
    if not isinstance(method, str):
        more = ": mergekit-moe makes models of another kind" if "experts" in found else ""
        raise MergeError(f"it has no merge_method{more}")
    problems = [f"{key}: {_REFUSED[key]}" for key in _REFUSED if found.get(key) is not None]
    base = found.get("base_model")
    model = None if base is None else _model(base, problems)
    slices = _slices(found, model, problems)
    out = found.get("out_dtype") or found.get("dtype")
    if out is not None and str(out) not in OUT_DTYPES:
        problems.append(f"dtype {out!r} is not one of {', '.join(OUT_DTYPES)}")
    shared = _settings(found.get("parameters"), "parameters", problems)
    return Document(method, slices, shared, OUT_DTYPES.get(str(out)), tuple(problems))


def _slices(found: Settings, base: str | None, problems: list[str]) -> tuple[OutputSlice, ...]:
    slices = found.get("slices")
    if slices is None:
        return (OutputSlice(tuple(_listed(found.get("models"), "models", problems)), base),)
    if not (isinstance(slices, list) and slices and all(isinstance(s, Mapping) for s in slices)):
        problems.append("slices: a list of mappings is expected")
        return ()
    return tuple(_slice(each, base, problems) for each in slices)


def _slice(found: Settings, base: str | None, problems: list[str]) -> OutputSlice:
    if found.get("residual_weight") is not None:
        problems.append("slices: residual_weight of a slice is not followed")
    own = found.get("base_model")
    sources = _listed(found.get("sources"), "sources", problems)
    problems += [f"{each.model}: a slice without layers" for each in sources if not each.layers]
    return OutputSlice(
        tuple(sources),
        base if own is None else _model(own, problems),
        _settings(found.get("parameters"), "slices", problems),
    )


def _listed(models: Any, key: str, problems: list[str]) -> list[Source]:
    if not isinstance(models, list) or not models:
        if "modules:" not in " ".join(problems):
            problems.append(f"{key}: a list of models is missing")
        return []
    return [_source(model, problems) for model in models]


def _source(found: Any, problems: list[str]) -> Source:
    entry: Settings = found if isinstance(found, Mapping) else {}
    model = _model(entry.get("model"), problems)
    layers = entry.get("layer_range")
    pair = None
    if layers is not None:
        if not (isinstance(layers, list) and [type(each) for each in layers] == [int, int]):
            problems.append(f"{model}: layer_range {layers!r} is not a pair of numbers")
        else:
            pair = (layers[0], layers[1])
    return Source(model, _settings(entry.get("parameters"), model, problems), pair)


def _model(found: Any, problems: list[str]) -> str:
    if not isinstance(found, str) or not found:
        problems.append(f"model {found!r} is no name")
        return str(found)
    if "+" in found:
        problems.append(f"{found}: it adds an adapter to a model first; commit the sum as a branch")
    return found


def _settings(found: Any, where: str, problems: list[str]) -> Settings:
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        problems.append(f"{where}: parameters are no mapping")
        return {}
    return found
