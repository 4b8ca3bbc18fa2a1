"""The first cell of a chapter: what it finds missing, what it installs, what it says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

import cxr_tutorial
from cxr_tutorial.errors import InputError
from cxr_tutorial.reader import setup

ROOT = Path(__file__).parents[2]
NEEDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
HERE = "https://example.com/book"


@pytest.fixture
def colab(monkeypatch):
    """A session in which some packages are missing or older than here."""
    real = metadata.version
    held: dict[str, str | None] = {"monai": None, "pydicom": None, "plotly": "5.1"}

    def version(name):
        if (said := held.get(name, "real")) is None:
            raise metadata.PackageNotFoundError(name)
        return real(name) if said == "real" else said

    monkeypatch.setattr(metadata, "version", version)
    return held


@pytest.fixture
def pip(monkeypatch):
    """What pip was asked for, with the constraints it was given; it does nothing, and fails with `pip.error`."""
    calls = SimpleNamespace(asked=[], held=[], error="")

    def run(command, **_):
        calls.held += Path(command[command.index("-c") + 1]).read_text().split()
        calls.asked += command[command.index("-c") + 2 :]
        return SimpleNamespace(returncode=bool(calls.error), stderr=calls.error)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_what_a_complete_session_misses_is_nothing():
    assert setup.missing(NEEDS) == []


def test_what_is_missing_or_old_is_named_with_its_bound(colab):
    bounds = {Requirement(line).name: line for line in NEEDS}
    assert setup.missing(NEEDS) == [bounds[name] for name in ("monai", "pydicom", "plotly")]


def test_only_what_is_missing_is_installed_and_torch_and_numpy_are_held(colab, pip, monkeypatch, capsys):
    monkeypatch.setattr(metadata, "requires", lambda name: [*NEEDS, 'pytest>=999; extra == "test"'])
    setup.ready(cxr_tutorial.__version__, HERE)
    assert [Requirement(line).name for line in pip.asked] == ["monai", "pydicom", "plotly"]
    assert pip.held == [f"{name}=={metadata.version(name)}" for name in ("torch", "numpy")]
    assert capsys.readouterr().out.startswith("OK: ")


def test_a_session_without_ipywidgets_gets_them(pip, monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: NEEDS)
    monkeypatch.setattr(setup, "find_spec", lambda name: None)
    setup.ready(cxr_tutorial.__version__, HERE)
    assert pip.asked == ["ipywidgets"]


@pytest.mark.parametrize("name", setup.UNTOUCHED)
def test_torch_and_numpy_are_never_installed(colab, pip, name):
    colab[name] = "1.0"
    with pytest.raises(InputError, match=f"needs {name}>=.* never installs: run pip install '{name}>="):
        setup.install(setup.missing(NEEDS))
    assert pip.asked == []


def test_what_pip_said_last_is_told(pip):
    pip.error = "WARNING: slow\nERROR: No matching distribution found for monai\n"
    with pytest.raises(InputError, match=r"could not install monai: .* No matching distribution found for monai$"):
        setup.install(["monai"])


@pytest.mark.parametrize(
    ("edition", "fix"),
    [("9.0.0", f"run %pip install --quiet --upgrade --no-deps git[+]{HERE}"), ("0.0.1", f"open the newer .*{HERE}")],
)
def test_another_edition_is_refused_with_the_fix(edition, fix):
    with pytest.raises(InputError, match=f"edition {edition}, the package is {cxr_tutorial.__version__}: {fix}"):
        setup.ready(edition, HERE)


def test_one_line_names_machine_and_profile(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    setup.ready(cxr_tutorial.__version__, HERE)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"OK: cxr-tutorial {cxr_tutorial.__version__}; CPU, ")
    assert line.endswith('good for PROFILE = "quick"')
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert setup.ready_line().endswith('; GPU, Tesla T4; good for PROFILE = "full"')


def test_the_cell_can_begin_where_only_torch_and_numpy_are(tmp_path):
    names = {Requirement(line).name for line in NEEDS} - {"torch", "numpy"}
    names |= {"PIL", "sklearn", "lightning_fabric", "ipywidgets", "IPython"}
    code = f"""
import sys, torch
for name in {sorted(names)!r}:
    sys.modules[name] = None  # from here on the import of it fails
import cxr_tutorial.reader.setup
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
