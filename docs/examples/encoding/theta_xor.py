"""The bits that differ from the base: what did not change is zeros, which compress to nothing."""

import numpy as np

from git_theta.plugins import CorruptObjectError, Encoded, Part


class Xor:
    name = "xor"
    number = 200
    needs_base = True

    def encode(self, raw, base, geometry):
        if base is None or base.size != raw.size:
            return None
        return Encoded(b"", (Part(1, (raw ^ base).data),))

    def decode(self, encoded, base, geometry, length):
        sizes = [part.nbytes for part in encoded.parts]
        if base is None or base.size != length or sizes != [length] or encoded.params:
            raise CorruptObjectError("its parts do not fit")
        return np.frombuffer(encoded.parts[0].data, np.uint8) ^ base


ENCODING = Xor()
