"""The rooms of the package: few, without a circle, and no import runs to a room above."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cases import ROOT

PACKAGE = ROOT / "src" / "normlab"
# From the top floor down, as CONTRIBUTING.md lists them.
FLOORS = ["app", "report", "runner", "sweeps", "callbacks", "tasks", "doctor", "config", "data", "models", "norms"]
FLOORS += ["folder", "distributed", "logs", "errors"]
NOT_ROOMS = ("__init__", "__main__")
LAST = 15  # more top-level entries than this nobody keeps in mind


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(file): file for file in PACKAGE.rglob("*.py")}


def imported(file: Path) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield from (module for module in (whole if whole in MODULES else node.module,) if module in MODULES)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_the_entries_at_the_top_are_those_that_contributing_names():
    entries = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert entries - {*NOT_ROOMS} == {*FLOORS}
    assert len(FLOORS) <= LAST
    named = re.findall(r"^- `(\w+)[/.]", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M)
    assert named == FLOORS


# `python -m normlab` and `python -m normlab.doctor` are entries, and no other module imports them.
ENTRIES = {"normlab", "normlab.__main__", "normlab.doctor.__main__"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - ENTRIES))
def test_no_import_runs_to_a_room_above(module):
    """Rooms that import downwards only cannot form a circle."""
    above = FLOORS[: FLOORS.index(room(module))]
    assert [other for other in imported(MODULES[module]) if room(other) in (*above, "__init__")] == []


def test_no_modules_of_a_room_form_a_circle():
    left = {module: {other for other in imported(file) if other != module} for module, file in MODULES.items()}
    while ends := [module for module, others in left.items() if not others & left.keys()]:
        for module in ends:
            del left[module]
    assert left == {}


def test_every_option_of_conf_is_a_file_of_its_own():
    """A part is one file and one yaml: what several options share stands in `common` or in a package."""
    for group, home in (("norm", "norms"), ("model", "models"), ("data", "data")):
        options = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        files = {path.stem for path in (PACKAGE / home).glob("*.py")} - {*NOT_ROOMS}
        assert options == files
