"""The life of a real model, really fine-tuned: what docs/pipeline.md shows, with fewer steps.

The script itself compares every file that comes back, byte for byte, and the merge with the mean.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
STEPS = "20"
"""A third of those in the documentation: 8 s instead of 25 for each of three fine-tunes."""


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    target = tmp_path_factory.mktemp("figures") / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pipeline", "--steps", STEPS, "--json", target],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {row["commit"]: row for row in json.loads(target.read_text())}


def share(figures, commit):
    return figures[commit]["theta"] / figures[commit]["lfs"]


def test_all_of_it_takes_a_third_of_what_git_lfs_takes(figures):
    theta, lfs = (sum(row[tool] for row in figures.values()) for tool in ("theta", "lfs"))
    assert theta < 0.33 * lfs


def test_git_lfs_stores_every_version_whole(figures):
    assert all(row["lfs"] > 90e6 for row in figures.values())
    assert len(figures) == 6


def test_a_merged_lora_is_found_in_every_matrix_that_it_changed(figures):
    assert figures["LoRA fine-tune, merged"]["encodings"] == {"low-rank": 12}
    assert share(figures, "LoRA fine-tune, merged") < 0.006


def test_a_dense_fine_tune_is_stored_as_differences(figures):
    encodings = figures["dense fine-tune (rte)"]["encodings"]
    # Biases and norms, of 1,536 bytes each, are too small for a base to pay.
    assert encodings["delta"] > 30
    assert set(encodings) <= {"delta", "sparse", "full"}
    assert share(figures, "dense fine-tune (rte)") < 0.37


def test_a_sparse_fine_tune_costs_what_it_changed(figures):
    assert share(figures, "sparse fine-tune") < 0.01


def test_the_average_is_as_cheap_as_the_branch(figures):
    assert share(figures, "merge of rte") < 0.37


def test_a_trimmed_vocabulary_reuses_the_rows_that_are_left(figures):
    assert figures["trimmed vocabulary"]["theta"] < 50e3
