"""How the encoding of one chunk is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.checkpoint import chunk_encoder
from git_theta.checkpoint.chunk_decoder import Base
from git_theta.codec import decode_frame
from git_theta.core import registry
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Geometry
from git_theta.encodings.delta import Delta
from git_theta.encodings.low_rank import LowRank

SHAPE = (300, 200)
F32 = Geometry(dtype("F32"), SHAPE)


def weights(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def chosen(new: np.ndarray, old: np.ndarray, links: int = 1) -> str:
    chain = tuple(Ref(f"{link:064x}", 1, 0, 1) for link in range(links))
    base = Base(content_hash(old.tobytes()), old.reshape(-1).view(np.uint8), chain)
    made = chunk_encoder.encode(new.tobytes(), content_hash(new.tobytes()), F32, base)
    encoding = registry.encoding_numbered(decode_frame(b"".join(made.frame)).encoding)
    assert encoding is not None
    assert (made.base is not None) == encoding.needs_base
    return encoding.name


def tuned(old: np.ndarray) -> np.ndarray:
    return (old + np.random.default_rng(9).standard_normal(SHAPE) * 1e-5).astype(np.float32)


def test_what_costs_least_is_taken() -> None:
    old = weights()
    few = old.copy()
    few[5, 7] += 1
    assert chosen(tuned(old), old) == "delta"
    assert chosen(few, old) == "sparse"
    assert chosen(old * np.float32(1.01), old) == "ia3"
    assert chosen(weights(1), old) == "full"


def test_what_does_not_decode_to_the_same_bytes_is_not_taken(monkeypatch) -> None:
    old = weights()
    monkeypatch.setattr(Delta, "is_exact", lambda *_: False)
    assert chosen(tuned(old), old) == "full"


def test_only_what_is_taken_is_decoded(monkeypatch) -> None:
    old, decoded = weights(), []
    monkeypatch.setattr(Delta, "is_exact", lambda *_: decoded.append("delta") or True)
    assert chosen(tuned(old), old) == "delta"
    assert chosen(old * np.float32(1.01), old) == "ia3"
    assert decoded == ["delta"]


def test_next_to_nothing_ends_the_trials(monkeypatch) -> None:
    old = weights()
    few = old.copy()
    few[5, 7] += 1

    def fail(*_: object) -> None:
        raise AssertionError("tried without need")

    monkeypatch.setattr(LowRank, "encode", fail)
    assert chosen(few, old) == "sparse"
    with pytest.raises(AssertionError, match="tried without need"):
        chosen(tuned(old), old)


def test_a_long_chain_must_save_more() -> None:
    old = weights()
    half = np.where(np.random.default_rng(2).random(SHAPE) < 0.7, weights(1), old)
    assert chosen(half, old, links=1) == "delta"
    assert chosen(half, old, links=40) == "full"
