"""Objects to and from remotes: which are needed, which are there, all moved by Git LFS."""

from git_theta.transfer.download import fetch, fetch_beside, fetch_each
from git_theta.transfer.hook import RefUpdate, before_push, parse_updates
from git_theta.transfer.needs import needed_objects, read_manifests
from git_theta.transfer.upload import Uploaded, push

__all__ = [
    "RefUpdate",
    "Uploaded",
    "before_push",
    "fetch",
    "fetch_beside",
    "fetch_each",
    "needed_objects",
    "parse_updates",
    "push",
    "read_manifests",
]
