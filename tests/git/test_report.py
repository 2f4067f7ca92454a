"""`git theta report`: its figures are those of plain numpy, and Chromium shows the page."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from git_theta.cli.report_page import drawing
from git_theta.cli.report_page.cells import by_layer, cells_of
from git_theta.commands.report import Report, report
from git_theta.workspace import open_workspace
from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"
ADAPTER = "adapter/adapter_model.safetensors"
SCRIPT = "<script>alert('name')</script>"
IMAGE = 'model.layers.<img src="//example.com/x" onerror=alert(1)>\x1b[31m.weight'
SUBJECT = "Fine-tune <b>on contracts</b> & more words than a phone has room for in a line"
MODULES = {
    "self_attn.q_proj.weight": (24, 16),
    "mlp.up_proj.weight": (40, 16),
    "norm.weight": (16,),
}
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# As root it starts without its sandbox only, and what it asks its maker for is refused here.
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")


def base() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    names = {
        f"model.layers.{at}.{name}": shape for at in range(12) for name, shape in MODULES.items()
    }
    shapes = {"embed.weight": (30, 16), SCRIPT: (8, 8), IMAGE: (8, 8), **names}
    return {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }


def tuned(seed: int, rank: int | None = None) -> dict[str, np.ndarray]:
    """The model after a change that grows with the layer, of low rank where one is given."""
    random = np.random.default_rng(seed)
    made = {}
    for name, array in BASE.items():
        layer = int(number[1]) if (number := re.search(r"layers\.(\d+)", name)) else 0
        change = random.standard_normal(array.shape)
        if rank and "q_proj" in name:
            left, right = (random.standard_normal(shape) for shape in ((24, rank), (rank, 16)))
            change = 3 * left @ right
        made[name] = (array + 0.01 * (1 + layer) * change).astype(np.float32)
    return made


BASE = base()
LAW = tuned(1, rank=2)
CODE = tuned(2)
# What code and law did to layer 3 is opposed, and the norms were changed by law alone.
for _name, _array in BASE.items():
    if ".3." in _name:
        CODE[_name] = (_array - 0.5 * (LAW[_name] - _array)).astype(np.float32)
    elif "norm" in _name:
        CODE[_name] = _array


def adapter(seed: int) -> dict[str, bytes]:
    random = np.random.default_rng(seed)
    shapes = {"lora_A": (2, 16), "lora_B": (24, 2)}
    tensors = {
        f"base_model.model.layers.{at}.q_proj.{name}.weight": random.standard_normal(shape)
        for at in range(2)
        for name, shape in shapes.items()
    }
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    return {
        ADAPTER: checkpoints.safetensors({n: a.astype(np.float32) for n, a in tensors.items()}),
        "adapter/adapter_config.json": json.dumps(config).encode(),
    }


@pytest.fixture
def history(once, home, model) -> Repo:
    """Two branches, the second with a merge of the first in a topic of its own."""

    def work() -> None:
        model.commit_files({PATH: checkpoints.safetensors(BASE), **adapter(0)}, "Base")
        model.git("checkout", "-q", "-b", "law")
        model.commit_files({PATH: checkpoints.safetensors(LAW), **adapter(1)}, SUBJECT)
        model.git("checkout", "-q", "-b", "code", "main")
        model.commit_files({PATH: checkpoints.safetensors(CODE), **adapter(2)}, "Fine-tune on code")

    once("report history", home, model, work)
    return model


@pytest.fixture
def measured(history, monkeypatch) -> Report:
    monkeypatch.chdir(history.path)
    with open_workspace() as workspace:
        return report(workspace, ("law", "code"))


@pytest.fixture
def written(history, theta_here, tmp_path) -> Path:
    page = tmp_path / "report.html"
    done = theta_here(history, "report", "law", "code", "--html", str(page))
    assert (done.returncode, done.stdout) == (0, f"Written: {page}\n"), done.stderr
    return page


def moved(version: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    parts = [version[name].astype(np.float64) - BASE[name].astype(np.float64) for name in names]
    return np.concatenate([part.ravel() for part in parts])


def test_the_heat_map_has_the_relative_change_of_each_module_in_each_layer(measured):
    _, model = measured.models
    cells = {(cell.module, cell.layer): cell for cell in cells_of(model.changes)}
    assert len(cells) == 3 * 12 + 3
    for module, layer in (("mlp.up_proj", 11), ("norm", 0)):
        name = f"model.layers.{layer}.{module}.weight"
        change = np.linalg.norm(CODE[name].astype(float) - LAW[name].astype(float))
        expected = change / np.linalg.norm(LAW[name].astype(float))
        assert cells[module, str(layer)].relative == pytest.approx(expected, rel=1e-9)
    outside = [(module, layer) for module, layer in cells if not layer.isdigit()]
    assert [layer for _, layer in outside] == ["–"] * 3


def test_branches_are_compared_by_cosine_and_sign_in_each_layer(measured):
    _, model = measured.models
    layers = {each.layer: each for each in by_layer(model.agreements)}
    # Only law changed the norms: they are in no cosine.
    for layer in ("3", "7"):
        names = [n for n in BASE if f".{layer}." in n and ("norm" not in n or layer == "3")]
        law, code = moved(LAW, names), moved(CODE, names)
        cosine = law @ code / np.linalg.norm(law) / np.linalg.norm(code)
        both = (law != 0) & (code != 0)
        opposed = np.count_nonzero(law * code < 0) / np.count_nonzero(both)
        assert layers[layer].cosine == pytest.approx(cosine, abs=1e-9)
        assert layers[layer].disagreement == pytest.approx(opposed)
    assert layers["3"].cosine == pytest.approx(-1, abs=1e-6)
    assert model.fates == {"first": 11, "both": len(BASE) - 11}
    assert measured.base is not None


def test_adapters_are_compared_by_their_products(measured):
    model, _ = measured.models
    assert model.path == ADAPTER
    products = []
    for seed in range(3):
        from safetensors.numpy import load

        values = load(adapter(seed)[ADAPTER])
        pairs = [[v for n, v in sorted(values.items()) if f".{at}." in n] for at in range(2)]
        products.append([2 * up.astype(float) @ down for down, up in pairs])
    (name, agreement), *_ = sorted(model.agreements.items())
    assert name == "base_model.model.layers.0.q_proj.lora"
    law, code = (products[at][0] - products[0][0] for at in (1, 2))
    cosine = np.sum(law * code) / np.linalg.norm(law) / np.linalg.norm(code)
    assert agreement.cosine == pytest.approx(cosine)
    assert agreement.disagreement == np.mean(law * code < 0)
    change = np.linalg.svd(products[2][0] - products[1][0], compute_uv=False)
    spectrum = next(each for each in model.spectra if each.name == name)
    np.testing.assert_allclose(spectrum.values[:4], change[:4], rtol=1e-6)


def test_singular_values_are_those_of_the_changes_that_are_largest(measured):
    _, model = measured.models
    assert len(model.spectra) == 4
    for each in model.spectra:
        change = CODE[each.name].astype(np.float64) - LAW[each.name]
        expected = np.linalg.svd(change, compute_uv=False)
        np.testing.assert_allclose(each.values, expected, rtol=1e-3)
    least = min(relative(each.name) for each in model.spectra)
    shown = {each.name for each in model.spectra}
    matrices = [n for n in BASE if BASE[n].ndim == 2 and n not in shown]
    assert all(relative(name) <= least for name in matrices)


def relative(name: str) -> float:
    return float(np.linalg.norm(CODE[name] - LAW[name]) / np.linalg.norm(LAW[name]))


def test_the_lineage_has_lanes_edges_and_bytes(measured, history):
    *tops, start = measured.lineage
    law, code = sorted(tops, key=lambda node: node.names, reverse=True)  # of one second here
    assert [node.names for node in (code, law, start)] == [("code",), ("law",), ()]
    assert (code.subject, law.subject, start.subject) == ("Fine-tune on code", SUBJECT, "Base")
    assert [node.parents for node in measured.lineage] == [(2,), (2,), ()]
    assert code.lane != law.lane
    assert start.stored > law.stored > 1000


def test_a_merge_is_an_edge_to_each_parent_across_commits_without_checkpoints(history, monkeypatch):
    history.git("checkout", "-q", "-b", "both", "law")
    history.commit("Notes", **{"notes.txt": b"x"})
    history.git("merge", "-q", "--no-commit", "-s", "ours", "code")
    files = {PATH: checkpoints.safetensors(tuned(5))}
    history.commit_files(files, "Merge code")
    monkeypatch.chdir(history.path)
    with open_workspace() as workspace:
        found = report(workspace, ("code", "both"), (PATH,))
    merge, *others = found.lineage
    assert (merge.subject, {*merge.parents}) == ("Merge code", {1, 2})
    assert {node.subject for node in others[:2]} == {SUBJECT, "Fine-tune on code"}
    assert found.base is None  # code is an ancestor: nothing is to be merged
    assert [model.path for model in found.models] == [PATH]
    assert not found.models[0].agreements


def test_the_page_escapes_every_name_and_asks_for_nothing(written):
    text = written.read_text(encoding="utf-8")
    assert "alert" in text
    for forbidden in ("<script", "<img", "<b>on", "\x1b", "http://", "https://", " src="):
        found = text.replace("http://www.w3.org/", "").replace("https://vega", "")
        assert forbidden not in found.replace("&lt;img src=", ""), forbidden
    assert "default-src 'none'" in text
    assert len(text) < 400_000


def test_the_heat_map_is_written_as_a_picture(history, theta_here, tmp_path):
    picture = tmp_path / "heat-map.png"
    done = theta_here(history, "report", "main", "law", "--png", str(picture), "--", PATH)
    assert done.returncode == 0, done.stderr
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    assert width == 1800
    assert height > 200
    both = tmp_path / "both.png"
    assert theta_here(history, "report", "main", "law", "--png", str(both)).returncode == 0
    assert int.from_bytes(both.read_bytes()[20:24], "big") > height


@pytest.fixture
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)


def heard(page, address: str) -> list[str]:
    """What a page says from now on, and what it asks for beside itself."""
    said: list[str] = []
    for event in ("console", "pageerror", "dialog", "requestfailed"):
        page.on(event, lambda what: said.append(str(what)))
    page.on("request", lambda asked: said.append(asked.url) if asked.url != address else None)
    return said


def test_chromium_shows_the_page_light_and_dark_and_on_a_phone(written, browser, tmp_path):
    colors = {}
    for scheme, width in (("light", 390), ("dark", 390), ("light", 1200)):
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 844}, device_scale_factor=1
        )
        page = context.new_page()
        said = heard(page, written.as_uri())
        page.goto(written.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        # The charts are there, of one width or the other, and larger than nothing.
        boxes = [box for svg in page.locator("svg").all() if (box := svg.bounding_box())]
        assert len(boxes) == 5 * 2 + 1
        assert all(box["width"] > 250 and box["height"] > 30 for box in boxes)
        assert page.locator("script, img, iframe, object").count() == 0
        assert page.locator(".heat-map title").first.text_content()
        picture = tmp_path / f"{scheme}-{width}.png"
        page.screenshot(path=picture, full_page=True)
        colors[scheme, width] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert picture.stat().st_size > 20_000
        assert [each for each in said if not each.startswith("data:")] == []
        context.close()
    assert colors["light", 390] == colors["light", 1200] == "rgb(244, 246, 249)"
    assert colors["dark", 390] == "rgb(13, 19, 26)"


def test_files_of_one_model_are_one_section(history, theta_here, tmp_path, monkeypatch):
    names = sorted(BASE)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    for version, message in ((BASE, "Cut"), (LAW, "Tuned")):
        files = {
            f"cut/model-0000{at}-of-00002.safetensors": checkpoints.safetensors(
                {name: version[name] for name in half}
            )
            for at, half in enumerate(halves, 1)
        }
        history.commit_files(files, message)
    monkeypatch.chdir(history.path)
    with open_workspace() as workspace:
        found = report(workspace, ("HEAD~1", "HEAD"))
    (model,) = found.models
    assert (model.path, model.counts) == ("cut/model.safetensors", {"changed": len(BASE)})


def test_what_a_stranger_makes_large_is_cut(history, theta_here, tmp_path):
    """Names of 60 KB, a thousand modules, and a layer whose number no integer has."""
    names = [f"{'x' * 60_000}{at}.weight" for at in range(3)] + [f"layers.{'9' * 5000}.weight"]
    names += [f"{'abcdefghij'[at % 10]}{at:04}x.weight" for at in range(1000)]
    for amount, message in ((1.0, "Old"), (1.5, "New")):
        tensors = {name: np.full((2, 2), amount + at, np.float32) for at, name in enumerate(names)}
        history.commit_files({"large.safetensors": checkpoints.safetensors(tensors)}, message)
    page = tmp_path / "page.html"
    done = theta_here(history, "report", "HEAD~1", "HEAD", "--html", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert "The 60 modules that changed most are shown" in text


def test_what_was_added_alone_has_no_heat_map(history, theta_here, tmp_path):
    history.commit_files({"new.safetensors": checkpoints.safetensors(BASE)}, "Another")
    page = tmp_path / "page.html"
    done = theta_here(history, "report", "HEAD~1", "HEAD", "--html", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "heat-map" not in text
    assert f"<b>{len(BASE)}</b> added" in text
    done = theta_here(history, "report", "HEAD~1", "HEAD", "--png", str(tmp_path / "page.png"))
    assert done.returncode == 2
    assert "there is no heat map" in done.stderr


def test_mistakes_are_told(history, theta_here, tmp_path, monkeypatch):
    page = str(tmp_path / "page.html")
    for args, words in (
        (("law", "code"), "git theta report law code --html report.html"),
        (("law", "law", "--html", page), "no checkpoint differs between law and law"),
        (("law", "nowhere", "--html", page), "no such revision"),
        (("law", "code", "--html", str(tmp_path / "none" / "x.html")), "no such folder"),
    ):
        done = theta_here(history, "report", *args)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    done = theta_here(history, "report", "law", "code", "--html", page)
    assert done.returncode == 11
    assert "reports need vl_convert, which is not installed" in done.stderr
    assert 'pip install "theta-vcs[report]"' in done.stderr
    assert not Path(page).exists()


def test_a_drawing_says_what_its_marks_are():
    chart = {
        "data": {"values": [{"x": "a", "text": "</title>&"}]},
        "mark": "bar",
        "encoding": {"x": {"field": "x"}, "description": {"field": "text"}},
    }
    assert "<title>&lt;/title&gt;&amp;</title></path>" in drawing.svg(chart)
