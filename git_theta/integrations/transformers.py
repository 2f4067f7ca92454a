"""A callback for the ``Trainer`` of transformers, which TRL's trainers take as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from git_theta.api.checkpoint import StrPath
from git_theta.errors import UsageError
from git_theta.integrations.background import BackgroundCommits, message_of

FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
)
"""What makes a model or an adapter, of the files in a checkpoint's folder."""

_FIGURES = ("loss", "eval_loss", "learning_rate", "epoch")


class CommitCallback(TrainerCallback):
    """Commits every checkpoint that a ``Trainer`` saves.

    ``path`` is the folder in the repository, relative to ``repo``, that the files of each
    checkpoint are committed to, one version after another; ``files`` are globs of those files.
    ``branch`` may be one for this run: a new one begins at HEAD, and the work tree is not touched
    then. The message has step, losses and learning rate.

    Commits are made in a thread while training continues, and no error of Git ends it: see the log
    ``git_theta.integrations``. The end of the training waits for the last commit.
    """

    def __init__(
        self,
        path: StrPath = ".",
        branch: str | None = None,
        repo: StrPath = ".",
        files: Sequence[str] = FILES,
    ) -> None:
        self._path = Path(path)
        self._title = branch or "run"
        self._globs = tuple(files)
        self._commits = BackgroundCommits(branch, repo)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Commit the checkpoint that was saved; ``Trainer`` calls it."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            figures = {"step": state.global_step, **_last_figures(state.log_history)}
            message = message_of(self._title, figures)
            self._commits.submit(lambda: self._files(folder), message)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for the last commit; ``Trainer`` calls it."""
        self._commits.wait()

    def _files(self, folder: Path) -> Mapping[StrPath, StrPath]:
        found = {file for glob in self._globs for file in folder.glob(glob) if file.is_file()}
        if not found:
            raise UsageError(f"{folder} has no file that matches {', '.join(self._globs)}")
        return {self._path / file.relative_to(folder): file for file in sorted(found)}


def _last_figures(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the last of each figure that was logged."""
    last = {name: value for row in history for name, value in row.items()}
    return {name: float(last[name]) for name in _FIGURES if name in last}
