"""The local store: objects, packs of small frames, and the index of what is in them."""

from git_theta.store.index import Index
from git_theta.store.objects import ObjectStore
from git_theta.store.packs import PackWriter
from git_theta.store.read_ahead import ReadAhead
from git_theta.store.rows import Location, Stamp
from git_theta.store.shared import SharedStore

__all__ = ["Index", "Location", "ObjectStore", "PackWriter", "ReadAhead", "SharedStore", "Stamp"]
