"""What a parameter that the base lacks started from, told from its name; imports no torch."""

from __future__ import annotations

from typing import Literal


def neutral_element(name: str) -> Literal[1] | None:
    """The value at which an adapter's parameter changes nothing: 1 for IA3, else ``None``.

    Names are PEFT's: ``...ia3_l``. That of a LoRA update is 0, but of its factors' product, and
    a prompt's is to be empty, which no tensor of its shape can be.
    """
    return 1 if any(part.startswith("ia3_") for part in name.split(".")) else None
