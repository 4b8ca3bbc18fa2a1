"""What the first cell of a chapter does: complete the installation, compare editions, look at the machine (floor 2).

The cell has to work in a session that holds PyTorch, NumPy and this package alone, so nothing else is imported here.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from cxr_tutorial.errors import InputError
from cxr_tutorial.results import describe_device

UNTOUCHED = ("torch", "numpy")  # they come with the session, built for its driver, and may be in use already


def ready(edition: str, source: str) -> None:
    """Make this session fit for a chapter, and say in one line that it is.

    Parameters
    ----------
    edition : of the book that the chapter is from; the package must have the same version.
    source : the book's public address.

    Raises
    ------
    InputError : the package is of another edition, PyTorch or NumPy is missing or too old, or pip fails; the
        message says what to run.
    """
    if edition != (version := metadata.version("cxr-tutorial")):
        raise InputError(other_edition(edition, version, source))
    todo = missing(metadata.requires("cxr-tutorial") or ())
    if find_spec("ipywidgets") is None:  # Colab brings an older one, to which its page is fitted
        todo.append("ipywidgets")
    if todo:
        install(todo)
    print(ready_line())


def missing(requirements: Iterable[str]) -> list[str]:
    """The requirements that this session lacks, or has in a version that is too old; extras are left out.

    Parameters
    ----------
    requirements : as in a package's metadata, such as `"torch>=2.4"` or `'pytest>=8; extra == "test"'`.

    >>> missing(["pip", "no-such-package>=1.0", 'no-such-extra; extra == "test"'])
    ['no-such-package>=1.0']
    """
    from packaging.requirements import Requirement

    found = []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            there = requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
        except metadata.PackageNotFoundError:
            there = False
        if not there:
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def install(requirements: list[str]) -> None:
    """Install them quietly by pip, which must leave the session's PyTorch and NumPy as they are.

    Raises
    ------
    InputError : PyTorch or NumPy is among them, or pip fails; the message ends with what pip said last.
    """
    if kept := [one for one in requirements if one.startswith(UNTOUCHED)]:
        raise InputError(
            f"this session needs {' and '.join(kept)}, which a chapter never installs: run pip install "
            f"{' '.join(map(repr, kept))}, restart the session and begin again"
        )
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder, "held.txt")
        held.write_text("".join(f"{name}=={metadata.version(name)}\n" for name in UNTOUCHED))
        quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "-c", str(held)]
        command = [sys.executable, "-m", "pip", "install", *quiet, *requirements]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise InputError(f"pip could not install {', '.join(requirements)}: is there a network? It said: {said}")
    importlib.invalidate_caches()


def other_edition(edition: str, version: str, source: str) -> str:
    """What to do when chapter and package are of different editions.

    >>> print(other_edition("0.2.0", "0.1.0", "https://a.b/c"))
    this chapter is of edition 0.2.0, the package is 0.1.0: run %pip install --quiet --upgrade --no-deps
    git+https://a.b/c and restart the session
    """
    from packaging.version import Version

    if Version(version) < Version(edition):
        fix = f"run %pip install --quiet --upgrade --no-deps git+{source} and restart the session"
    else:
        fix = f"open the newer chapter from {source}"
    return f"this chapter is of edition {edition}, the package is {version}: {fix}"


def ready_line() -> str:
    """Version, machine, and which profile the machine is good for."""
    import torch

    gpu = torch.cuda.is_available()
    machine = f"GPU, {describe_device('cuda')}" if gpu else describe_device("cpu")
    edition, profile = metadata.version("cxr-tutorial"), "full" if gpu else "quick"
    return f'OK: cxr-tutorial {edition}; {machine}; good for PROFILE = "{profile}"'
