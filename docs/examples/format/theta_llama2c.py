"""Models of llama2.c: a header of 256 bytes, then float32 tensors in an order that is fixed."""

import struct
from itertools import accumulate
from math import prod

from git_theta.plugins import FormatError, Layout, TensorSpan

_MAGIC = b"24ka\1\0\0\0"  # and version 1; the later ones are quantised
_SIZES = struct.Struct("<7iB")
_START = 256


class Llama2C:
    name = "llama2c"
    suffixes = (".bin",)

    def matches(self, source):
        return source.size >= _START and source.read(0, len(_MAGIC)) == _MAGIC

    def scan(self, source):
        if not self.matches(source):
            raise FormatError("not a model of llama2.c, version 1")
        shapes = _shapes(*_SIZES.unpack(source.read(len(_MAGIC), _SIZES.size)))
        lengths = [4 * prod(shape) for shape in shapes.values()]
        starts = list(accumulate(lengths, initial=_START))
        if starts.pop() != source.size:
            raise FormatError("its length is not that of the model in its header")
        rows = zip(shapes, shapes.values(), starts, lengths, strict=True)
        spans = [TensorSpan(name, "F32", shape, *place) for name, shape, *place in rows]
        return Layout(self.name, tuple(spans))

    def extras(self, source):
        return source.read(0, _START)

    def checksums(self, source):
        return ()

    def rebuild(self, source, tensors):
        raise FormatError("its header fixes the tensors", hint="write it with llama2.c's export.py")


def _shapes(dim, hidden, layers, heads, kv_heads, words, length, shared):
    """Return the shape of each tensor, in the order of the file."""
    # A header may say anything: two thousand million layers, too.
    if min(dim, hidden, layers, heads, kv_heads, words, length) < 1 or layers > 1000:
        raise FormatError("its header is malformed")
    kv_dim = dim * kv_heads // heads
    of_layers = {
        "attention.wq": (dim, dim), "attention.wk": (kv_dim, dim), "attention.wv": (kv_dim, dim),
        "attention.wo": (dim, dim), "feed_forward.w1": (hidden, dim),
        "feed_forward.w2": (dim, hidden), "feed_forward.w3": (hidden, dim),
    }  # fmt: skip
    norms = dict.fromkeys(("attention_norm", "ffn_norm"), (dim,))
    return {
        **_per_layer(norms, layers),
        "norm.weight": (dim,),
        "tok_embeddings.weight": (words, dim),
        **_per_layer(of_layers, layers),
        **({} if shared else {"output.weight": (words, dim)}),
    }


def _per_layer(shapes, layers):
    return {f"layers.{n}.{name}.weight": shapes[name] for name in shapes for n in range(layers)}


FORMAT = Llama2C()
