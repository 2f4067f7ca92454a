"""Frames: chunks as byte planes, compressed with zstd (``docs/spec.md``)."""

from git_theta.codec.frame import (
    HEADER_BYTES,
    PARAMS_BYTES,
    Frame,
    Header,
    decode_frame,
    encode_frame,
    estimate,
    iter_headers,
    parts_limit,
    read_header,
    read_params,
)
from git_theta.core.layout import MAX_RAW

__all__ = [
    "HEADER_BYTES",
    "MAX_RAW",
    "PARAMS_BYTES",
    "Frame",
    "Header",
    "decode_frame",
    "encode_frame",
    "estimate",
    "iter_headers",
    "parts_limit",
    "read_header",
    "read_params",
]
