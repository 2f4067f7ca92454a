"""What people do every day with a repository of checkpoints, on their own machine."""

from __future__ import annotations

import pytest

from git_theta import manifest
from tests.support import checkpoints
from tests.support.manifests import entry_named
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(BASE)
SECOND = checkpoints.safetensors(checkpoints.finetuned(BASE))
THIRD = checkpoints.safetensors(checkpoints.finetuned(BASE, seed=2))


def _objects(repo: Repo) -> set[str]:
    folder = repo.path / ".git/theta/objects"
    return {path.name for path in folder.rglob("*") if path.is_file()}


def _is_clean(repo: Repo) -> bool:
    # As after a copy of the work tree: every file must be read again.
    for file in repo.path.glob("*"):
        if file.is_file():
            file.touch()
    return repo.git("status", "--porcelain") == ""


def _two_versions(repo: Repo, path: str = "model.safetensors") -> None:
    repo.commit_files({path: FIRST}, "base")
    repo.commit_files({path: SECOND}, "fine-tune")


def test_versions_come_back_byte_for_byte_and_without_spurious_changes(model):
    _two_versions(model)
    assert manifest.is_manifest(model.git("show", "HEAD:model.safetensors").encode())
    model.git("checkout", "-q", "HEAD~1")
    assert model.read("model.safetensors") == FIRST
    assert _is_clean(model)
    model.git("checkout", "-q", "main")
    assert model.read("model.safetensors") == SECOND
    assert _is_clean(model)


def test_a_torch_checkpoint_and_its_fine_tune(model):
    first = checkpoints.torch_zip(BASE)
    second = checkpoints.torch_zip(checkpoints.finetuned(BASE))
    model.commit_files({"model.pt": first})
    model.commit_files({"model.pt": second})
    model.git("checkout", "-q", "HEAD~1")
    assert model.read("model.pt") == first
    assert '"format":"torch"' in model.git("show", "HEAD:model.pt")


def test_the_same_weights_in_both_formats_are_stored_once(model):
    model.commit_files({"model.safetensors": FIRST})
    tensors_before = _tensor_refs(model, "model.safetensors")
    model.commit_files({"model.pt": checkpoints.torch_zip(BASE)})
    assert _tensor_refs(model, "model.pt") == tensors_before


def _tensor_refs(repo: Repo, path: str) -> dict[str, object]:
    described = manifest.parse(repo.git("show", f"HEAD:{path}").encode() + b"\n")
    return {entry.name: entry.chunks for entry in described.tensors}


def test_a_touched_file_stores_nothing_and_changes_nothing(model):
    _two_versions(model)
    before = _objects(model)
    (model.path / "model.safetensors").touch()
    model.git("add", "model.safetensors")
    assert _objects(model) == before
    assert model.git("status", "--porcelain") == ""


def test_unchanged_tensors_cost_nothing_across_branches_and_renames(model):
    model.commit_files({"model.safetensors": FIRST})
    before = _objects(model)
    model.git("checkout", "-q", "-b", "other")
    model.git("mv", "model.safetensors", "renamed.safetensors")
    model.commit("rename")
    assert model.git("log", "--follow", "--format=%s", "--", "renamed.safetensors").count("\n") == 1
    model.commit_files({"sub/copy.safetensors": FIRST})
    assert _objects(model) == before


def test_a_renamed_and_fine_tuned_checkpoint_is_stored_as_a_difference(model):
    model.commit_files({"model.safetensors": FIRST})
    model.git("mv", "model.safetensors", "new.safetensors")
    model.commit_files({"new.safetensors": SECOND})
    described = manifest.parse(model.git("show", "HEAD:new.safetensors").encode() + b"\n")
    assert all(len(c.chain) == 2 for c in entry_named(described, "layer.0.weight").chunks)


def test_amend(model):
    _two_versions(model)
    model.write("model.safetensors", THIRD)
    model.git("commit", "-q", "-a", "--amend", "-m", "better")
    model.git("checkout", "-q", "HEAD~1")
    model.git("checkout", "-q", "main")
    assert model.read("model.safetensors") == THIRD


def test_stash(model):
    model.commit_files({"model.safetensors": FIRST})
    model.write("model.safetensors", SECOND)
    model.git("stash", "-q")
    assert model.read("model.safetensors") == FIRST
    model.git("stash", "pop", "-q")
    assert model.read("model.safetensors") == SECOND


