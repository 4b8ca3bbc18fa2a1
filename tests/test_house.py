"""The house as a whole: floors, what an import costs, what a wheel holds, and papers that must agree."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cxr_tutorial

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = [
    module.name
    for module in pkgutil.walk_packages(cxr_tutorial.__path__, "cxr_tutorial.")
    if not module.ispkg and not module.name.startswith("cxr_tutorial._")
]
CHAPTERS = {*ROOT.glob("book/*.ipynb"), *ROOT.glob("book/experiments/*.ipynb")}


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_room_is_on_a_floor_and_imports_only_from_floors_below():
    command = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    result = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_room_but_those_of_the_command_is_on_one_api_page():
    pages = "".join(page.read_text() for page in (ROOT / "book/api").glob("*.md"))
    shown = re.findall(r"automodule:: (\S+)", pages)
    assert sorted(shown) == sorted(room for room in ROOMS if not room.startswith("cxr_tutorial.cli."))


def test_importing_the_package_loads_torch_and_nothing_heavy():
    heavy = "sklearn monai scipy lightning_fabric pandas pydicom pooch matplotlib plotly typer"
    code = f"""
import sys, torch
before = set(sys.modules)
import cxr_tutorial
print(*sorted(set("{heavy}".split()) & (set(sys.modules) - before)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_a_wheel_holds_everything_that_ships(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    shipped = [path.relative_to(ROOT / "data") for path in tracked_files() if ROOT / "data" in path.parents]
    expected = {f"cxr_tutorial/_shipped/{path.as_posix()}" for path in shipped} | {"cxr_tutorial/py.typed"}
    assert expected <= held
    assert not [name for name in held if name.startswith(("tests/", "book/"))]


def test_every_dependency_has_an_exact_pin_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    version = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins), "pins are exact, no local version"
    wanted = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    for requirement in map(Requirement, wanted):
        if requirement.name != PROJECT["name"]:
            pin = version.get(canonicalize_name(requirement.name))
            assert pin, f"{requirement.name} has no pin in constraints.txt"
            assert requirement.specifier.contains(pin), f"{requirement} does not allow the pin {pin}"


def test_the_public_address_stands_in_one_place():
    """And in the chapters' first cell, which has to find the package and is compared in `test_notebooks.py`."""
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    bare = address.split("://")[1].rstrip("/")
    for path in tracked_files():
        text = path.read_bytes()
        count = text.count(bare.encode())
        assert count == (path.name == "_config.yml" or path in CHAPTERS), f"{path.relative_to(ROOT)} holds the address"


def test_the_edition_is_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cxr_tutorial.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == cxr_tutorial.__version__
