"""Stand-ins for the models of merge recipes: Llamas of 1,384 numbers, the same at every call."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

WIDTH, INNER, WORDS, LAYERS = 8, 12, 16, 2

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": LAYERS,
    "vocab_size": WORDS,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
"""What transformers reads beside the tensors."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, by its name in transformers."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (WORDS, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        found |= {f"{at}.self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"}
        found |= {f"{at}.mlp.{part}_proj.weight": (INNER, WIDTH) for part in ("gate", "up")}
        found[f"{at}.mlp.down_proj.weight"] = (WIDTH, INNER)
        found |= {f"{at}.{norm}_layernorm.weight": (WIDTH,) for norm in ("input", "post_attention")}
    return found | {"model.norm.weight": (WIDTH,), "lm_head.weight": (WORDS, WIDTH)}


def ordered(names: Iterable[str]) -> list[str]:
    """Return names in the order of ``shapes``, those of a model of other layers by the alphabet."""
    return list(shapes()) if set(names) == shapes().keys() else sorted(names)


def base() -> dict[str, np.ndarray]:
    """Return the model that the others were trained from."""
    return {name: _numbers("base", name, shape, 0.5) for name, shape in shapes().items()}


def tuned(label: str) -> dict[str, np.ndarray]:
    """Return the base, trained on: another label gives another model. Its embeddings are frozen."""
    return {
        name: array if "embed" in name else array + _numbers(label, name, array.shape, 0.1)
        for name, array in base().items()
    }


def _numbers(label: str, name: str, shape: tuple[int, ...], scale: float) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(f"{label} {name}".encode()))
    return (scale * random.standard_normal(shape)).astype(np.float32)
