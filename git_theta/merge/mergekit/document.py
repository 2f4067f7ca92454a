"""A recipe of mergekit as what it says: a method, models, and their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Document:
    """``shared`` are parameters of the whole merge, the first the most specific.

    ``dtype`` is the safetensors name of the result's, and ``problems`` what cannot be followed.
    A stack is a model of layers of the sources, one after another.
    """

    method: str
    sources: tuple[Source, ...]
    base: str | None
    shared: tuple[Settings, ...]
    dtype: str | None
    problems: tuple[str, ...]
    is_stack: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models, each once: those that are merged, then the base."""
        every = (*(source.model for source in self.sources), *([self.base] if self.base else []))
        return tuple(dict.fromkeys(every))


def parse(text: bytes) -> Document:
    """Return the recipe in ``text``. Raises ``MergeError`` where it is none of mergekit's."""
    found = load(text)
    if not isinstance(found, Mapping):
        raise MergeError("it is no recipe of mergekit: a mapping with merge_method is expected")
    method = found.get("merge_method")
    if not isinstance(method, str):
        more = ": mergekit-moe makes models of another kind" if "experts" in found else ""
        raise MergeError(f"it has no merge_method{more}")
    problems = [f"{key}: {_REFUSED[key]}" for key in _REFUSED if found.get(key) is not None]
    sources, shared = _sources(found, problems)
    out = found.get("out_dtype") or found.get("dtype")
    if out is not None and str(out) not in OUT_DTYPES:
        problems.append(f"dtype {out!r} is not one of {', '.join(OUT_DTYPES)}")
    base = found.get("base_model")
    return Document(
        method,
        tuple(sources),
        None if base is None else _model(base, problems),
        (*shared, _settings(found.get("parameters"), "parameters", problems)),
        OUT_DTYPES.get(str(out)),
        tuple(problems),
        _is_stack(found),
    )


def _sources(found: Settings, problems: list[str]) -> tuple[list[Source], list[Settings]]:
    """Return the models, and the parameters of the slice that they are in."""
    models, slices = found.get("models"), found.get("slices")
    if slices is None:
        return _listed(models, "models", problems), []
    if _is_stack(found):
        return [source for each in slices for source in _listed(each["sources"], "", problems)], []
    if not isinstance(slices, Sequence) or len(slices) != 1 or not isinstance(slices[0], Mapping):
        problems.append("slices: it merges several slices, each of several models")
        return [], []
    (only,) = slices
    sources = _listed(only.get("sources"), "sources", problems)
    if len({source.layers for source in sources}) > 1:
        problems.append("slices: it merges layers with layers of other numbers")
    unfit = (key for key in ("base_model", "residual_weight") if only.get(key) is not None)
    problems += [f"slices: {key} of a slice is not followed" for key in unfit]
    return sources, [_settings(only.get("parameters"), "slices", problems)]


def _is_stack(found: Settings) -> bool:
    """Return whether a recipe takes layers as they are, each slice from one model."""
    slices = found.get("slices")
    if found.get("merge_method") != "passthrough" or not isinstance(slices, list):
        return False
    sources = [each.get("sources") if isinstance(each, Mapping) else None for each in slices]
    return all(isinstance(each, list) and len(each) == 1 for each in sources)


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
            problems.append(f"{model}: layer_range {layers!r} is no pair of numbers")
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
