"""`git theta merge` as a whole: branches of a synthetic checkpoint, merged by the command."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.checkpoint import BF16_NOISE, llama_shapes, write_base, write_fine_tune
from benchmarks.load import Load, watched
from benchmarks.measure import Usage, measured
from benchmarks.sandbox import THETA, Project

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Case:
    """What is merged: ``contributors`` fine-tunes of a bf16 checkpoint of about ``size`` bytes.

    With ``layers``, of one as wide as that, with so many layers. We merge on ``device``.
    """

    size: int
    contributors: int
    strategy: str
    parameters: Sequence[str]
    layers: int | None = None
    device: str = "cpu"

    @property
    def names(self) -> list[str]:
        """Branches."""
        return [f"fine-tune-{number}" for number in range(1, self.contributors + 1)]

    @property
    def depth(self) -> int:
        """The number of layers."""
        shapes = llama_shapes(self.size, self.layers)
        return sum(name.endswith(".input_layernorm.weight") for name, _ in shapes)


@dataclass
class Runs:
    """One command measured several times; the memory counts of processes of ``program``."""

    command: str
    program: str
    usage: list[Usage] = field(default_factory=list)
    load: list[Load] = field(default_factory=list)

    def run(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        """Measure it once more."""
        with watched() as load:
            usage = measured(command, cwd, environment, self.program)
        self.usage.append(usage)
        self.load.append(load)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(usage.seconds for usage in self.usage)

    @property
    def range(self) -> tuple[float, float]:
        """Seconds of the fastest run and of the slowest."""
        found = [usage.seconds for usage in self.usage]
        return min(found), max(found)

    @property
    def processor(self) -> float:
        """Seconds of processor time, the median."""
        return statistics.median(load.processor for load in self.load)

    @property
    def others(self) -> float:
        """Cores that other programs kept busy, in the run that was disturbed the most."""
        return max(load.others for load in self.load)

    @property
    def memory(self) -> int:
        """The highest peak of the program's resident memory."""
        return max(usage.program for usage in self.usage)


def write_models(root: Path, case: Case) -> None:
    """A Hugging Face folder for the base and for each fine-tune."""
    base = _folder(root, "base", case)
    write_base(base, case.size, case.layers)
    for number, name in enumerate(case.names):
        write_fine_tune(base, _folder(root, name, case), BF16_NOISE, number)


def _folder(root: Path, name: str, case: Case) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_llama(case)), encoding="utf-8")
    return folder / MODEL


def _llama(case: Case) -> dict[str, object]:
    shapes = dict(llama_shapes(case.size, case.layers))
    vocabulary, hidden = shapes["lm_head.weight"]
    heads = max(1, hidden // 128)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": shapes["model.layers.0.mlp.up_proj.weight"][0],
        "num_hidden_layers": case.depth,
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
        self.runs = Runs(f"git theta merge on {case.device}", THETA.name)
        self._case = case
        self._project = Project(root, THETA)
        self._project.git("config", "theta.device", case.device)
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

    def run(self) -> None:
        """Merge; what a run before left is removed first."""
        self._project.git("reset", "-q", "--hard", f"{self._case.names[0]}~1")
        self._project.git("reflog", "expire", "--expire=now", "--all")
        self._project.git("theta", "gc")
        options = [word for item in self._case.parameters for word in ("-p", item)]
        command = ["git", "theta", "merge", *self._case.names, "--strategy", self._case.strategy]
        project = self._project
        os.sync()  # nobody pays for the pages that were left dirty
        self.runs.run([*command, *options], project.work, project.sandbox.environment)
