"""Merge the recipes beside this file with mergekit, and keep its results in ``expected.npz``.

Run by hand, in an environment that has mergekit 0.1.5 and this package:
``python tests/golden/mergekit/make.py [LABEL...]``, for some of them alone. mergekit draws its
random masks from a global generator; here they are drawn from git-theta's numbers, so that what it
makes of them can be compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods import generalized_task_arithmetic as generalized
from mergekit.options import MergeOptions
from safetensors.numpy import load_file, save_file

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER.parents[2])]

from git_theta.merge.kernels.randomness import uniform  # noqa: E402
from git_theta.merge.kernels.slices import content_of  # noqa: E402
from tests.support import tiny_llama  # noqa: E402

REFUSED = ("stack", "words")
"""Recipes that git-theta refuses: nothing to compare."""


def main() -> None:
    """Write the results of all recipes."""
    wanted = sys.argv[1:]
    expected = dict(np.load(FOLDER / "expected.npz")) if wanted else {}
    with TemporaryDirectory() as folder:
        for label in ("base", "code", "math", "chat"):
            _save(Path(folder) / "lab" / f"{label}-tiny", label)
        for recipe in sorted(FOLDER.glob("*.yml")):
            if recipe.stem not in REFUSED and (not wanted or recipe.stem in wanted):
                merged = _merged(recipe, Path(folder))
                every = [merged[name].ravel() for name in tiny_llama.ordered(merged)]
                expected[recipe.stem] = np.concatenate(every)
    np.savez_compressed(FOLDER / "expected.npz", **expected)


def _save(folder: Path, label: str) -> None:
    folder.mkdir(parents=True)
    made = tiny_llama.base() if label == "base" else tiny_llama.tuned(label)
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(tiny_llama.CONFIG), "utf-8")


def _merged(recipe: Path, folder: Path) -> dict[str, np.ndarray]:
    text = recipe.read_text("utf-8").replace("lab/", f"{folder}/lab/")
    config, out = MergeConfiguration.model_validate(yaml.safe_load(text)), folder / recipe.stem
    options = MergeOptions(quiet=True, write_model_card=False, copy_tokenizer=False)
    run_merge(config, str(out), options)
    return load_file(out / "model.safetensors")


_merge_group = generalized.GeneralizedTaskArithmeticMerge.merge_group
_draws: list[torch.Tensor] = []


def _with_our_numbers(self: object, group: object, /, **parameters: object) -> torch.Tensor:
    entries = group.non_base
    _draws[:] = [
        uniform(0, group.metadata.name, content_of(e.tensor), 0, e.tensor.numel(), e.tensor.device)
        for e in entries
        if parameters["density"][e.id] < 1
    ]
    return _merge_group(self, group, **parameters)


def _bernoulli(probabilities: torch.Tensor) -> torch.Tensor:
    return (_draws.pop(0).reshape(probabilities.shape) < probabilities).to(probabilities.dtype)


if __name__ == "__main__":
    generalized.GeneralizedTaskArithmeticMerge.merge_group = _with_our_numbers
    torch.bernoulli = _bernoulli
    main()
