"""An adapter's two files, as PEFT's ``save_pretrained`` writes them and vLLM reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from git_theta.adapters import CONFIG_FILE, Stored
from git_theta.commands.lora_export.modules import ModuleUpdate
from git_theta.core.files import atomic_file
from git_theta.core.layout import TensorSpan
from git_theta.errors import UsageError
from git_theta.formats.safetensors import header
from git_theta.merge.adapter_config.scales import with_updates

FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Options:
    """What an adapter's configuration says that no tensor tells."""

    base_model: str | None = None
    task_type: str | None = None
    fan_in_fan_out: bool = False


def check_folder(folder: Path, force: bool) -> None:
    """Raise ``UsageError`` where the adapter would replace what is there."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("is a file, not a folder", path=str(folder))
    if not force and any((folder / name).exists() for name in (FILE, CONFIG_FILE)):
        raise UsageError(
            "has an adapter already", path=str(folder), hint="--force replaces it, or give another"
        )


def write(
    folder: Path, updates: Sequence[ModuleUpdate], weights: Iterable[str], options: Options
) -> None:
    """Write both files, or none: each appears whole.

    ``weights`` are the names of all matrices of the checkpoint, whether they changed or not.
    """
    is_new = not folder.exists()
    config = json.dumps(_fields(updates, weights, options), indent=2, sort_keys=True) + "\n"
    tensors = dict(sorted(_tensors(updates)))
    try:
        with atomic_file(folder / CONFIG_FILE) as second, atomic_file(folder / FILE) as first:
            first.write(header({"format": "pt"}, [_span(*item) for item in tensors.items()]))
            for tensor in tensors.values():
                first.write(np.ascontiguousarray(tensor.words).data)
            second.write(config.encode())
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _tensors(updates: Iterable[ModuleUpdate]) -> Iterable[tuple[str, Stored]]:
    for update in updates:
        stem = f"{_PREFIX}{update.module}.lora_"
        names = ("embedding_A", "embedding_B") if update.is_embedding else ("A.weight", "B.weight")
        yield stem + names[0], update.down
        yield stem + names[1], update.up


def _span(name: str, tensor: Stored) -> TensorSpan:
    return TensorSpan(name, tensor.dtype, tensor.shape, 0, tensor.words.nbytes)


def _fields(
    updates: Sequence[ModuleUpdate], weights: Iterable[str], options: Options
) -> dict[str, object]:
    fields = {
        "peft_type": "LORA",
        "base_model_name_or_path": options.base_model,
        "task_type": options.task_type,
        "fan_in_fan_out": options.fan_in_fan_out,
        "target_modules": _targets([update.module for update in updates], weights),
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "r": 8,
        "use_dora": False,
        "use_rslora": False,
    }
    # Alpha is the scale times the rank.
    wanted = {each.module: (each.rank, each.scale * each.rank) for each in updates}
    return dict(with_updates(fields, wanted))


def _targets(modules: Sequence[str], weights: Iterable[str]) -> list[str]:
    """Return the last words of the modules' names, if they are those of no other module."""
    ends = {module.rpartition(".")[2] for module in modules}
    others = {name.removesuffix(".weight") for name in weights} - {*modules}
    short = not any(name.rpartition(".")[2] in ends for name in others)
    return sorted(ends if short else modules)
