"""What a parameter that the base lacks started from, told from its name; imports no torch."""

from __future__ import annotations

from typing import Literal


def neutral_element(name: str) -> Literal[0, 1] | None:
    """The value at which an adapter's parameter changes nothing: LoRA 0, IA3 1, else ``None``.

    Names are PEFT's: ``...lora_A.weight``, ``...ia3_l``. A prompt's neutral element is to be
    empty, which no tensor of its shape can be.
    """
    parts = name.split(".")
    if any(part.startswith("ia3_") for part in parts):
        return 1
    return 0 if any(part.startswith("lora_") for part in parts) else None
