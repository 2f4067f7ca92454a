"""The plot of what a pipeline stores: per commit, and in all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_LFS, _THETA = "#9aa5b1", "#1f6feb"
_MB = 1e6


def write_plot(commits: Sequence[tuple[str, int, int]], target: Path) -> None:
    """Write a PNG: name, bytes stored by git-lfs and by git-theta, for each commit in order."""
    mpl.use("agg")
    names = [fill(name, 12, break_on_hyphens=False) for name, _, _ in commits]
    sizes = [[lfs / _MB for _, lfs, _ in commits], [theta / _MB for *_, theta in commits]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    _bars(left, names, sizes)
    _lines(right, names, sizes)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    # Without a date or a version the same figures give the same file.
    figure.savefig(target, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _bars(axes: Axes, names: list[str], sizes: list[list[float]]) -> None:
    axes.set_title("Each commit")
    for shift, values, colour, label in zip(
        (-0.2, 0.2), sizes, (_LFS, _THETA), ("git-lfs", "git-theta"), strict=True
    ):
        places = [place + shift for place in range(len(names))]
        bars = axes.bar(places, values, 0.4, color=colour, label=label)
        axes.bar_label(bars, fmt=_short, fontsize=8)
    _finish(axes, names)


def _lines(axes: Axes, names: list[str], sizes: list[list[float]]) -> None:
    axes.set_title("The repository")
    for values, colour, label in zip(sizes, (_LFS, _THETA), ("git-lfs", "git-theta"), strict=True):
        sums = list(accumulate(values))
        axes.plot(sums, color=colour, label=label, marker="o", linewidth=2)
        axes.annotate(
            f"{sums[-1]:.0f}", (len(sums) - 1, sums[-1]), (0, 7), textcoords="offset points"
        )
    _finish(axes, names)


def _finish(axes: Axes, names: list[str]) -> None:
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel("MB stored")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1g}"
