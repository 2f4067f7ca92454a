"""What training frameworks leave in a folder: tensors are found in every file that has some."""

from __future__ import annotations

import io
import pickle
import random
from argparse import Namespace

import numpy as np
import torch

from git_theta.formats import scan
from git_theta.testing.formats import MemorySource

NET = torch.nn.Sequential(torch.nn.Linear(60, 40), torch.nn.Linear(40, 10))
OPTIMIZER = torch.optim.AdamW(NET.parameters())
NET(torch.ones(3, 60)).sum().backward()
OPTIMIZER.step()
SCHEDULER = torch.optim.lr_scheduler.LambdaLR(OPTIMIZER, lambda step: 0.9**step)
FLAT = torch.cat([each.detach().flatten() for each in NET.parameters()])


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _tensors(name: str, data: bytes) -> tuple[int, int]:
    """Numbers of tensors and their bytes; what has none gives no warning."""
    layout, warning = scan(MemorySource(data), name)
    assert warning is None, (name, warning)
    return len(layout.spans) + len(layout.aliases), sum(span.length for span in layout.spans)


def test_the_folder_of_a_trainer():
    rng = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.get_rng_state(),
    }
    count, size = _tensors("checkpoint-5/optimizer.pt", _saved(OPTIMIZER.state_dict()))
    assert (count, size) == (12, 4 * (2 * FLAT.numel() + 4))  # two moments and a step, of four
    assert (
        _tensors("checkpoint-5/pytorch_model-00001-of-00002.bin", _saved(NET.state_dict()))[0] == 4
    )
    assert _tensors("checkpoint-5/rng_state.pth", _saved(rng))[1] >= torch.get_rng_state().numel()
    assert _tensors("checkpoint-5/scheduler.pt", _saved(SCHEDULER.state_dict())) == (0, 0)
    arguments = Namespace(learning_rate=2e-5, output_dir="out", device=torch.device("cpu"))
    assert _tensors("checkpoint-5/training_args.bin", _saved(arguments)) == (0, 0)


def test_a_checkpoint_of_lightning():
    checkpoint = {
        "epoch": 2,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": it for name, it in NET.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [OPTIMIZER.state_dict()],
        "lr_schedulers": [SCHEDULER.state_dict()],
        "hparams_name": "config",
        "hyper_parameters": Namespace(width=40, names=["a", "b"]),
    }
    count, size = _tensors("epoch=2-step=40.ckpt", _saved(checkpoint))
    assert count == 4 + 12 + 1
    assert size == 4 * (3 * FLAT.numel() + 4 + 1)


def test_the_folder_of_deepspeed():
    """Each rank has a flat part of the fp32 weights and of the moments."""
    half = FLAT.numel() // 2
    ranks = [
        {
            "optimizer_state_dict": {
                "zero_stage": 1,
                "partition_count": [2],
                "single_partition_of_fp32_groups": [part.clone()],
                "base_optimizer_state": {
                    "state": {0: {"exp_avg": part * 2, "exp_avg_sq": part * 3}}
                },
            },
            "ds_config": {"zero_optimization": {"stage": 1}},
            "ds_version": "0.16.0",
        }
        for part in (FLAT[:half], FLAT[half:])
    ]
    for number, state in enumerate(ranks):
        name = f"global_step40/bf16_zero_pp_rank_{number}_mp_rank_00_optim_states.pt"
        size = 4 * 3 * (half if number == 0 else FLAT.numel() - half)
        assert _tensors(name, _saved(state)) == (3, size)
    module = {name: it.bfloat16() for name, it in NET.state_dict().items()}
    model = {"module": module, "buffer_names": [], "param_shapes": [], "global_steps": 40}
    found = _tensors("global_step40/mp_rank_00_model_states.pt", _saved(model))
    assert found == (4, 2 * FLAT.numel())


def test_arrays_of_a_bare_pickle():
    state = {"step": 3, "mean": np.ones((30, 40), np.float32), "names": ["a"]}
    assert _tensors("normalizer.pkl", pickle.dumps(state)) == (1, 4800)
