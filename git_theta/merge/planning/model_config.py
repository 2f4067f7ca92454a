"""``config.json`` beside a model: fields that a merge changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def with_fields(
    text: bytes | None, wanted: Callable[[dict[str, Any]], dict[str, Any]]
) -> bytes | None:
    """Return a configuration with the fields that ``wanted`` makes of it.

    ``None`` where it cannot be read, as in conflict, and where nothing is wanted.
    """
    try:
        fields = json.loads(text or b"")
    except (ValueError, RecursionError):
        return None
    renewed = wanted(fields) if isinstance(fields, dict) else {}
    return (json.dumps(fields | renewed, indent=2) + "\n").encode() if renewed else None
