"""Manifests: the small text that Git holds in a checkpoint's place (``docs/spec.md``)."""

from git_theta.manifest.model import Chunk, Manifest, TensorEntry, objects_of
from git_theta.manifest.reading import parse
from git_theta.manifest.text import MAGIC, MAX_BYTES, PREFIX, dump, is_manifest

__all__ = [
    "MAGIC",
    "MAX_BYTES",
    "PREFIX",
    "Chunk",
    "Manifest",
    "TensorEntry",
    "dump",
    "is_manifest",
    "objects_of",
    "parse",
]
