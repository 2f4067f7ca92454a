"""A callback for the ``Trainer`` of Lightning."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from git_theta.api.checkpoint import StrPath
from git_theta.integrations.background import BackgroundCommits, message_of

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.plugins.io import CheckpointIO
else:
    # One package under two names.
    _PACKAGE = "lightning.pytorch" if find_spec("lightning") else "pytorch_lightning"
    Callback = importlib.import_module(f"{_PACKAGE}.callbacks").Callback
    CheckpointIO = importlib.import_module(f"{_PACKAGE}.plugins.io").CheckpointIO


class CommitCallback(Callback):
    """Commits every checkpoint that a ``Trainer`` writes, whatever callback decides when.

    ``path`` is the file in the repository, relative to ``repo``, that all of them are versions of.
    ``branch`` may be one for this run: a new one begins at HEAD, and the work tree is not touched
    then. The message has epoch, step and the metrics that were logged.

    Commits are made in a thread while training continues, and no error of Git ends it: see the log
    ``git_theta.integrations``. The end of the training waits for the last commit.
    """

    def __init__(
        self, path: StrPath = "model.ckpt", branch: str | None = None, repo: StrPath = "."
    ) -> None:
        super().__init__()
        self._path = path
        self._title = branch or "run"
        self._commits = BackgroundCommits(branch, repo)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """See what is written from now on; ``Trainer`` calls it."""
        writer = trainer.strategy.checkpoint_io
        if not isinstance(writer, _Observed):
            trainer.strategy.checkpoint_io = _Observed(
                writer, lambda file: self._saved(trainer, file)
            )

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Wait for the last commit; ``Trainer`` calls it."""
        self._commits.wait()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Wait for the last commit of a training that failed; ``Trainer`` calls it."""
        self._commits.wait()

    def _saved(self, trainer: Any, file: StrPath) -> None:
        if trainer.is_global_zero and Path(file).is_file():
            figures = {"epoch": trainer.current_epoch, "step": trainer.global_step}
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            message = message_of(self._title, {**figures, **metrics})
            self._commits.submit(lambda: {self._path: file}, message)


class _Observed(CheckpointIO):
    """What writes checkpoints, and tells of each that is written."""

    def __init__(self, writer: CheckpointIO, saved: Callable[[StrPath], None]) -> None:
        self._writer = writer
        self._saved = saved

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: StrPath, storage_options: Any = None
    ) -> None:
        self._writer.save_checkpoint(checkpoint, path, storage_options=storage_options)
        self._saved(os.fspath(path))

    def load_checkpoint(self, path: StrPath, *args: Any, **options: Any) -> Any:
        return self._writer.load_checkpoint(path, *args, **options)

    def remove_checkpoint(self, path: StrPath) -> None:
        self._writer.remove_checkpoint(path)

    def teardown(self) -> None:
        self._writer.teardown()
