"""Statistics as a checkpoint of their own, beside the one that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from git_theta import formats, manifest
from git_theta.checkpoint.model_hash import KEY, model_hash
from git_theta.checkpoint.on_disk import FileContent
from git_theta.core.files import FileSource, atomic_file
from git_theta.core.layout import Alias, Layout, TensorSpan
from git_theta.core.messages import as_typed
from git_theta.core.settings import Settings
from git_theta.errors import FormatError, UsageError, naming
from git_theta.formats.safetensors import header
from git_theta.stats.names import in_checkpoint

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Statistics:
    """A tensor for each parameter, by its name in the model.

    ``fisher`` ones have the parameter's shape, ``gram`` ones are ``[in, in]`` for a weight
    ``[out, in]``. ``examples`` is how many they are the mean over.
    """

    kind: Literal["fisher", "gram"]
    tensors: Mapping[str, Tensor]
    examples: int

    def save(
        self, checkpoint: str | Path, dtype: Literal["float32", "bfloat16"] = "float32"
    ) -> Path:
        """Write them beside ``checkpoint``, as ``<its stem>.<kind>.safetensors``; returns the path.

        Names become those of the checkpoint, which may have more or fewer modules in front of
        them; of tied tensors, the one that owns the bytes is used. Parameters that the checkpoint
        does not have (a head on top, another shard) are left out. bf16 is rounded to nearest-even:
        it has the range of float32 and 8 bits of precision, which is enough for weights of a mean.
        The same tensors give the same bytes.

        Raises ``UsageError`` if statistics and checkpoint do not fit, and ``FormatError`` for a
        file that no format can read; nothing is written then.
        """
        if dtype not in _DTYPES:
            raise UsageError(f"dtype={dtype!r}: statistics are float32 or bfloat16")
        path = Path(checkpoint)
        layout = _layout(path)
        with naming(str(path)):
            named = sorted(self._named(layout).items())
        target = path.with_name(f"{path.stem}.{self.kind}.safetensors")
        about = {"examples": str(self.examples), "statistic": self.kind} | _model(path)
        with atomic_file(target) as file:
            file.write(header(about, [_span(name, tensor, dtype) for name, tensor in named]))
            for _, tensor in named:
                stored = tensor.detach().to("cpu", _DTYPES[dtype]).contiguous()
                file.write(stored.reshape(-1).view(torch.uint8).numpy().data)
        return target

    def _named(self, layout: Layout) -> dict[str, Tensor]:
        """Tensors by the names of the checkpoint's parameters that own the bytes."""
        shapes = {span.name: span.shape for span in layout.spans}
        shapes |= {alias.name: alias.shape for alias in layout.aliases}
        owners = _owners(layout)
        sources: dict[str, str] = {}
        for name, found in in_checkpoint(list(self.tensors), shapes).items():
            self._check(found, shapes[found], self.tensors[name])
            owner = owners.get(found, found)
            if owner in sources:
                raise UsageError(
                    f"{sources[owner]} and {name} are one tensor in the checkpoint",
                    hint="tie them in the model too, or leave out the statistics of one",
                )
            sources[owner] = name
        if not sources:
            raise UsageError(
                "the checkpoint has none of the tensors of these statistics",
                hint="save the model that they were computed with",
            )
        return {owner: self.tensors[name] for owner, name in sources.items()}

    def _check(self, name: str, shape: tuple[int, ...], tensor: Tensor) -> None:
        wanted = shape if self.kind == "fisher" else (shape[1:] * 2 if len(shape) == 2 else None)
        if tuple(tensor.shape) != wanted:
            raise UsageError(
                f"{name} is {list(shape)} in the checkpoint, its {self.kind} statistics are "
                f"{list(tensor.shape)}",
                hint="save the model that they were computed with",
            )


def _model(path: Path) -> dict[str, str]:
    """Return the hash of the checkpoint, by which a merge tells statistics of another version."""
    with FileSource(path) as source:
        found = model_hash(FileContent(source, path.name, Settings()).manifest)
    return {KEY: found} if found else {}


def _owners(layout: Layout) -> dict[str, str]:
    """Names that mean just what another does, which is the one that has the bytes.

    Those that view another part of the same storage are parameters of their own.
    """
    spans = {span.name: span for span in layout.spans}
    return {alias.name: alias.of for alias in layout.aliases if _same(alias, spans[alias.of])}


def _same(alias: Alias, span: TensorSpan) -> bool:
    seen, owned = ((it.dtype, it.shape, it.offset, it.strides) for it in (alias, span))
    return seen == owned


def _span(name: str, tensor: Tensor, dtype: str) -> TensorSpan:
    kind = "F32" if dtype == "float32" else "BF16"
    length = tensor.numel() * _DTYPES[dtype].itemsize
    return TensorSpan(name, kind, tuple(tensor.shape), 0, length)


def _layout(path: Path) -> Layout:
    try:
        with FileSource(path) as source:
            if source.size and manifest.is_manifest(source.read(0, min(64, source.size))):
                raise UsageError(
                    "the file is still a manifest",
                    path=str(path),
                    hint=f"git theta checkout {as_typed(str(path))}",
                )
            layout, warning = formats.scan(source, path.name)
    except FileNotFoundError:
        raise UsageError(
            "there is no such checkpoint", path=str(path), hint="save the model first"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", path=str(path)) from error
    if warning is not None:
        reason = warning.partition(". It is stored whole")[0]
        raise FormatError(reason, path=str(path), hint="save the model as safetensors")
    return layout
