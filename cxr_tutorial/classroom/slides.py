"""Slides of a chapter: its headings, equations, lists and pictures; the prose becomes the speaker's notes (floor 3)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxr_tutorial.classroom.sources import Notebook
from cxr_tutorial.errors import InputError
from cxr_tutorial.files import whole_file

LONGEST = 12  # lines of code on one slide
STOP = "## Exercises"
PLOTLY = "application/vnd.plotly.v1+json"
SKIPPED = ("import ", "from ", "check(", "hint(", "quiz(", "progress(", "widgets.")
MATHJAX = """<script>
MathJax = {tex: {inlineMath: [["$", "$"], ["\\\\(", "\\\\)"]], processEscapes: true, packages: {"[+]": ["ams"]}}};
</script>
<script src="vendor/mathjax/tex-mml-chtml.js"></script>
<script src="vendor/plotly.min.js"></script>
<style>
.reveal h1, .reveal h2, .reveal h3 { text-transform: none !important; font-size: 1.6em }
.reveal .jp-RenderedHTMLCommon, .reveal li { font-size: 28px }
.reveal img { max-height: 62vh }
</style>"""


def slides(chapter: Path, out: Path, vendor: Path, timeout: int = 600) -> Path:
    """Run a chapter and write `out/NAME.html`, slides that need no network; press S there for the prose.

    Parameters
    ----------
    chapter : a notebook. out : where to write; the JavaScript goes to `out/vendor`.
    vendor : holds `reveal`, `mathjax` and `requirejs`, as `book/vendor` does. timeout : seconds for one cell.

    Raises
    ------
    InputError : there is no such notebook, one of its cells fails, or `vendor` lacks what slides need.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    if not chapter.is_file():
        raise InputError(f"{chapter} is not there: give a notebook such as book/02-tversky.ipynb")
    if missing := [name for name in ("reveal", "mathjax", "requirejs") if not (vendor / name).is_dir()]:
        raise InputError(f"{vendor} lacks {', '.join(missing)}: slides are made in a checkout, from its book/vendor")
    notebook = nbformat.read(chapter, as_version=4)
    try:
        NotebookClient(notebook, timeout=timeout, kernel_name="python3").execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise InputError(f"{chapter} did not run to its end: {str(error).strip().splitlines()[-1]}") from error
    out.mkdir(parents=True, exist_ok=True)
    _copy_scripts(vendor, out / "vendor")
    page = out / f"{chapter.stem}.html"
    with whole_file(page) as arriving:
        arriving.write_text(_page(arranged(notebook), chapter.stem), encoding="utf-8")
    return page


