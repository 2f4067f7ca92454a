"""The decision on a soft prompt: whether, and of how many tokens, prompts can be joined to one."""

from __future__ import annotations

from dataclasses import dataclass

from git_theta.adapters import Fields
from git_theta.manifest import TensorEntry
from git_theta.merge.planning.actions import Action, UnitMember, result_entry
from git_theta.merge.planning.conflicts import absent, differing, is_merged, unknown_config
from git_theta.merge.planning.groups import PROMPT, Group
from git_theta.merge.planning.versions import BASE, Versions
from git_theta.merge.rules.rules import Method, Rule

# Prompts of these types hold keys and values for each of the tokens, once.
_OF_KEYS = ("PREFIX_TUNING", "CARTRIDGE")


@dataclass(frozen=True, slots=True)
class PromptUnit:
    """A prompt that is made of several; ``sides`` are the contributors that have one.

    Encoder-decoders have a prompt for each of their ``parts``, one after the other in the tensor.
    """

    name: str
    rule: Rule
    method: Method
    sides: tuple[int, ...]
    inputs: tuple[TensorEntry, ...]
    parts: int
    results: tuple[TensorEntry]

    @property
    def weight(self) -> int:
        """Number of bytes of these prompts and of the joined one."""
        return sum(entry.length for entry in (*self.inputs, *self.results))

    @property
    def values(self) -> dict[str, object]:
        """The method's values for the contributors that have a prompt."""
        return self.method.values_of(self.sides)


def may_be(group: Group) -> bool:
    """Return whether the group has the name of a prompt."""
    return not group.is_lora and group.name == PROMPT


def merge(versions: Versions, group: Group, rule: Rule, method: Method) -> list[Action] | str:
    """Join the prompts by ``method``, or return the reason why they cannot be joined."""
    (parameter,) = group.parameters
    sides = [side for side in versions.sides if group.is_in(side)]
    found = {side: e for side in sides if isinstance(e := parameter.entry(side), TensorEntry)}
    entries = list(found.values())
    reason = (
        (absent(versions, group) if group.is_in(BASE) else None)
        or differing(versions, found, "have different dtypes", lambda entry: entry.dtype)
        or differing(versions, found, "have prompts of different widths", lambda e: e.shape[1:])
        or ("it is tied to another tensor" if len(entries) < len(sides) else None)
        or unknown_config(versions, sides)
        or _no_prompts(versions, entries)
    )
    if reason:
        return reason
    first = entries[0]
    tokens = sum(entry.shape[0] for entry in entries)
    unit = PromptUnit(
        name=parameter.name,
        rule=rule,
        method=method,
        sides=tuple(sides),
        inputs=tuple(entries),
        parts=_parts(versions),
        results=(result_entry(first, (tokens, first.shape[1])),),
    )
    return [UnitMember(unit, 0)]


def _no_prompts(versions: Versions, entries: list[TensorEntry]) -> str | None:
    """Return the reason why the tensors are no prompts, if they are none."""
    for entry in entries:
        if len(entry.shape) != 2 or 0 in entry.shape or not is_merged(entry.dtype):
            return f"{entry.dtype} {list(entry.shape)} is not a prompt, which is [tokens, width]"
        if entry.shape[0] % _parts(versions):
            return f"{entry.shape[0]} tokens are not {_parts(versions)} prompts of the same length"
    return None


def _parts(versions: Versions) -> int:
    return parts_of(versions.contributors[0].adapter or {})


def parts_of(fields: Fields) -> int:
    """Return the number of prompts in a tensor: two for encoder-decoders."""
    if fields.get("peft_type") in _OF_KEYS:
        return 1
    parts = fields.get("num_transformer_submodules")
    return parts if isinstance(parts, int) and parts > 0 else 1
