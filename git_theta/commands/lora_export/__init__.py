"""The change between two revisions as a LoRA adapter.

``stored`` finds the factors that a commit was stored with, ``svd`` makes some, ``modules`` chooses,
``adapter`` writes what PEFT reads; ``export`` puts it together.
"""

from git_theta.commands.lora_export.adapter import Options
from git_theta.commands.lora_export.export import Export, export
from git_theta.commands.lora_export.modules import LeftOut, ModuleUpdate

__all__ = ["Export", "LeftOut", "ModuleUpdate", "Options", "export"]
