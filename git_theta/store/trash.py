"""The trash: objects that a collection is about to delete, and from where they can come back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from git_theta.core.hashes import is_hex256
from git_theta.core.os_errors import store_error

# Beside the object, in its own folder: a full disk may have no room for another.
_SUFFIX = ".trash"


class Trash:
    """The trash of the objects below ``objects``; safe for several processes."""

    def __init__(self, objects: Path) -> None:
        self._objects = objects

    def discard(self, oid: str) -> None:
        """Move an object to the trash, from where whoever needs it gets it back."""
        source = object_path(self._objects, oid)
        try:
            source.rename(self._path(oid))
        except FileNotFoundError:
            pass  # another collection was quicker
        except OSError as error:
            raise store_error(error, source) from error

    def oids(self) -> Iterator[str]:
        """Yield what is in the trash."""
        names = (file.name for folder in entries(self._objects) for file in entries(folder))
        oids = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        yield from filter(is_hex256, oids)

    def restore(self, oid: str) -> bool:
        """Get an object out of the trash; false when it is neither there nor among the objects."""
        path = object_path(self._objects, oid)
        try:
            self._path(oid).rename(path)
            os.utime(
                path, follow_symlinks=False
            )  # it may replace one that was just stored anew, and is no less needed
        except OSError:
            return path.exists()  # another process may have got it
        return True

    def destroy(self, oid: str) -> bool:
        """Delete an object that is in the trash; false when it no longer exists."""
        try:
            self._path(oid).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise store_error(error, object_path(self._objects, oid)) from error
        return True

    def stat(self, oid: str) -> os.stat_result | None:
        """Return the status of the object's file, in the trash or not; it was last used then.

        Of a link into a shared store, the status of the link.
        """
        for path in (object_path(self._objects, oid), self._path(oid)):
            with suppress(FileNotFoundError):
                return path.lstat()
        return None

    def _path(self, oid: str) -> Path:
        return object_path(self._objects, oid).with_name(oid + _SUFFIX)


@lru_cache(1024)  # it was made 18 times for each small file that is added
def object_path(objects: Path, oid: str) -> Path:
    """Return where object ``oid`` lies below ``objects``, or would."""
    return objects / oid[:2] / oid


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, in order of the names; nothing where there is none."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise store_error(error, folder) from error
