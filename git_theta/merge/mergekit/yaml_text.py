"""YAML that others wrote, read within bounds."""

from __future__ import annotations

from typing import Any

import yaml

from git_theta.core.messages import plural
from git_theta.errors import MergeError

_LARGEST, _DEEPEST = 1 << 18, 32
# Of characters. In other bases than ten, Python reads numbers that it then cannot write.
_LONGEST = 1000


def load(text: bytes) -> Any:
    """Return the document in ``text``: mappings, lists, strings, numbers.

    Raises ``MergeError`` for more than 256 KiB, 32 levels or 1,000 characters of a word, for
    aliases, with which ten lines can mean a billion, and for anything that is no YAML.
    """
    if len(text) > _LARGEST:
        raise MergeError(f"it has {plural(len(text), 'byte')}; a recipe has {_LARGEST:,} at most")
    try:
        _check(text)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise MergeError(f"it is not valid YAML: {words}") from error


def _check(text: bytes) -> None:
    """Raise ``MergeError`` before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise MergeError("it has aliases (*name), which are not supported", hint="write it out")
        is_word = isinstance(event, yaml.ScalarEvent) and (event.style is None or event.tag)
        if is_word and len(event.value) > _LONGEST:
            raise MergeError(f"it has a word of more than {plural(_LONGEST, 'character')}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise MergeError(f"it is nested more than {_DEEPEST} levels deep")


def dump(document: Any) -> str:
    """Return a document as YAML in ASCII, its keys in their order."""
    return str(yaml.safe_dump(document, sort_keys=False, width=100))
