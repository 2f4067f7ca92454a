"""Measures what each kind of update costs, and how fast it is, against targets.

The updates are real fine-tunes of MiniLM (see scripts/pipeline), in fp32 and as bf16 and fp16:
dense ones are cast, adapters are merged by peft in the dtype. Each is committed in a repository
of its own; what counts is by how much .git/theta/objects grew. Fails when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.checkpoint import BF16_NOISE, write_base, write_fine_tune
from benchmarks.fine_tunes import ROOT, FineTune, FineTunes
from benchmarks.pages import write_block
from benchmarks.sandbox import THETA, Project, folder_bytes
from benchmarks.speed import changed_tensors, rates
from benchmarks.table import table
from benchmarks.weights import cast

_PAGE = ROOT / "docs" / "encodings.md"
_STEPS = 60
_LARGE, _MATRICES = 2 << 30, 256 << 20
_BF16 = np.dtype(ml_dtypes.bfloat16)
_MOVED = 0.01
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

DENSE = {"fp32": 0.30, "bf16": 0.098, "fp16": 0.19}
BASE, NEXT, SPARSE = 0.668, 0.080, 0.008
"""Stored bytes as a share of the raw ones, at most."""
LORA_FOUND, LORA_GIVEN, IA3 = 1.6, 1.15, 2.0
"""Stored bytes as a multiple of the adapter's tensors, at most."""
ONE_ELEMENT = 100e3
"""Bytes that one changed element in a large file may cost, the manifest included."""
ENCODING, DECODING, STORING = 600.0, 1200.0, 450.0
"""MB/s of bf16 deltas on one core, at least."""


@dataclass(frozen=True)
class Figure:
    """A measured figure; ``target`` is the most it may be, or the least where it ``is_rate``."""

    what: str
    measured: float
    unit: str
    target: float | None = None
    is_rate: bool = False

    @property
    def is_missed(self) -> bool:
        """Whether there is a target and the figure is on its wrong side."""
        if self.target is None:
            return False
        return self.measured < self.target if self.is_rate else self.measured > self.target


class Bench:
    """Versions of the fine-tunes in every dtype, and repositories to commit them in."""

    def __init__(self, root: Path, fine_tunes: FineTunes) -> None:
        self._root = root
        self._fine_tunes = fine_tunes

    def dense(self, dtype: str) -> tuple[Path, Path]:
        """Before and after a dense fine-tune."""
        files = self._fine_tunes.lora().file, self._fine_tunes.dense().file
        return self._cast(files[0], dtype), self._cast(files[1], dtype)

    def next(self, dtype: str) -> tuple[Path, Path]:
        """Before and after the next dense fine-tune."""
        files = self._fine_tunes.dense().file, self._fine_tunes.next().file
        return self._cast(files[0], dtype), self._cast(files[1], dtype)

    def sparse(self) -> tuple[Path, Path]:
        """bf16 before and after a step that moves one weight in a hundred to its neighbour."""
        base, tip = self._cast(self._fine_tunes.base, "bf16"), self._root / "sparse.safetensors"
        weights, rng = load_file(base), np.random.default_rng(0)
        for values in weights.values():
            if values.itemsize == _BF16.itemsize:
                words = values.view("<u2")
                moved = rng.random(words.shape) < _MOVED
                words[moved] += rng.choice(np.array([1, 0xFFFF], "<u2"), int(moved.sum()))
        save_file(weights, tip, metadata={"format": "pt"})
        return base, tip

    def adapted(self, fine_tune: FineTune, dtype: str) -> tuple[Path, Path]:
        """Before and after an adapter was merged in ``dtype``."""
        base = self._cast(self._fine_tunes.base, dtype)
        if dtype == "fp32":
            return base, fine_tune.file
        merged = self._root / f"{fine_tune.folder.name}-merged-{dtype}.safetensors"
        self._fine_tunes.merge(fine_tune, base, _DTYPES[dtype], merged)
        return base, merged

    def large(self) -> tuple[Path, Path]:
        """A synthetic model of larger matrices before and after a fine-tune, bf16."""
        base, tip = self._root / "matrices.safetensors", self._root / "matrices-tuned.safetensors"
        write_base(base, _MATRICES)
        write_fine_tune(base, tip, BF16_NOISE)
        return base, tip

    def stored(self, versions: tuple[Path, Path], *update: str) -> int:
        """Bytes of objects that the second version adds; with ``git theta add`` and its options.

        Without options, by ``git add``.
        """
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            project = Project(Path(folder), THETA)
            _add(project, versions[0])
            before = _objects(project)
            _add(project, versions[1], *update)
            return _objects(project) - before

    def base(self) -> float:
        """The share of its bytes that the bf16 base takes."""
        base = self._cast(self._fine_tunes.base, "bf16")
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            project = Project(Path(folder), THETA)
            _add(project, base)
            return _objects(project) / base.stat().st_size

    def _cast(self, source: Path, dtype: str) -> Path:
        target = self._root / f"{source.parent.name}-{dtype}.safetensors"
        if not target.exists():
            cast(source, target, _DTYPES[dtype])
        return target


