"""PEFT adapters of a tiny model, as ``save_pretrained`` writes them, with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

FOLDER = "adapter"
PATH = f"{FOLDER}/adapter_model.safetensors"
CONFIG = f"{FOLDER}/adapter_config.json"
QUERY = "encoder.layer.0.attention.self.query"
VALUE = "encoder.layer.0.attention.self.value"


def model() -> nn.Module:
    """The model that adapters are for; the same at every call."""
    torch.manual_seed(0)
    return BertModel(bert())


def bert(**options: Any) -> BertConfig:
    """The configuration of a tiny model of one layer, whose vocabulary has 30 words."""
    return BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=30,
        **options,
    )


def write(folder: Path, seed: int, config: peft.PeftConfig) -> None:
    """Save an adapter whose weights depend on ``seed`` alone."""
    adapted = peft.get_peft_model(model(), config)
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "prompt" in name:
            nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(folder)
    # PEFT writes sets in an order that differs from process to process.
    fields = read_config(folder)
    fields["target_modules"] = sorted(fields.get("target_modules") or []) or None
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(fields, indent=2, sort_keys=True), "utf-8")


def lora(rank: int = 4, alpha: float = 8, **options: Any) -> peft.LoraConfig:
    """The configuration of a LoRA adapter of queries and values."""
    options = {"target_modules": ["query", "value"], **options}
    return peft.LoraConfig(r=rank, lora_alpha=alpha, **options)


def prompt(tokens: int) -> peft.PromptTuningConfig:
    """The configuration of a soft prompt."""
    return peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=tokens)


def load(folder: Path) -> peft.PeftModel:
    """The adapter as PEFT loads it: refused where tensors and configuration do not fit."""
    return peft.PeftModel.from_pretrained(model(), folder)


def updates(folder: Path) -> dict[str, Tensor]:
    """What the adapter adds to each weight, as PEFT computes it: float64."""
    found = {}
    for name, module in load(folder).double().named_modules():
        delta: Callable[[str], Tensor] | None = getattr(module, "get_delta_weight", None)
        if delta is not None:
            found[name.removeprefix("base_model.model.")] = delta("default").detach()
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration."""
    fields: dict[str, Any] = json.loads((folder / "adapter_config.json").read_bytes())
    return fields
