"""What the documents say of commands, exit codes and files is so."""

from __future__ import annotations

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import click
import pytest
from blake3 import blake3
from click.testing import CliRunner

from git_theta.cli.app import COMMANDS, PLUMBING, cli
from git_theta.core import registry, settings
from git_theta.manifest.text import ABOUT
from standalone_reader import DECODERS, parse_frame

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPEC = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")


def load(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", [*COMMANDS, *PLUMBING])
def test_every_option_is_explained(name: str) -> None:
    options = [option for option in load(name).params if isinstance(option, click.Option)]
    assert all(option.help for option in options), [o.name for o in options if not o.help]


def test_the_readme_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"git theta ([a-z][a-z-]+)", README))
    assert named == set(COMMANDS)


def test_the_help_text_lists_every_command_but_plumbing_on_one_line_each() -> None:
    modules = {path.stem.replace("_", "-") for path in (ROOT / "git_theta/cli").glob("*.py")}
    assert {*COMMANDS, *PLUMBING} <= modules
    assert all(load(name).hidden for name in PLUMBING)
    assert not any(load(name).hidden for name in COMMANDS)
    shown = CliRunner().invoke(cli, ["-h"]).output.partition("Commands:\n")[2]
    rows = [line.split(None, 1) for line in shown.splitlines()]
    assert rows == [[name, text] for name, text in COMMANDS.items()]
    assert all(text.endswith(".") for text in COMMANDS.values())


def test_every_script_that_a_page_names_can_be_run() -> None:
    for page in PAGES:
        for name in re.findall(r"\bscripts/([a-z][a-z-]*)\b", page.read_text(encoding="utf-8")):
            assert (ROOT / "scripts" / name).stat().st_mode & 0o111, f"{page.name}: scripts/{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link or page.name == "0000-template.md":
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("script", ["exit-codes", "help-texts"])
def test_pages_that_are_generated_are_current(script: str) -> None:
    done = subprocess.run([ROOT / "scripts" / script, "--check"], capture_output=True)
    assert done.returncode == 0, done.stdout


def test_there_is_a_manual_page_for_every_command_with_its_options() -> None:
    folder = ROOT / "docs" / "man"
    pages = {file.stem: file.read_text(encoding="utf-8") for file in folder.iterdir()}
    assert {*pages} == {"git-theta", *(f"git-theta-{name}" for name in COMMANDS)}
    for name in COMMANDS:
        page = pages[f"git-theta-{name}"].replace("\\-", "-")
        assert f"git-theta-{name} (1)" in pages["git-theta"].replace("\\-", "-")
        for option in load(name).params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[0] in page, (name, option.opts)
    # What would begin a request of roff is hidden from it.
    lines = "".join(pages.values()).splitlines()
    requests = {line.split(" ")[0] for line in lines if line.startswith((".", "'"))}
    known = {'.\\"', ".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".I", ".RI", ".BR", ".nf", ".fi"}
    assert requests <= known


def test_the_summary_of_every_command_is_whole() -> None:
    listed = cli.get_help(click.Context(cli, terminal_width=80, max_content_width=80))
    assert "..." not in listed.partition("Commands:")[2]


def test_the_settings_page_has_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `theta\.(\w+)` \| (\w+) \| ([^|]+) \|", page, re.MULTILINE)
    documented = settings.load({f"theta.{key.lower()}": default for key, default, _ in rows})
    assert documented == settings.Settings()
    known = {settings.key_of(field): field for field in fields(settings.Settings)}
    assert [key for key, _, _ in rows] == list(known)
    for key, _, shared in rows:
        allowed = known[key].metadata["shared"]
        if allowed is None:
            assert shared == "no"
            continue
        ends = (settings.load({}, {key: end}) for end in shared.split(" to "))
        assert tuple(getattr(end, known[key].name) for end in ends) == allowed


def test_the_architecture_names_every_layer_and_every_module_has_one() -> None:
    linted = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("layers = [")[2]
    layers = set(re.findall(r"git_theta\.(\w+)", linted))
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|((?: `\w+`,?)+) \|", page, re.MULTILINE)
    assert layers == set(re.findall(r"\w+", " ".join(rows)))
    paths = [*ROOT.glob("git_theta/*.py"), *ROOT.glob("git_theta/*/__init__.py")]
    modules = {path.relative_to(ROOT / "git_theta").parts[0].removesuffix(".py") for path in paths}
    assert {name for name in modules if not name.startswith("_")} <= layers


def test_the_frame_in_the_specification_decodes_as_it_says() -> None:
    _, _, after = SPEC.partition("<!-- example: frame of three floats -->")
    rows = [(int(line[:4], 16), line[6:54]) for line in after.split("```")[1].strip().splitlines()]
    data = b""
    for offset, digits in rows:
        assert offset == len(data)
        data += bytes.fromhex(digits)
    frame = parse_frame(data)
    raw = DECODERS[0](frame, b"")
    assert raw.hex(" ", 4) == "0000803f 00000040 00004040"
    assert blake3(raw).hexdigest() == frame.content


def test_the_specification_has_the_text_that_manifests_begin_with() -> None:
    after = SPEC.partition("<!-- about -->")[2]
    assert after.split("```")[1].strip() == ABOUT


def test_the_specification_has_a_section_for_every_encoding() -> None:
    sections = dict(re.findall(r"^### (\d+): ([a-z0-9-]+)$", SPEC, re.MULTILINE))
    encodings = map(registry.encoding_named, registry.names("encodings"))
    assert sections == {str(encoding.number): encoding.name for encoding in encodings}


def test_the_second_reader_knows_every_encoding() -> None:
    numbers = {registry.encoding_named(name).number for name in registry.names("encodings")}
    assert set(DECODERS) == numbers


def test_every_test_that_the_page_on_reliability_names_is_there() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", page))
    sources = (file.read_text(encoding="utf-8") for file in ROOT.glob("tests/**/test_*.py"))
    there = {name for text in sources for name in re.findall(r"def (test_[a-z0-9_]+)\(", text)}
    assert len(named) > 40
    assert named <= there


def test_each_decision_has_a_number_of_its_own() -> None:
    records = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
    titled = [int(re.match(r"# (\d+)\.", r.read_text(encoding="utf-8"))[1]) for r in records[1:]]  # type: ignore[index]
    assert [int(record.name[:4]) for record in records[1:]] == titled
    assert titled == list(range(1, len(records)))
