"""Synthetic checkpoints, and stand-ins for a fine-tune of a real one; numpy only, streamed.

Blocks are made on every core and written in order, so that memory stays at a few blocks and a
gigabyte takes seconds. The same arguments give the same bytes on every machine.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 22
"""Elements made at once: 16 MiB as float32."""

_ADAPTED = ("q_proj", "v_proj", "query", "value")
_INIT_SCALE = 0.02
"""Standard deviation of a Llama's matrices at initialisation, close to that of trained ones."""

BF16_NOISE = 5e-5
"""Standard deviation of a synthetic fine-tune. It changes half of the bf16 weights, by some units
in the last place; 60 AdamW steps at 2e-5 on a real model changed fewer (MiniLM: a third)."""

ADAMW_NOISE = 2e-5 * math.sqrt(60)
"""Standard deviation of 60 AdamW steps at learning rate 2e-5 seen as a random walk: each step
moves a weight by about the learning rate."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a safetensors file; ``start`` and ``length`` are bytes in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


def llama_shapes(size: int, layers: int | None = None) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Llama-like model of about ``size`` bytes in bf16.

    With ``layers``, as wide as that model, and with so many layers.
    """
    hidden = 2048 if size >= 500 << 20 else 1024 if size >= 100 << 20 else 256
    inner, small, vocabulary = hidden * 11 // 4, hidden // 4, hidden * 16
    layer: list[tuple[str, tuple[int, ...]]] = [
        ("input_layernorm", (hidden,)),
        ("mlp.down_proj", (hidden, inner)),
        ("mlp.gate_proj", (inner, hidden)),
        ("mlp.up_proj", (inner, hidden)),
        ("post_attention_layernorm", (hidden,)),
        ("self_attn.k_proj", (small, hidden)),
        ("self_attn.o_proj", (hidden, hidden)),
        ("self_attn.q_proj", (hidden, hidden)),
        ("self_attn.v_proj", (small, hidden)),
    ]
    ends = 2 * 2 * vocabulary * hidden
    if layers is None:
        layers = max(1, round((size - ends) / (2 * sum(math.prod(shape) for _, shape in layer))))
    return [
        ("lm_head.weight", (vocabulary, hidden)),
        ("model.embed_tokens.weight", (vocabulary, hidden)),
        *(
            (f"model.layers.{i}.{name}.weight", shape)
            for i in range(layers)
            for name, shape in layer
        ),
        ("model.norm.weight", (hidden,)),
    ]


def write_base(path: Path, size: int, layers: int | None = None) -> None:
    """Write a bf16 safetensors file with Gaussian weights to ``path``: see ``llama_shapes``."""
    shapes = llama_shapes(size, layers)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes:
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for block in _in_order(_base_blocks(shapes)):
            file.write(block)


def write_fine_tune(source: Path, target: Path, noise: float, number: int = 0) -> None:
    """Write ``source`` with Gaussian noise of that standard deviation on its F32 and BF16 weights.

    Every other byte is kept. Another ``number`` gives other noise.
    """
    with source.open("rb") as original, target.open("wb") as file:
        tensors = read_header(source)
        file.write(original.read(min(t.start for t in tensors)))
        for block in _in_order(_perturbed_blocks(source, tensors, noise, number)):
            file.write(block)


def write_sparse(source: Path, target: Path, share: float) -> None:
    """Write ``source`` with ``share`` of its F32 and BF16 weights replaced."""
    _write_changed(source, target, partial(_sparsely, share=share))


def write_lora(source: Path, target: Path, rank: int = 8, scale: float = 2e-3) -> None:
    """Write ``source`` with a LoRA of its query and value matrices merged into them."""
    _write_changed(source, target, partial(_merged, rank=rank, scale=scale))


def _write_changed(
    source: Path,
    target: Path,
    change: Callable[[Tensor, NDArray[np.float32], np.random.Generator], NDArray[np.float32]],
) -> None:
    tensors = read_header(source)
    with source.open("rb") as original, target.open("wb") as file:
        file.write(original.read(min(t.start for t in tensors)))
        for number, tensor in enumerate(tensors):
            raw = original.read(tensor.length)
            if tensor.dtype in ("BF16", "F32"):
                values = _values(raw, tensor.dtype).reshape(tensor.shape)
                generator = np.random.Generator(np.random.SFC64(3_000_000 + number))
                raw = _bytes(change(tensor, values, generator), tensor.dtype)
            file.write(raw)


