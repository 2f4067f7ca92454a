"""Reads an adapter that PEFT saved, LoRA or IA3, and says what it does to a checkpoint.

The result of merging is that of PEFT's ``merge_and_unload`` on a CPU: for F32, F16 and BF16 bit
for bit where its matrix routine uses fused multiply-adds and sums in order (MKL, ranks to 128),
else within one rounding step, at the size of what is summed. For F64 the routine's rounding of
partial sums, half a step for each rank at most, is not imitated.

Source: https://github.com/huggingface/peft, release 0.21.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from git_theta.adapters.config import Config, read_config
from git_theta.adapters.lora import lora_updates
from git_theta.adapters.names import Names, mismatch
from git_theta.adapters.scale_vectors import ia3_updates
from git_theta.adapters.stored import Stored, read_tensors
from git_theta.adapters.updates import Replacement, Update, chain
from git_theta.errors import FormatError, UsageError, naming

_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
# A module's factor: "...query.lora_A.weight", with the adapter's name in between where a whole
# state dict was saved.
_FACTOR = re.compile(r"(?P<module>.+)\.(?P<kind>lora|ia3)_(?P<role>[A-Za-z_]+)(?P<rest>(\.\w+)*)")
# What PEFT's wrappers add to the names of parameters that are saved whole.
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save(\.[^.]+)?)(?=\.)")
_ORIGINAL = ".original_module."


def read_adapter(data: Path, names: Names) -> list[Update]:
    """Return the updates that an adapter stands for, at most one of each parameter.

    ``data`` is the folder that ``save_pretrained()`` wrote, or the file of tensors in it. Raises
    ``UsageError`` where the adapter is for another model or of a kind that cannot be merged,
    ``FormatError`` where it is broken.
    """
    path = tensor_file(data)
    config = read_config(path.parent / "adapter_config.json")
    tensors = read_tensors(path)
    with naming(str(path)):
        for name, tensor in tensors.items():
            if not tensor.is_finite():
                raise FormatError(f"{name} has a NaN or an infinity: the training went wrong")
        updates = _collected(_updates(tensors, config, names), names)
        if not updates:
            raise FormatError("the adapter updates nothing")
        return updates


def tensor_file(data: Path) -> Path:
    """Return the file of tensors in an adapter's folder; ``UsageError`` where there is none."""
    if data.is_file():
        return data
    found = [data / name for name in _FILES if (data / name).is_file()]
    if not found:
        raise UsageError(
            "there is no adapter",
            path=str(data),
            hint=f"give a folder with {_FILES[0]}, as save_pretrained() writes it",
        )
    return found[0]


def _updates(tensors: Mapping[str, Stored], config: Config, names: Names) -> Iterator[Update]:
    """Parameters saved whole first, then the modules' updates."""
    modules: dict[str, dict[str, Stored]] = defaultdict(dict)
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        factor = _FACTOR.fullmatch(name)
        if factor is None:
            yield from _replacements(name, tensor, names)
        else:
            role = _role(factor)
            if factor["kind"].upper() != config.kind or role in modules[factor["module"]]:
                raise FormatError(f"{key} is not of one adapter of type {config.kind}")
            modules[factor["module"]][role] = tensor
    for module, roles in modules.items():
        if config.kind == "LORA":
            yield from lora_updates(module, roles, config, names)
        else:
            yield from ia3_updates(module, roles["l"], config, names)


def _role(factor: re.Match[str]) -> str:
    """``A.weight``, ``B.weight``, ``B.bias``, ``embedding_A``, ``embedding_B`` or ``l``."""
    role, last = factor["role"], factor["rest"].rpartition(".")[2]
    if role not in ("A", "B", "embedding_A", "embedding_B", "l"):
        raise UsageError(
            f"{factor[0]} cannot be merged here",
            hint="merge it with PEFT, save the model and git add that",
        )
    return f"{role}.{last}" if role in ("A", "B") else role


def _replacements(name: str, tensor: Stored, names: Names) -> Iterator[Update]:
    """Yield the update that a parameter saved whole (``modules_to_save``) stands for."""
    if _ORIGINAL in name:
        return
    found = names.find(_WRAPPED.sub("", name))
    if found is None:
        return
    parameter = names.parameters[found]
    if parameter.shape != tensor.shape:
        raise mismatch(found, parameter, tensor.shape)
    values = tensor.converted(parameter.dtype)
    if values is None:
        raise UsageError(f"{found} is {parameter.dtype}, but its replacement {tensor.dtype}")
    yield Replacement(found, values)


def _collected(updates: Iterator[Update], names: Names) -> list[Update]:
    """One update of each parameter: new values and what is added to them become one."""
    collected: dict[str, Update] = {}
    for update in updates:
        earlier = collected.get(update.parameter)
        if isinstance(earlier, Replacement) and not isinstance(update, Replacement):
            shape = names.parameters[update.parameter].shape
            collected[update.parameter] = chain(earlier, update, shape)
        elif earlier is None:
            collected[update.parameter] = update
        else:
            raise UsageError(
                f"the adapter updates {update.parameter} twice",
                hint="tell its modules apart with --map MODULE=NAME",
            )
    return list(collected.values())