@pytest.mark.parametrize("command", [("reset", "--hard"), ("restore", "."), ("checkout", ".")])
def test_changes_are_thrown_away(model, command):
    model.commit_files({"model.safetensors": FIRST})
    model.write("model.safetensors", SECOND)
    model.git(*command)
    assert model.read("model.safetensors") == FIRST
    assert _is_clean(model)


def test_restore_from_another_commit(model):
    _two_versions(model)
    model.git("restore", "--source=HEAD~1", "model.safetensors")
    assert model.read("model.safetensors") == FIRST


def test_a_second_work_tree(model, tmp_path):
    _two_versions(model)
    model.git("worktree", "add", "-q", str(tmp_path / "second"), "HEAD~1")
    second = Repo(tmp_path / "second")
    assert second.read("model.safetensors") == FIRST
    second.git("checkout", "-q", "-b", "side")
    second.commit_files({"model.safetensors": THIRD})
    model.git("checkout", "-q", "side~1", "--", "model.safetensors")
    assert model.read("model.safetensors") == FIRST


def test_paths_with_spaces_and_other_letters(model):
    path = "ein Ordner/модель ü.safetensors"
    _two_versions(model, path)
    model.git("checkout", "-q", "HEAD~1")
    assert model.read(path) == FIRST


def test_fifty_checkpoints_at_once(model):
    files = {
        f"m{number}.safetensors": checkpoints.safetensors(checkpoints.tensors(number))
        for number in range(50)
    }
    for path, content in files.items():
        model.write(path, content)
    model.git("add", ".")
    model.git("commit", "-q", "-m", "fifty")
    for path in files:
        (model.path / path).unlink()
    model.git("checkout", "-q", ".")
    assert {path: model.read(path) for path in files} == files


def test_content_that_is_not_the_file_on_disk(model):
    model.write("model.safetensors", FIRST)
    blob = model.git("hash-object", "-w", "--path=model.safetensors", "--stdin", stdin=SECOND)
    assert model.process("cat-file", "--filters", "--path=model.safetensors", blob).stdout == SECOND


def test_archives_hold_the_checkpoint(model, tmp_path):
    import tarfile

    model.commit_files({"model.safetensors": FIRST})
    model.git("-c", "theta.directabove=0", "archive", "-o", str(tmp_path / "a.tar"), "HEAD")
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.extractfile("model.safetensors").read() == FIRST


def test_an_empty_file_and_a_manifest_pass_through(model):
    model.commit_files({"empty.safetensors": b"", "model.safetensors": FIRST})
    text = model.git("show", "HEAD:model.safetensors").encode() + b"\n"
    model.commit_files({"model.safetensors": text})
    assert model.git("diff", "--name-only", "HEAD~1", "HEAD") == ""
    assert model.git("show", "HEAD:empty.safetensors") == ""


def test_large_files_are_written_by_the_hook(model):
    _two_versions(model)
    model.git("config", "theta.directabove", "0")
    model.git("checkout", "-q", "HEAD~1")
    assert model.read("model.safetensors") == FIRST
    assert model.git("status", "--porcelain") == ""
    model.git("checkout", "-q", "main")
    assert model.read("model.safetensors") == SECOND
    model.git("reset", "-q", "--hard", "HEAD~1")
    assert model.read("model.safetensors") == FIRST
    assert _is_clean(model)


def test_a_change_right_after_a_checkout_by_the_hook_is_seen(model):
    _two_versions(model)
    model.git("config", "theta.directabove", "0")
    model.git("checkout", "-q", "HEAD~1")
    with (model.path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([FIRST[-1] ^ 1]))
    assert model.git("status", "--porcelain") == " M model.safetensors"


def test_git_gc_and_lfs_prune_lose_nothing(model):
    _two_versions(model)
    model.write("model.safetensors", THIRD)
    model.git("stash", "-q")
    model.git("lfs", "prune", "--force")
    model.git("reflog", "expire", "--expire=now", "--all", "--expire-unreachable=never")
    model.git("gc", "-q", "--prune=now")
    model.git("stash", "pop", "-q")
    assert model.read("model.safetensors") == THIRD
    model.git("checkout", "-q", "-f", "HEAD~1")
    assert model.read("model.safetensors") == FIRST


def test_another_chunk_size_modifies_nothing(model):
    content = checkpoints.safetensors(checkpoints.tensors(rows=2000))
    model.commit_files({"model.safetensors": content})
    model.git("config", "theta.chunkSize", "65536")
    (model.path / "model.safetensors").touch()
    assert model.git("status", "--porcelain") == ""
    model.write("model.safetensors", content[:-1] + b"!")
    assert model.git("status", "--porcelain") == " M model.safetensors"
