import struct

import numpy as np
import pytest
from theta_llama2c import FORMAT

from git_theta.testing.formats import FormatSuite

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, WORDS = 64, 160, 2, 4, 2, 3000


class TestLlama2C(FormatSuite):
    can_rebuild = False

    @pytest.fixture
    def plugin(self):
        return FORMAT

    @pytest.fixture
    def arrays(self):
        """What export.py writes, in its order."""
        shapes = {f"layers.{n}.attention_norm": (DIM,) for n in range(LAYERS)}
        shapes |= {f"layers.{n}.ffn_norm": (DIM,) for n in range(LAYERS)}
        shapes |= {"norm": (DIM,), "tok_embeddings": (WORDS, DIM)}
        for name, shape in {
            "attention.wq": (DIM, DIM),
            "attention.wk": (DIM // 2, DIM),
            "attention.wv": (DIM // 2, DIM),
            "attention.wo": (DIM, DIM),
            "feed_forward.w1": (HIDDEN, DIM),
            "feed_forward.w2": (DIM, HIDDEN),
            "feed_forward.w3": (HIDDEN, DIM),
        }.items():
            shapes |= {f"layers.{n}.{name}": shape for n in range(LAYERS)}
        shapes["output"] = (WORDS, DIM)
        random = np.random.default_rng(0)
        return {
            f"{name}.weight": random.standard_normal(shape).astype(np.float32)
            for name, shape in shapes.items()
        }

    @pytest.fixture
    def sample(self, arrays):
        sizes = (DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, WORDS, 256)
        header = struct.pack("<Ii7iB", 0x616B3432, 1, *sizes, False)
        return header.ljust(256, b"\0") + b"".join(array.tobytes() for array in arrays.values())
