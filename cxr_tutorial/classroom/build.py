"""From the sources to what is handed out and what the teacher keeps (floor 3)."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_tutorial.classroom import sources

CONFIG = '''"""nbgrader's settings for this course: `jupyter lab` here shows it at /formgrader, for marks by hand."""

c = get_config()
c.CourseDirectory.course_id = "chest-x-rays"
c.ClearSolutions.code_stub = {{"python": {stub!r}}}
c.ClearSolutions.text_stub = {text_stub!r}
c.Execute.timeout = 120
'''


@dataclass(frozen=True)
class Built:
    """What `build` wrote: a folder for students, its zip, and a nbgrader course for the teacher."""

    release: Path
    archive: Path
    instructor: Path
    names: tuple[str, ...]


def build(
    folder: Path, out: Path, chosen: Sequence[str] = (), *, variant: int | None = None, seed: int | None = None
) -> Built:
    """Write `out/release/NAME/NAME.ipynb`, `out/release.zip` and the nbgrader course `out/instructor/`.

    Parameters
    ----------
    folder : the sources. out : where to write; of an earlier build only the notebooks that are made anew go.
    chosen : names of assignments, all by default.
    variant, seed : see `sources.read`.
    """
    import nbformat

    made = Built(out / "release", out / "release.zip", out / "instructor", tuple(chosen or sources.names(folder)))
    notebooks = {name: sources.read(folder, name, variant=variant, seed=seed) for name in made.names}
    for old in (made.release, made.instructor / "source"):
        for place in [old / name for name in made.names] if chosen else [old]:
            shutil.rmtree(place, ignore_errors=True)
    for name, notebook in notebooks.items():
        for path, content in (
            (made.release / name / f"{name}.ipynb", sources.release(notebook)),
            (made.instructor / "source" / name / f"{name}.ipynb", notebook),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(content, path)
    write_config(made.instructor)
    with zipfile.ZipFile(made.archive, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (made.release / name / f"{name}.ipynb" for name in sorted(made.names)):
            archive.write(path, path.relative_to(made.release))
    return made


def write_config(course: Path) -> None:
    """Make `course` a course of nbgrader."""
    course.mkdir(parents=True, exist_ok=True)
    text = CONFIG.format(stub=sources.STUB, text_stub=sources.TEXT_STUB)
    (course / "nbgrader_config.py").write_text(text, encoding="utf-8")