def sizes(bench: Bench, fine_tunes: FineTunes) -> Iterator[Figure]:
    """What updates of MiniLM cost, dtype by dtype."""
    yield Figure("bf16 base", bench.base(), "of the raw bytes", BASE)
    updates = [(f"{dtype} dense", bench.dense(dtype), DENSE[dtype]) for dtype in _DTYPES]
    updates += [
        ("bf16 dense, the next step", bench.next("bf16"), NEXT),
        ("bf16, 1 % of the weights moved", bench.sparse(), SPARSE),
    ]
    for what, versions, most in updates:
        share = bench.stored(versions) / versions[1].stat().st_size
        yield Figure(what, share, "of the raw bytes", most)
    adapters = (
        ("LoRA r=8", "low-rank", fine_tunes.lora(), LORA_FOUND, LORA_GIVEN),
        ("IA3", "ia3", fine_tunes.ia3(), IA3, IA3),
    )
    for name, kind, fine_tune, found, given in adapters:
        factors = _tensor_bytes(fine_tune.adapter / "adapter_model.safetensors")
        update = ("--update", kind, "--data", str(fine_tune.adapter))
        for dtype in _DTYPES:
            versions = bench.adapted(fine_tune, dtype)
            is_aim = dtype == "fp32"
            for how, options, target in (("found", (), found), ("given", update, given)):
                multiple = bench.stored(versions, *options) / factors
                what = f"{dtype} {name}, merged, {how}"
                yield Figure(what, multiple, "of the adapter", target if is_aim else None)


def one_element(root: Path) -> Figure:
    """What ``.git`` grows by when one element of a bf16 file of 2 GiB changes."""
    source = root / "large.safetensors"
    write_base(source, _LARGE)
    project = Project(root / "large", THETA)
    source.rename(project.file)
    _commit(project)
    before = project.stored()
    with project.file.open("r+b") as file:
        file.seek(_LARGE // 2)
        old = file.read(1)
        file.seek(_LARGE // 2)
        file.write(bytes([old[0] ^ 1]))
    _commit(project)
    grown = project.stored() - before
    return Figure(
        "one element of a file of 2 GiB", grown / 1e3, "kB, all of .git", ONE_ELEMENT / 1e3
    )


def speeds(bench: Bench) -> Iterator[Figure]:
    """How fast dense bf16 fine-tunes are encoded: the real one, and one with larger tensors."""
    large = bench.large()
    for name, versions in (("MiniLM", bench.dense("bf16")), ("large tensors", large)):
        found = rates(changed_tensors(*versions))
        unit = "MB/s per core"
        yield Figure(f"encoding bf16 deltas, {name}", found.encoding, unit, ENCODING, is_rate=True)
        yield Figure(f"decoding bf16 deltas, {name}", found.decoding, unit, DECODING, is_rate=True)
        # Of small tensors, trying every encoding takes longer than storing in the best.
        least = STORING if versions is large else None
        yield Figure(f"storing bf16 deltas, {name}", found.storing, unit, least, is_rate=True)


def report(figures: list[Figure]) -> str:
    """The table."""
    head = ["update", "target", "measured", "unit", ""]
    lines = [
        [f.what, _target(f), _number(f.measured), f.unit, "missed" if f.is_missed else ""]
        for f in figures
    ]
    return table(head, lines)


def _target(figure: Figure) -> str:
    if figure.target is None:
        return "-"
    return f"at {'least' if figure.is_rate else 'most'} {_number(figure.target)}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.{2 if value >= 1 else 3}f}"


def _add(project: Project, version: Path, *update: str) -> None:
    project.put(version)
    _commit(project, *update)


def _commit(project: Project, *update: str) -> None:
    project.git(*(("theta",) if update else ()), "add", project.checkpoint, *update)
    project.git("commit", "-q", "-m", "Next version")


def _objects(project: Project) -> int:
    return folder_bytes(project.work / ".git" / "theta" / "objects")


def _tensor_bytes(path: Path) -> int:
    return sum(values.nbytes for values in load_file(path).values())


def main(arguments: list[str]) -> None:
    """Measure, print the table, fail where a target is missed."""
    options = _parse(arguments)
    fine_tunes = FineTunes(_STEPS)
    with tempfile.TemporaryDirectory(prefix="git-theta-reach-") as scratch:
        bench = Bench(Path(scratch), fine_tunes)
        parts = {
            "sizes": lambda: sizes(bench, fine_tunes),
            "large": lambda: iter([one_element(Path(scratch))]),
            "speed": lambda: speeds(bench),
        }
        figures = [figure for name in options.only for figure in parts[name]()]
    print(report(figures))
    if options.json:
        options.json.write_text(json.dumps([asdict(f) for f in figures], indent=2) + "\n")
    if options.docs:
        write_block(_PAGE, "reach", report(figures))
    if missed := [figure.what for figure in figures if figure.is_missed]:
        sys.exit(f"missed: {', '.join(missed)}")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/pipeline --reach",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ["sizes", "large", "speed"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="parts to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--docs", action="store_true", help="renew the table in docs/encodings.md")
    options = parser.parse_args(arguments)
    if options.docs and options.only != names:
        parser.error("--docs needs every part")
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
