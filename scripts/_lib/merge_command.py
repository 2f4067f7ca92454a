"""`git theta merge` as a whole, and mergekit's own command for the same merge beside it."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import safe_open

from _lib.checkpoint import BF16_NOISE, llama_shapes, write_base, write_fine_tune
from _lib.measure import Usage, measured
from _lib.sandbox import THETA, Project

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Case:
    """What is merged: ``contributors`` fine-tunes of a bf16 checkpoint of about ``size`` bytes."""

    size: int
    contributors: int
    strategy: str
    parameters: Sequence[str]

    @property
    def names(self) -> list[str]:
        """Branches."""
        return [f"fine-tune-{number}" for number in range(1, self.contributors + 1)]


@dataclass
class Runs:
    """One command measured several times."""

    command: str
    usage: list[Usage] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(usage.seconds for usage in self.usage)

    @property
    def memory(self) -> int:
        """The highest peak of the program's resident memory."""
        return max(usage.program for usage in self.usage)


def write_models(root: Path, case: Case) -> None:
    """A Hugging Face folder for the base and for each fine-tune."""
    base = _folder(root, "base", case)
    write_base(base, case.size)
    for number, name in enumerate(case.names):
        write_fine_tune(base, _folder(root, name, case), BF16_NOISE, number)


def _folder(root: Path, name: str, case: Case) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_llama(case.size)), encoding="utf-8")
    return folder / MODEL


def _llama(size: int) -> dict[str, object]:
    shapes = dict(llama_shapes(size))
    vocabulary, hidden = shapes["lm_head.weight"]
    layers = sum(name.endswith(".input_layernorm.weight") for name in shapes)
    heads = max(1, hidden // 128)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": shapes["model.layers.0.mlp.up_proj.weight"][0],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 4),
        "vocab_size": vocabulary,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
    }


class Ours:
    """A repository with the base on main and a branch for each fine-tune."""

    def __init__(self, root: Path, models: Path, case: Case) -> None:
        self._case = case
        self._project = Project(root, THETA)
        for name in ("base", *case.names):
            if name != "base":
                self._project.git("checkout", "-q", "-b", name, "main")
            self._project.put(models / name / MODEL)
            self._project.git("add", ".")
            self._project.git("commit", "-q", "-m", name)
        self._project.git("checkout", "-q", "main")

    @property
    def result(self) -> Path:
        """The merged checkpoint."""
        return self._project.file

    def run(self) -> Usage:
        """Merge; what a run before left is removed first."""
        self._project.git("reset", "-q", "--hard", f"{self._case.names[0]}~1")
        self._project.git("reflog", "expire", "--expire=now", "--all")
        self._project.git("theta", "gc")
        options = [word for item in self._case.parameters for word in ("-p", item)]
        command = ["git", "theta", "merge", *self._case.names, "--strategy", self._case.strategy]
        return measured(
            [*command, *options], self._project.work, self._project.sandbox.environment, "git-theta"
        )


class Mergekit:
    """``mergekit-yaml`` at ``program``, for TIES with the density that is git-theta's default."""

    def __init__(self, root: Path, program: Path, case: Case, dtype: str) -> None:
        if case.strategy != "ties":
            sys.exit("only ties is compared with mergekit")
        self._root, self._program = root, program
        self._config = root / "ties.yml"
        self._config.write_text("\n".join(_yaml(case, dtype)) + "\n", encoding="utf-8")

    @property
    def result(self) -> Path:
        """The merged checkpoint."""
        return self._root / "merged" / MODEL

    def run(self) -> Usage:
        """Merge into a new folder."""
        if self.result.exists():
            self.result.unlink()
        environment = {"HOME": str(self._root), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
        command = [str(self._program), str(self._config), "merged", "--quiet"]
        return measured(command, self._root, environment, self._program.name)


def _yaml(case: Case, dtype: str) -> Iterator[str]:
    yield "models:"
    for name in case.names:
        yield f"  - model: ./{name}"
        yield "    parameters: {density: 0.2, weight: 1.0}"
    yield "merge_method: ties"
    yield "base_model: ./base"
    yield "parameters: {normalize: true}"
    yield f"dtype: {dtype}"
    yield "out_dtype: bfloat16"


def equal_share(one: Path, other: Path) -> float:
    """The share of the elements that are the same in both files."""
    same = total = 0
    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        for name in first.keys():  # noqa: SIM118 - it is no mapping
            a, b = first.get_tensor(name), second.get_tensor(name)
            same += int((a == b).sum())
            total += a.numel()
    return same / total
