"""A diagnosis of the sides of a merge as text, with what is known of such sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from git_theta.cli.text import printable, table

if TYPE_CHECKING:
    from git_theta.merge.compute.compare import Comparison, Pair
    from git_theta.merge.compute.diagnosis import Diagnosis

# Fine-tunes of different tasks have cosines near 0 (arXiv:2212.04089).
_APART, _ALIKE = 0.2, 0.5
# Signs of unrelated changes differ in half of the elements.
_CONTRARY = 0.4
_LARGER = 3.0

_SAID = {
    "alike": "{pair} went much the same way (cosine {cosine:.2f}), as fine-tunes of one task do: a "
    "mean (average, slerp) stays on their way, a sum overshoots (arXiv:2203.05482).",
    "apart": "{pair} are nearly orthogonal (cosine {cosine:.2f}), as changes for different "
    "tasks mostly are: a sum disturbs each little (task_arithmetic, arXiv:2212.04089), a mean "
    "halves both.",
    "against": "{pair} went against each other (cosine {cosine:.2f}): any merge undoes some of "
    "both. Evaluate it, or take one side of the groups with the lowest cosines.",
    "contrary": "{pair} differ in sign in {opposed:.0f} % of what both changed: strategies that "
    "elect a sign keep one direction where a sum cancels (ties, dare_ties; arXiv:2306.01708).",
    "larger": "{larger} moved {times:.1f} times as far as {smaller}, and outweighs it in a sum: "
    "give it a smaller weight.",
}
_ALWAYS = (
    "In the broadest study on LLMs (arXiv:2511.21437) only task_arithmetic gained reliably; "
    "git theta sweep finds its lambda with your evaluation."
)


def diagnosis_lines(found: Diagnosis) -> list[str]:
    """Return a line for each group and for all of them, then what the literature says."""
    if not found.groups:
        return [f"{printable(found.path)}: no tensor changed on several sides"]
    pairs = sorted(found.whole.cosines)
    header = ["GROUP", "TENSORS", *(f"MOVED {name}" for name in found.names)]
    for i, j in pairs:
        pair = "" if len(pairs) == 1 else f" {found.names[i]}~{found.names[j]}"
        header += [f"COSINE{pair}", f"OPPOSED{pair}"]
    rows = [(name, f"{count:,}", *_cells(each, pairs)) for name, count, each in found.groups]
    total = sum(count for _, count, _ in found.groups)
    rows.append(("all", f"{total:,}", *_cells(found.whole, pairs)))
    numbers = range(1, len(header))
    lines = table(header, rows, right=numbers).splitlines()
    return [f"{printable(found.path)}:", *(f"  {line}" for line in lines), *_literature(found)]


def _cells(found: Comparison, pairs: Sequence[Pair]) -> list[str]:
    cells = [_share(share) for share in found.relative]
    for pair in pairs:
        cosine = found.cosines.get(pair)
        cells.append("-" if cosine is None else f"{cosine:.2f}")
        cells.append(_share(found.opposites.get(pair)))
    return cells


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def _literature(found: Diagnosis) -> list[str]:
    said = [text for pair in sorted(found.whole.cosines) for text in _on(found, pair)]
    return ["", *map(printable, said), _ALWAYS] if said else []


def _on(found: Diagnosis, pair: Pair) -> list[str]:
    cosine, opposed = found.whole.cosines[pair], found.whole.opposites.get(pair)
    one, other = (found.names[side] for side in pair)
    words: dict[str, Any] = {"pair": f"{one} and {other}"}
    if cosine is None:
        return []
    keys = ["alike"] if cosine > _ALIKE else ["apart"] if abs(cosine) <= _APART else []
    keys += ["against"] if cosine < -_APART else []
    keys += ["contrary"] if opposed is not None and opposed > _CONTRARY else []
    words |= {"cosine": cosine, "opposed": 100 * (opposed or 0)}
    lengths = [found.whole.relative[side] or 0.0 for side in pair]
    times = max(lengths) / min(lengths) if min(lengths) else 0.0
    if times > _LARGER:
        keys.append("larger")
        order = (one, other) if lengths[0] > lengths[1] else (other, one)
        words |= {"larger": order[0], "smaller": order[1], "times": times}
    return [_SAID[key].format(**words) for key in keys]


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON."""
    groups = [
        {"group": pattern, "tensors": count, **_json(found, each)}
        for pattern, count, each in found.groups
    ]
    return {"path": found.path, "groups": groups, "all": _json(found, found.whole)}


def _json(found: Diagnosis, each: Comparison) -> dict[str, Any]:
    def by_names(values: Mapping[Pair, float | None]) -> list[dict[str, Any]]:
        return [
            {"sides": [found.names[i], found.names[j]], "value": value}
            for (i, j), value in values.items()
        ]

    moved = dict(zip(found.names, each.relative, strict=False))
    return {"moved": moved, "cosines": by_names(each.cosines), "opposed": by_names(each.opposites)}
