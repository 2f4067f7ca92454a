"""Manifests: the small text that Git holds in a checkpoint's place (``docs/spec.md``)."""

from git_theta.manifest.model import AliasEntry, Chunk, Manifest, TensorEntry
from git_theta.manifest.text import MAGIC, dump, is_manifest, parse

__all__ = [
    "MAGIC",
    "AliasEntry",
    "Chunk",
    "Manifest",
    "TensorEntry",
    "dump",
    "is_manifest",
    "parse",
]
