"""Modules are of a size that a reader takes in at once, and each has a room that the page names."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
MODULES = sorted(ROOT.glob("git_theta/**/*.py"))
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# What ruff's D401 does not know as a noun phrase.
_NOT_IMPERATIVE = re.compile(r"(What|Whether|Where|How|That|Who|Those|These|A|An|The)\b")


def name(module: Path) -> str:
    return module.relative_to(ROOT).as_posix()


def test_modules_have_20_to_300_lines() -> None:
    lines = {name(module): len(module.read_bytes().splitlines()) for module in MODULES}
    crumbs = [
        f for f, n in lines.items() if n < 20 and not f.endswith(("__init__.py", "__main__.py"))
    ]
    assert crumbs == []
    assert [file for file, count in lines.items() if count > 300] == []


def test_no_module_imports_itself_through_others() -> None:
    """Imports for type checkers and those inside of functions count too."""
    graph = grimp.build_graph("git_theta")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    imports["git_theta"] = set()  # It offers its names by importing them when they are used.
    TopologicalSorter(imports).prepare()  # CycleError, with the modules, for a circle.


def openings(module: Path) -> list[str]:
    """The first lines of the docstrings of functions, properties (nouns) and tests excepted."""
    functions = (
        node
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("test_")
    )
    return [
        (ast.get_docstring(function) or "").partition("\n")[0]
        for function in functions
        if not any(ast.unparse(each).endswith("property") for each in function.decorator_list)
    ]


def test_docstrings_of_functions_are_imperative() -> None:
    rows = ((name(module), line) for module in MODULES for line in openings(module))
    assert [row for row in rows if _NOT_IMPERATIVE.match(row[1])] == []


def test_the_architecture_names_every_folder() -> None:
    folders = {module.parent for module in MODULES} - {ROOT / "git_theta"}
    named = set(re.findall(r"`(?:[\w.]+/)*(\w+)/?`", PAGE))
    assert {folder.name for folder in folders} <= named
