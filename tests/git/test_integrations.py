"""Trainers of transformers and Lightning commit what they save, and no error of Git ends them."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import git_theta
from git_theta.integrations.background import BackgroundCommits, message_of
from tests.support import adapters
from tests.support.repo import Repo

pytestmark = pytest.mark.filterwarnings("ignore")  # of what the frameworks deprecate


class Words(Dataset):
    """Sentences of eight words each, whose classes are those of their first words."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
        words = torch.arange(8) + at
        return {
            "input_ids": words,
            "attention_mask": torch.ones_like(words),
            "labels": torch.tensor(at % 2),
        }


def train(folder: Path, callback: object, **options: object) -> None:
    from transformers import BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        save_steps=2,
        logging_steps=1,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    model = BertForSequenceClassification(adapters.bert())
    Trainer(model, arguments, train_dataset=Words(), callbacks=[callback]).train()


def test_a_trainer_commits_each_checkpoint_to_the_branch_of_the_run(model: Repo, tmp_path) -> None:
    from git_theta.integrations.transformers import CommitCallback

    head = model.git("rev-parse", "HEAD")
    callback = CommitCallback("models", branch="runs/a", repo=model.path)
    # Only the last checkpoint is kept on disk.
    train(tmp_path / "out", callback, save_total_limit=1)
    subjects = model.git("log", "--format=%s", "main..runs/a").splitlines()
    assert [subject.partition(",")[0] for subject in subjects] == [
        "runs/a: step 4",
        "runs/a: step 2",
    ]
    assert all(word in subjects[0] for word in ("loss ", "learning rate ", "epoch 2"))
    listed = model.git("ls-tree", "-r", "--name-only", "runs/a", "models").splitlines()
    assert listed == ["models/config.json", "models/model.safetensors"]
    assert model.git("rev-parse", "HEAD") == head
    assert model.git("status", "--porcelain") == ""
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "out/checkpoint-4/model.safetensors")
    found = git_theta.load_state_dict("models/model.safetensors", "runs/a", model.path)
    assert saved.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
    (change,) = git_theta.log("models/model.safetensors", "runs/a~..runs/a", model.path)
    assert 0 < change.checkpoints[0].difference.changed <= len(saved)


def test_a_trainer_goes_on_without_git(tmp_path, caplog) -> None:
    from git_theta.integrations.transformers import CommitCallback

    callback = CommitCallback(repo=tmp_path, branch="runs/a")
    # As strategies that start processes hand it over.
    train(tmp_path / "out", pickle.loads(pickle.dumps(callback)))
    assert (tmp_path / "out/checkpoint-4").is_dir()
    told = [record.getMessage() for record in caplog.records if "git_theta" in record.name]
    assert len(told) == 2
    assert all("was not committed, and training goes on" in line for line in told)


def test_lightning_commits_what_its_trainer_writes(model: Repo, tmp_path) -> None:
    import pytorch_lightning as pl

    from git_theta.integrations.lightning import CommitCallback

    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
            loss = self.layer(batch).square().mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    model.git("config", "theta.autoHooks", "true")
    attributes = model.path / ".gitattributes"
    attributes.write_text(attributes.read_text().replace("*.pt ", "*.ckpt "))
    model.commit("Track", **{".gitattributes": attributes.read_bytes()})
    saving = pl.callbacks.ModelCheckpoint(tmp_path / "saved", save_weights_only=True)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[saving, CommitCallback("line.ckpt", branch="runs/line", repo=model.path)],
    )
    line = Line()
    trainer.fit(line, DataLoader(torch.ones(4, 3), batch_size=2))
    subjects = model.git("log", "--format=%s", "main..runs/line").splitlines()
    assert [subject.split(", train")[0] for subject in subjects] == [
        "runs/line: epoch 1, step 4",
        "runs/line: epoch 0, step 2",
    ]
    assert "train loss " in subjects[0]
    git_theta.checkout("runs/line", "line.ckpt", tmp_path / "back.ckpt", model.path)
    assert (tmp_path / "back.ckpt").read_bytes() == Path(saving.best_model_path).read_bytes()
    found = git_theta.load_state_dict("line.ckpt", "runs/line", model.path)
    assert any(torch.equal(tensor, line.layer.weight.detach()) for tensor in found.values())


def test_files_may_be_deleted_before_they_are_committed(model: Repo, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "git_theta.integrations")
    commits = BackgroundCommits("runs/b", model.path)
    for step in range(3):
        file = tmp_path / f"{step}.txt"
        file.write_text(f"step {step}")
        commits.submit(lambda file=file: {"notes.txt": file}, message_of("b", {"step": step}))
        file.unlink()
    commits.submit(lambda: {"notes.txt": tmp_path / "gone"}, "never")
    commits.wait()
    assert model.git("log", "--format=%s", "main..runs/b").split("\n") == [
        "b: step 2",
        "b: step 1",
        "b: step 0",
    ]
    assert model.git("show", "runs/b:notes.txt") == "step 2"
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["gone" in record.getMessage() for record in told] == [True]


def test_large_files_that_are_not_tracked_are_refused(model: Repo, tmp_path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(git_theta.errors.UsageError, match=r"large.bin.*does not track"):
        git_theta.commit_files({"large.bin": tmp_path / "large.bin"}, "m", "runs/c", model.path)
    assert model.process("rev-parse", "--verify", "runs/c").returncode