def arranged(notebook: Notebook) -> Notebook:
    """The cells of an executed chapter as slides, with nbconvert's marks for each.

    >>> import nbformat
    >>> text = nbformat.v4.new_markdown_cell("## A loss\\n\\nIt counts. Why so?\\n\\n$$L = 1$$")
    >>> made = arranged(nbformat.v4.new_notebook(cells=[text]))
    >>> [(cell.metadata.slideshow.slide_type, cell.source) for cell in made.cells]
    [('slide', '## A loss\\n\\n$$L = 1$$'), ('notes', 'It counts. Why so?')]
    """
    import nbformat

    cells: list[Any] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            if cell.source.startswith(STOP):
                break
            cells += _of_prose(cell.source)
        elif cell.cell_type == "code":
            cells += _of_code(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def _marked(cell: Any, kind: str) -> Any:
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def _of_prose(source: str) -> Iterator[Any]:
    """A slide for each heading with what can be seen at a glance, and notes with the rest."""
    import nbformat

    for part in re.split(r"^(?=#{1,3} )", _plain(source), flags=re.MULTILINE):
        seen: list[str] = []
        said: list[str] = []
        for block in re.split(r"\n\s*\n", part.strip()):
            at_a_glance = block.startswith(("#", "- ", "* ", "1. ", "$$", "|", "**"))
            (seen if at_a_glance else said).append(block)
        if seen:
            kind = "slide" if re.match(r"##? ", seen[0]) else "subslide"
            yield _marked(nbformat.v4.new_markdown_cell("\n\n".join(seen)), kind)
        if any(said):
            yield _marked(nbformat.v4.new_markdown_cell("\n\n".join(said)), "notes")


def _of_code(cell: Any) -> Iterator[Any]:
    """A picture or a table without its code, or a short piece of code with what it prints."""
    import nbformat

    hidden = {"hide-input", "hide-cell", "remove-cell", "parameters"} & set(cell.metadata.get("tags", ()))
    pictures = [output for output in cell.outputs if _is_picture(output)]
    if pictures:
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        shown = nbformat.v4.new_code_cell("", outputs=[_drawn(output) for output in pictures])
        shown.metadata["tags"] = ["remove_input"]
        yield _marked(shown, "subslide")
        if caption:
            yield _marked(nbformat.v4.new_markdown_cell(caption), "-")
    elif not hidden and cell.source.count("\n") < LONGEST and not _is_skipped(cell.source):
        printed = [output for output in cell.outputs if output.output_type != "error"]
        yield _marked(nbformat.v4.new_code_cell(cell.source, outputs=printed), "subslide")


def _is_skipped(source: str) -> bool:
    return all(line.startswith((*SKIPPED, " ", ")")) for line in source.splitlines() if line.strip())


def _is_picture(output: Any) -> bool:
    return bool({"image/png", "image/svg+xml", PLOTLY} & set(output.get("data", ())))


def _drawn(output: Any) -> Any:
    """A plotly figure as HTML that shares one script; other pictures as they are."""
    import nbformat
    import plotly.io

    if PLOTLY not in output.data:
        return output
    figure = {key: output.data[PLOTLY][key] for key in ("data", "layout", "frames") if key in output.data[PLOTLY]}
    html = plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, validate=False)
    return nbformat.v4.new_output("display_data", data={"text/html": html})


def _plain(source: str) -> str:
    """Markdown without what only the book understands: admonitions, targets and roles."""
    source = re.sub(r"^:{3,}.*?^:{3,}\s*$", "", source, flags=re.MULTILINE | re.DOTALL)
    source = re.sub(r"^```\{.*?^```\s*$", "", source, flags=re.MULTILINE | re.DOTALL)
    source = re.sub(r"^\([\w-]+\)=\s*$", "", source, flags=re.MULTILINE)
    source = re.sub(r"\s*\{cite:\w+\}`[^`]*`", "", source)
    source = re.sub(r"\{(?:term|eq|numref|doc|ref|prf:ref|py:\w+)\}`~?([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", source)
    source = re.sub(r"\$\$ \([\w-]+\)", "$$", source)
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", source)


def _copy_scripts(vendor: Path, to: Path) -> None:
    import plotly

    for name in ("reveal", "mathjax", "requirejs"):
        shutil.copytree(vendor / name, to / name, dirs_exist_ok=True)
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", to)


def _page(notebook: Notebook, title: str) -> str:
    from nbconvert.exporters import SlidesExporter
    from traitlets.config import Config

    exporter = SlidesExporter(
        config=Config({"TagRemovePreprocessor": {"enabled": True, "remove_input_tags": {"remove_input"}}}),
        reveal_url_prefix="vendor/reveal",
        reveal_theme="white",
        reveal_width="1280",
        reveal_height="760",
        require_js_url="vendor/requirejs/require.js",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    start, end = body.index("<!-- Load mathjax -->"), body.index("<!-- End of mathjax configuration -->")
    body = body[:start] + MATHJAX + body[end:]
    body = re.sub(r"if\(MathJax\.Hub\.getAllJax.*?\n\s*\}", "", body, flags=re.DOTALL)  # of an older MathJax
    return re.sub(r"<script\b[^>]*>.*?</script>", _kept, body, flags=re.DOTALL)


def _kept(script: re.Match[str]) -> str:
    """A script of the page, unless it would ask the network."""
    return "" if re.search(r'src="https?:|html-manager|mermaid', script[0]) else script[0]
