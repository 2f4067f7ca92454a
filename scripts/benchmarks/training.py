"""Fine-tunes the MiniLM encoder on the processor: densely, sparsely, with LoRA and with IA3.

Only the encoder is saved, under the names and in the layout of the original file; a task's head
is thrown away. Seeded: the same machine gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from benchmarks.tasks import Entailment, Opinions, Paraphrases, Task

_BATCH = 8
_DENSE_RATE, _SPARSE_RATE, _ADAPTER_RATE, _HEAD_RATE = 2e-5, 1e-4, 1e-3, 1e-2
_SPARSE_SHARE = 0.005
"""Of the elements, trained in a sparse fine-tune."""


class Encoder:
    """A checkpoint loaded for training; ``folder`` has the model's configuration and tokenizer."""

    def __init__(self, folder: Path, weights: Path, dtype: str = "float32") -> None:
        torch.manual_seed(0)
        # One thread: the same sums on any number of cores; and two that wait for each other on
        # cores that are busy take ten times as long.
        torch.set_num_threads(1)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._original = load_file(weights)
        self.model: nn.Module = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype))
        known = self.model.state_dict()
        self.model.load_state_dict({k: v for k, v in self._original.items() if k in known})

    def __call__(self, sentences: list[str]) -> Tensor:
        """Vectors (sentences, hidden) of length one: the mean over a sentence's tokens."""
        tokens = self._tokenizer(sentences, padding=True, return_tensors="pt")
        states = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

    def save(self, path: Path) -> None:
        """Write the tensors of the encoder, and those of the file that are not trained."""
        trained = self.model.state_dict()
        tensors = {
            name: trained.get(name, tensor).contiguous() for name, tensor in self._original.items()
        }
        save_file(tensors, path, metadata={"format": "pt"})


def fine_tune(name: str, model: Path, start: Path, steps: int, folder: Path) -> list[float]:
    """Fine-tune the weights ``start`` as ``RECIPES[name]`` says; return the loss of each step.

    ``model`` has the configuration. ``folder`` gets ``model.safetensors``, and ``adapter/`` where
    one was merged.
    """
    encoder = Encoder(model, start)
    losses = RECIPES[name](encoder, steps, folder / "adapter")
    encoder.save(folder / "model.safetensors")
    return losses


def merge(model: Path, start: Path, adapter: Path, dtype: str, target: Path) -> None:
    """Write the weights ``start`` with an adapter merged into them in their own ``dtype``."""
    encoder = Encoder(model, start, dtype)
    encoder.model = _merged(PeftModel.from_pretrained(encoder.model, str(adapter)))
    encoder.save(target)


def _dense(encoder: Encoder, steps: int, _: Path) -> list[float]:
    task = Entailment()
    optimizer = torch.optim.AdamW(_groups(encoder.model.parameters(), _DENSE_RATE, task))
    return list(_steps(encoder, task, steps, optimizer))


def _sparse(encoder: Encoder, steps: int, _: Path) -> list[float]:
    """Train the elements with the largest squared gradients alone (a FISH mask).

    Source: Sung et al., Training Neural Networks with Fixed Sparse Masks, 2021.
    """
    task = Opinions()
    parameters = list(encoder.model.parameters())
    masks = _largest_gradients(encoder, task, parameters)
    # Without weight decay, an element whose gradient is always zero keeps its bits.
    optimizer = torch.optim.AdamW(_groups(parameters, _SPARSE_RATE, task), weight_decay=0)
    optimizer.register_step_pre_hook(lambda *_: _mask_gradients(parameters, masks))
    return list(_steps(encoder, task, steps, optimizer))


def _lora(encoder: Encoder, steps: int, adapter: Path) -> list[float]:
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
    return _with_adapter(encoder, steps, config, adapter)


def _ia3(encoder: Encoder, steps: int, adapter: Path) -> list[float]:
    targets = ["key", "value", "output.dense"]
    config = IA3Config(target_modules=targets, feedforward_modules=targets[2:])
    return _with_adapter(encoder, steps, config, adapter)


RECIPES: dict[str, Callable[[Encoder, int, Path], list[float]]] = {
    "dense": _dense,
    "next": _dense,
    "sparse": _sparse,
    "lora": _lora,
    "ia3": _ia3,
}


def _with_adapter(encoder: Encoder, steps: int, config: PeftConfig, adapter: Path) -> list[float]:
    """Train an adapter, save it, merge it."""
    task = Paraphrases()
    model = get_peft_model(encoder.model, config)
    encoder.model = model
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(_groups(parameters, _ADAPTER_RATE, task))
    losses = list(_steps(encoder, task, steps, optimizer))
    model.save_pretrained(str(adapter))
    encoder.model = _merged(model)
    return losses


def _merged(model: PeftModel) -> nn.Module:
    merged: nn.Module = model.merge_and_unload()
    return merged


def _groups(parameters: Iterable[Tensor], rate: float, task: Task) -> list[dict[str, object]]:
    head = list(task.head.parameters())
    return [{"params": list(parameters), "lr": rate}, {"params": head, "lr": _HEAD_RATE}]


def _steps(
    encoder: Encoder, task: Task, steps: int, optimizer: torch.optim.Optimizer
) -> Iterator[float]:
    encoder.model.train()
    for chosen in _batches(task.size, steps):
        optimizer.zero_grad()
        loss = task.loss(encoder, chosen)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield loss.item()


def _batches(size: int, steps: int) -> Iterator[list[int]]:
    """Examples in a random order, again and again, ``steps`` batches of them."""
    order: list[int] = []
    for _ in range(steps):
        if len(order) < _BATCH:
            order = torch.randperm(size).tolist()
        yield [order.pop() for _ in range(_BATCH)]


def _largest_gradients(encoder: Encoder, task: Task, parameters: Sequence[Tensor]) -> list[Tensor]:
    """For each parameter, which of its elements are among the ``_SPARSE_SHARE`` to be trained."""
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    for example in range(0, task.size, _BATCH):
        encoder.model.zero_grad()
        chosen = range(example, min(example + _BATCH, task.size))
        task.loss(encoder, chosen).backward()  # type: ignore[no-untyped-call]
        for square, parameter in zip(squares, parameters, strict=True):
            if parameter.grad is not None:
                square += parameter.grad.square()
    flat = torch.cat([square.flatten() for square in squares])
    threshold = flat.kthvalue(flat.numel() - int(_SPARSE_SHARE * flat.numel())).values
    return [square > threshold for square in squares]


def _mask_gradients(parameters: Iterable[Tensor], masks: Iterable[Tensor]) -> None:
    for parameter, mask in zip(parameters, masks, strict=True):
        if parameter.grad is not None:
            parameter.grad *= mask