def _sparsely(
    tensor: Tensor, values: NDArray[np.float32], generator: np.random.Generator, share: float
) -> NDArray[np.float32]:
    changed = generator.random(values.shape, dtype=np.float32) < share
    new = generator.standard_normal(values.shape, dtype=np.float32) * np.float32(_INIT_SCALE)
    return np.where(changed, new, values)


def _merged(
    tensor: Tensor,
    values: NDArray[np.float32],
    generator: np.random.Generator,
    rank: int,
    scale: float,
) -> NDArray[np.float32]:
    if len(tensor.shape) != 2 or not any(part in tensor.name for part in _ADAPTED):
        return values
    left, right = (
        generator.standard_normal(shape, dtype=np.float32)
        for shape in ((tensor.shape[0], rank), (rank, tensor.shape[1]))
    )
    product: NDArray[np.float32] = left @ right
    product *= np.float32(scale / math.sqrt(rank))
    product += values
    return product


def read_header(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file, ordered by position."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors = [
        Tensor(name, entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start)
        for name, entry in header.items()
        for start, end in [entry["data_offsets"]]
    ]
    return sorted(tensors, key=lambda tensor: tensor.start)


def _base_blocks(shapes: list[tuple[str, tuple[int, ...]]]) -> Iterator[Callable[[], bytes]]:
    for number, (_, shape) in enumerate(shapes):
        count = math.prod(shape)
        for first in range(0, count, _BLOCK):
            # Norms start at one and hardly move.
            mean, scale = (1.0, 0.0) if len(shape) == 1 else (0.0, _INIT_SCALE)
            yield partial(_gaussian, (number, first), min(_BLOCK, count - first), mean, scale)


def _gaussian(seed: tuple[int, int], count: int, mean: float, scale: float) -> bytes:
    return _to_bf16(_noise(seed, count, scale) + np.float32(mean)).tobytes()


def _perturbed_blocks(
    source: Path, tensors: list[Tensor], noise: float, fine_tune: int
) -> Iterator[Callable[[], bytes]]:
    for number, tensor in enumerate(tensors, 1_000_000 * (fine_tune + 1)):
        width = {"F32": 4, "BF16": 2}.get(tensor.dtype, 1)
        for first in range(0, tensor.length, _BLOCK * width):
            length = min(_BLOCK * width, tensor.length - first)
            place = (tensor.start + first, length)
            yield partial(_perturbed, source, place, tensor.dtype, (number, first), noise)


def _perturbed(
    source: Path, place: tuple[int, int], dtype: str, seed: tuple[int, int], noise: float
) -> bytes:
    with source.open("rb") as file:
        file.seek(place[0])
        raw = file.read(place[1])
    if dtype not in ("BF16", "F32"):
        return raw
    values = _values(raw, dtype)
    return _bytes(values + _noise(seed, values.size, noise), dtype)


def _values(raw: bytes, dtype: str) -> NDArray[np.float32]:
    if dtype == "F32":
        return np.frombuffer(raw, "<f4")
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


def _bytes(values: NDArray[np.float32], dtype: str) -> bytes:
    return values.tobytes() if dtype == "F32" else _to_bf16(values).tobytes()


def _noise(seed: tuple[int, int], count: int, scale: float) -> NDArray[np.float32]:
    generator = np.random.Generator(np.random.SFC64(seed))
    values: NDArray[np.float32] = generator.standard_normal(count, dtype=np.float32)
    values *= np.float32(scale)
    return values


def _to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to nearest, ties to even; no NaN comes here."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def _in_order(jobs: Iterator[Callable[[], bytes]]) -> Iterator[bytes]:
    """Run ``jobs`` on every core, a few ahead of the reader; yield their results in order."""
    workers = os.cpu_count() or 1
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) > workers + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
