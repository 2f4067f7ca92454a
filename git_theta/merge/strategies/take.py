"""One side as it is. Imports no torch: most conflicts are resolved by taking a side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from git_theta.merge.rules.hyperparameters import Words
from git_theta.merge.rules.strategy import strategy

Side = Annotated[Sequence[bool], Words(("base",)), "whose tensor it is"]


@strategy(verbatim=True, ordered=True, base_if=lambda values: not any(values["side"]))
def take(models: Sequence[Any], base: Any = None, *, side: Side) -> Any:
    """Take one contributor's tensor, or the base's, bit for bit; it may have any dtype."""
    for model, chosen in zip(models, side, strict=True):
        if chosen:
            return model
    assert base is not None, "checked before"
    return base
