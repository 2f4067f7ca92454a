"""``adapter_config.json`` of a merged adapter: ranks, scales and tokens as its tensors have them.

The keys are described at https://github.com/huggingface/peft, release 0.21.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from git_theta.adapters import (
    Fields,
    beyond_factors,
    check_supported,
    config_of,
    parse_fields,
)
from git_theta.errors import FormatError, MergeError, UsageError, naming
from git_theta.merge.adapter_config.fields import (
    contested,
    joined,
    say_the_same,
    three_way,
    with_lists,
    with_targets,
)
from git_theta.merge.adapter_config.scales import updates_of, with_updates
from git_theta.merge.planning import soft_prompts
from git_theta.merge.planning.actions import Merge, Plan, Take, UnitMember
from git_theta.merge.planning.groups import PROMPT
from git_theta.merge.planning.low_rank_names import place_of
from git_theta.merge.planning.sources import config_path
from git_theta.merge.planning.versions import BASE

_TOKENS = "num_virtual_tokens"
# The options of a merge; where git has left a conflict, the file is taken.
_WHOLE = "--all --rule '*=take:side=theirs'"


def needed(plan: Plan) -> Fields | None:
    """Return the configuration that the merged adapter needs; ``None`` where a side has none.

    Raises ``MergeError`` for adapters of different types, and ``FormatError`` for a malformed
    configuration, if it has to be read.
    """
    with naming(config_path(plan.versions.path)):
        return _needed(plan)


def _needed(plan: Plan) -> Fields | None:
    versions = plan.versions
    sides = [contributor.adapter for contributor in versions.contributors]
    known = [fields for fields in sides if fields]
    if not known or len(known) < len(sides):
        return None
    if _types_differ(known):
        return _of_one_type(plan, known)
    fields = three_way(versions.base_adapter, known)
    if not plan.units and all(say_the_same(side, known[0]) for side in known):
        return fields
    if not all(map(_is_understood, known)):
        if same := plan.equal_sides():
            chosen = [known[side] for side in same]
            return joined(fields, three_way(versions.base_adapter, chosen))
        fields = _of_one_kind(fields, plan)
    fields = with_lists(fields, versions.base_adapter, known)
    if all(map(_has_ranks, known)):
        updates = updates_of(plan)
        fields = with_updates(with_targets(fields, known, list(updates)), updates)
    return _with_tokens(fields, plan)


def _types_differ(sides: Sequence[Fields]) -> bool:
    return len({str(fields.get("peft_type")) for fields in sides}) > 1


def _of_one_type(plan: Plan, sides: Sequence[Fields]) -> Fields:
    """Return the configuration of a side that equals the result, for adapters of different types.

    Raises ``MergeError`` where no side equals it.
    """
    if same := plan.equal_sides():
        return sides[same[0]]
    names = zip(plan.versions.names, sides, strict=True)
    kinds = ", ".join(f"{name}: {fields.get('peft_type')}" for name, fields in names)
    raise MergeError(
        f"these are adapters of different types ({kinds})",
        path=plan.versions.path,
        hint=_WHOLE,
    )


def _is_understood(fields: Fields) -> bool:
    """Return whether the adapter's updates are products of two factors and nothing else."""
    try:
        config_of(fields)
        check_supported(fields)
    except (FormatError, UsageError):
        return False
    return True


def _of_one_kind(fields: Fields, plan: Plan) -> Fields:
    """Return ``fields`` with the keys that make updates more than products of two factors.

    They come from a side whose kind all updates have: the keys are for the whole adapter, so
    updates of different kinds cannot be in one. Raises ``MergeError`` for those.
    """
    versions = plan.versions
    adapters = {side: versions.adapter(side) or {} for side in (*versions.sides, BASE)}
    kinds = {side: beyond_factors(adapter) for side, adapter in adapters.items()}
    actions = [action for action in plan.kept if place_of(action.name)]
    # Of sides that have the same tensors, one may have changed the configuration alone.
    order = sorted(kinds, key=lambda side: kinds[side] == kinds[BASE])
    alike = (
        side for side in order if all(_is_of(kinds[side], action, kinds) for action in actions)
    )
    chosen = next(alike, None)
    if chosen is None:
        shown = (f"{versions.name(n)}: {', '.join(kinds[n]) or 'plain'}" for n in versions.sides)
        raise MergeError(
            f"updates of different kinds cannot be in one adapter ({'; '.join(shown)})",
            path=versions.path,
            hint=_WHOLE,
        )
    keys = {key for kind in kinds.values() for key in kind}
    rest = {key: value for key, value in fields.items() if key not in keys}
    return rest | {key: value for key, value in adapters[chosen].items() if key in keys}


def _is_of(kind: Fields, action: Take | Merge | UnitMember, kinds: Mapping[int, Fields]) -> bool:
    """Return whether the update is of this kind on a side that it is taken from."""
    if not isinstance(action, Take):
        return not kind
    return any(kinds[side] == kind for side in (action.holders or (action.side,)))


def _has_ranks(fields: Fields) -> bool:
    """Return whether the rows of A are the rank that the configuration has for the module."""
    is_other = fields.get("target_parameters") or fields.get("use_bdlora")
    return fields.get("peft_type") == "LORA" and not is_other


def as_git_merges(plan: Plan) -> bool:
    """Return whether Git's merge by lines produces the configuration that is needed.

    It does not where sides changed a key that affects tensors to different values: Git leaves a
    conflict then, and who resolves it cannot see how the tensors were merged.
    """
    wanted = needed(plan)
    if wanted is None:
        return True
    base = plan.versions.base_adapter
    sides = [contributor.adapter or {} for contributor in plan.versions.contributors]
    return not contested(base, sides) and say_the_same(wanted, three_way(base, sides))


def text_of(fields: Fields) -> bytes:
    """Return the text of the file, formatted as PEFT does."""
    return json.dumps(fields, indent=2, sort_keys=True).encode()


def files(plan: Plan, before: bytes | None) -> dict[str, bytes]:
    """Return the file to write beside the merged adapter, by path; none if ``before`` will do."""
    wanted = needed(plan)
    if wanted is None:
        return {}
    found = _parsed(before)
    sides = [contributor.adapter or {} for contributor in plan.versions.contributors]
    if found is not None and not _types_differ(sides):
        # Keep what Git or the user made of the other keys.
        wanted = joined(found, wanted)
    if found is not None and say_the_same(found, wanted):
        return {}
    return {config_path(plan.versions.path): text_of(wanted)}


def _parsed(text: bytes | None) -> Fields | None:
    try:
        return None if text is None else parse_fields(text)
    except FormatError:
        return None  # git left conflict markers in it


def _with_tokens(fields: Fields, plan: Plan) -> Fields:
    """Return ``fields`` with the number of tokens that the prompt has."""
    action = next((action for action in plan.kept if action.name == PROMPT), None)
    if isinstance(action, UnitMember):
        return {**fields, _TOKENS: action.entry.shape[0] // soft_prompts.parts_of(fields)}
    if isinstance(action, Take) and _TOKENS in (own := plan.versions.adapter(action.side) or {}):
        return {**fields, _TOKENS: own[_TOKENS]}
    return fields
