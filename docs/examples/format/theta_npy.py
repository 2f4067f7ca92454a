"""NumPy's .npy files: a header that is a Python literal, then the elements of one array."""

import ast

from git_theta.plugins import FormatError, Layout, TensorSpan

_MAGIC = b"\x93NUMPY"
_DTYPES = {
    "<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "<i4": "I32", "<i2": "I16",
    "|i1": "I8", "<u8": "U64", "<u4": "U32", "<u2": "U16", "|u1": "U8", "|b1": "BOOL",
}  # fmt: skip


class Npy:
    name = "npy"
    suffixes = (".npy",)

    def matches(self, source):
        return source.size >= len(_MAGIC) and source.read(0, len(_MAGIC)) == _MAGIC

    def scan(self, source):
        header, start = _header(source)
        try:
            fields = ast.literal_eval(header.decode())
            dtype, shape = _DTYPES[fields["descr"]], tuple(fields["shape"])
            is_fortran = fields["fortran_order"]
        except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
            raise FormatError(f"its header is malformed: {error}") from error
        if is_fortran:
            raise FormatError("its array is in Fortran order")
        return Layout(self.name, (TensorSpan("array", dtype, shape, start, source.size - start),))

    def extras(self, source):
        return _header(source)[0]

    def checksums(self, source):
        return ()

    def rebuild(self, source, tensors):
        raise FormatError(
            "an .npy file holds one array of one shape", hint="write it with numpy.save"
        )


def _header(source):
    """Return the header, and where the array begins."""
    if not Npy().matches(source) or source.size < 10:
        raise FormatError("not an .npy file")
    width = 2 if source.read(6, 1) == b"\1" else 4
    start = 8 + width
    length = int.from_bytes(source.read(8, min(width, source.size - 8)), "little")
    if start + length > source.size or length > 1 << 16:
        raise FormatError("its header is cut off")
    return source.read(start, length), start + length


FORMAT = Npy()
