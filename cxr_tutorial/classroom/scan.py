"""Does anything that students must not see stand where they can see it? (floor 3)."""

from __future__ import annotations

import html
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cxr_tutorial.classroom.sources import HIDDEN, SOLUTION, Notebook, outside, regions
from cxr_tutorial.errors import InputError

SHORTEST = 18  # characters without blanks: shorter lines say nothing
SEPARATE = 30  # and a region of fewer is looked for as a whole
TEXT = frozenset({".py", ".ipynb", ".html", ".htm", ".js", ".css", ".svg", ".txt", ".md", ".json", ".csv", ".toml", ""})
TEXT |= {".yml", ".yaml", ".xml", ".rst", ".tex", ".cff", ".sh"}
ZIPS = (".whl", ".zip")
PUBLIC = ("#", "import ", "from ")  # lines of these kinds are no secrets
VENDORED = ("/vendor/", "/mathjax/", "/_static/plotly", "/_sphinx_design_static/")


@dataclass(frozen=True)
class Secret:
    """Something to look for: `kind` is "solution", "hidden test" or "private seed"."""

    assignment: str
    kind: str
    text: str


@dataclass(frozen=True)
class Leak:
    """A secret that stands in a file."""

    file: str
    secret: Secret

    def __str__(self) -> str:
        text = self.secret.text.strip()
        short = text if len(text) < 90 else text[:87] + "..."
        return f"{self.file}: a {self.secret.kind} of {self.secret.assignment}: {short}"


def secrets_of(name: str, notebook: Notebook) -> list[Secret]:
    """Every solution line, every line of a hidden test and the private seed of an instructor's notebook.

    A line that students see elsewhere in the notebook is no secret. Short lines are not looked for by themselves, but
    as a part of their region.

    Raises
    ------
    InputError : a region in which there is nothing to look for.
    """
    seen = {_squeezed(line) for cell in notebook.cells for line in _visible(cell)}
    found = [Secret(name, "private seed", str(notebook.metadata["classroom"]["private_seed"]))]
    for cell in notebook.cells:
        about = cell.metadata.get("nbgrader", {})
        kinds = [("solution", lines) for lines in regions(cell.source, SOLUTION)]
        kinds += [("hidden test", lines) for lines in regions(cell.source, HIDDEN)]
        if about.get("solution") and not any(kind == "solution" for kind, _ in kinds):
            kinds.append(("solution", cell.source.splitlines()))
        for kind, lines in kinds:
            fresh = [line for line in lines if _squeezed(line) not in seen and not line.strip().startswith(PUBLIC)]
            long = [line for line in fresh if len(_squeezed(line)) >= SHORTEST]
            whole = "\n".join(lines)
            if not long and len(_squeezed(whole)) < SHORTEST:
                cell_name = about.get("grade_id")
                raise InputError(f"{name}, cell {cell_name}: its {kind} has no line long enough to look for")
            found += [Secret(name, kind, line) for line in long if len(_squeezed(line)) >= SEPARATE] or [
                Secret(name, kind, whole)
            ]
    return found


def _visible(cell: Notebook) -> list[str]:
    about = cell.metadata.get("nbgrader", {})
    if about.get("solution") and SOLUTION[0] not in cell.source:
        return []  # the whole cell is the answer
    return outside(cell.source)


def scan(places: Iterable[Path], secrets: Iterable[Secret]) -> tuple[list[Leak], int]:
    """Every secret that stands in the files, folders, wheels and zips of `places`, and how many files were read.

    Blanks, quotes and mark-up do not hide it: a line is found in a notebook's JSON, in highlighted HTML and within
    another line. Files that other projects made (MathJax, plotly) and those that hold no text are passed over.

    Raises
    ------
    InputError : a place is not there; a file that is named itself is of no kind that can be read.
    """
    wanted, leaks, read = list(dict.fromkeys(secrets)), [], 0
    for file, text in _texts(places):
        read += 1
        leaks += [Leak(file, secret) for secret in leaks_of(text, wanted)]
    return leaks, read


def leaks_of(text: str, secrets: Iterable[Secret]) -> list[Secret]:
    """Those that stand in a text."""
    squeezed, found = _squeezed(text), []
    for secret in secrets:
        needle = _needle(secret)
        if (needle in squeezed) if isinstance(needle, str) else needle.search(text):
            found.append(secret)
    return found


def _needle(secret: Secret) -> str | re.Pattern[str]:
    if secret.kind == "private seed":
        return re.compile(rf"(?<![\d.]){secret.text}(?!\d)")
    return _squeezed(secret.text)


def _squeezed(text: str) -> str:
    return re.sub(r"[\s\"'`\\]+", "", text)


def _texts(places: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for place in places:
        if not place.exists():
            raise InputError(f"{place} is not there: nothing to look through")
        if place.is_file() and not (place.suffix.lower() in ZIPS or _looked_at(place.name)):
            raise InputError(f"{place} cannot be looked through: give text, a notebook, a page, a zip or a wheel")
        top = place if place.is_dir() else place.parent
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                yield from _texts_of(str(path), path.relative_to(top).as_posix(), path.read_bytes)


def _texts_of(shown: str, name: str, read: Callable[[], bytes]) -> Iterator[tuple[str, str]]:
    """A file's text, or those of a zip's files; `name` is what it is called below the place."""
    if Path(name).suffix.lower() in ZIPS:
        try:
            with zipfile.ZipFile(io.BytesIO(read())) as archive:
                for inner in archive.namelist():
                    yield from _texts_of(f"{shown}/{inner}", inner, partial(archive.read, inner))
        except zipfile.BadZipFile as error:
            raise InputError(f"{shown} is no zip that can be read ({error})") from error
    elif _looked_at(name):
        yield shown, _plain(name.lower(), read())


def _looked_at(name: str) -> bool:
    return Path(name).suffix.lower() in TEXT and not any(part in f"/{name}" for part in VENDORED)


def _plain(name: str, content: bytes) -> str:
    """The text of a file as a reader sees it."""
    text = content.decode("utf-8", errors="replace")
    if name.endswith((".ipynb", ".json")):
        try:
            return "\n".join(strings(json.loads(text)))
        except ValueError:
            return text
    if name.endswith((".html", ".js")):
        return html.unescape(re.sub(r"<[^<>]*>", "", text)).replace("\\n", "\n")
    return text


def strings(node: object) -> Iterator[str]:
    """Every text in a structure of lists and dictionaries, such as a notebook's JSON."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from strings(value)
    elif isinstance(node, list):
        if node and all(isinstance(one, str) for one in node):
            yield "".join(node)  # a notebook's lines
        else:
            for one in node:
                yield from strings(one)
    else:
        yield str(node)
