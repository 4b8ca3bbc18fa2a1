"""Sphinx hooks that only the rendered book needs (floor 2).

They make plotly figures work without a network, re-run the chapters when the package changes, and read
docstrings the way this package writes them. `_config.yml` names this module as an extension.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from cxr_tutorial.reader.bookcache import execute_side_by_side, tell_time
from cxr_tutorial.shipped import shipped

PLOTLY_MIME = "application/vnd.plotly.v1+json"
PLOTLY_CLASS = "cxr-plotly"


def setup(app: Any) -> dict[str, Any]:
    """Connect the hooks; Sphinx calls this."""
    app.connect("config-inited", _configure, priority=1)
    app.connect("env-before-read-docs", execute_side_by_side)
    app.connect("doctree-read", tell_time)
    app.connect("doctree-read", _name_what_is_introduced)
    app.connect("doctree-resolved", _tell_terms)
    app.connect("builder-inited", _copy_plotly)
    app.connect("html-page-context", _load_plotly)
    app.connect("autodoc-process-docstring", _house_style, priority=1)
    app.connect("autodoc-process-signature", _readable_defaults)
    app.connect("autodoc-skip-member", _skip_tuple_fields)
    return {"version": metadata.version("cxr-tutorial"), "parallel_read_safe": True, "parallel_write_safe": True}


class PlotlyRenderer:
    """Turns a plotly figure in a notebook's output into HTML that draws itself, without a network.

    myst-nb finds it through the entry point `myst_nb.mime_renderers`.
    """

    mime_priority_overrides: ClassVar = [("html", PLOTLY_MIME, 1)]

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> list[Any] | None:
        """One raw HTML node for a plotly figure, None for any other kind of output."""
        if inline or data.mime_type != PLOTLY_MIME:
            return None
        from docutils import nodes
        from plotly.io import to_html

        figure = {key: data.content[key] for key in ("data", "layout", "frames") if key in data.content}
        place = f"{renderer.source}:{data.cell_index}:{data.output_index}"
        drawing = to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            validate=False,
            auto_play=False,
            div_id=f"plotly-{hashlib.sha256(place.encode()).hexdigest()[:12]}",
            config={
                "responsive": True,
                "displaylogo": False,
                "modeBarButtonsToRemove": ["lasso2d", "select2d"],
            },
        )
        label = (figure["layout"].get("meta") or {}).get("alt") or "interactive figure"
        html = f'<div class="{PLOTLY_CLASS}" role="figure" aria-label="{escape(label)}">{drawing}</div>'
        return [nodes.raw(text=html, format="html", classes=["output", PLOTLY_CLASS])]


def package_fingerprint() -> str:
    """A short hash of everything a chapter's output depends on besides its own cells.

    The cache of executed chapters is keyed by their cells alone; this adds the package, what ships with
    it, what computes and draws, and where the real data lies.
    """
    versions = [f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "matplotlib", "plotly")]
    digest = hashlib.sha256(" ".join([sys.version, *versions, os.environ.get("CXR_DATA", "")]).encode())
    for folder in (Path(__file__).parents[1], shipped()):
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _configure(app: Any, config: Any) -> None:
    """Settings that `_config.yml` cannot express."""
    cache = Path(app.outdir).parent / ".jupyter_cache" / package_fingerprint()
    config.nb_execution_cache_path = str(cache)
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"  # chapters then hold data only, not plotly's own code

    address = config.html_theme_options.get("repository_url", "")
    config.myst_substitutions["repository"] = address
    if "github.com/" not in address:  # the theme's buttons know no other host
        config.html_theme_options["launch_buttons"] = {}
        config.html_theme_options["use_repository_button"] = False
        config.html_theme_options.pop("repository_url", None)


def _copy_plotly(app: Any) -> None:
    if app.builder.format != "html":
        return
    import plotly

    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(plotly.__file__).parent / "package_data/plotly.min.js", static / "plotly.min.js")


def _load_plotly(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if doctree is None:
        return
    from docutils import nodes

    if any(PLOTLY_CLASS in node["classes"] for node in doctree.findall(nodes.raw)):
        app.add_js_file("plotly.min.js")
        # figures are drawn before the page's side bars have taken their room
        app.add_js_file(None, body='addEventListener("load", () => dispatchEvent(new Event("resize")))')


INTRODUCED = r"Introduced in chapter\s+(\d+)"


@functools.cache
def introduced() -> dict[int, list[str]]:
    """The full names of what the package says is introduced in each chapter, in the order of the files.

    >>> "cxr_tutorial.losses.tversky" in introduced()[2]
    True
    """
    package, names = Path(__file__).parents[1], dict[int, list[str]]()
    for file in sorted(package.rglob("*.py")):
        room = ".".join(file.relative_to(package.parent).with_suffix("").parts)
        for node in ast.parse(file.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            if said := re.search(INTRODUCED, ast.get_docstring(node) or ""):
                names.setdefault(int(said[1]), []).append(f"{room}.{node.name}")
    return names


def _name_what_is_introduced(app: Any, doctree: Any) -> None:
    """At the end of a chapter, links to the pages of all names that say that it introduces them."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    names = introduced().get(_chapter(app.env.docname), [])
    sections = [node for node in doctree.findall(nodes.section) if node["names"] == ["next"]]
    if not names or not sections:
        return
    paragraph = nodes.paragraph(
        "", "", nodes.strong("", "In the package"), nodes.Text(": what this chapter introduced. ")
    )
    for name in names:
        link = {"refdomain": "py", "reftype": "obj", "reftarget": name, "refexplicit": True, "refwarn": True}
        paragraph += pending_xref("", nodes.literal("", name.rpartition(".")[2]), refdoc=app.env.docname, **link)
        paragraph += nodes.Text(", " if name != names[-1] else ".")
    sections[-1] += paragraph


GLOSSARY = "book/glossary"


def _tell_terms(app: Any, doctree: Any, page: str) -> None:
    """A link to a term of the glossary says what the term means when the mouse rests on it."""
    from docutils import nodes

    if GLOSSARY not in app.env.found_docs:
        return
    if not hasattr(app, "cxr_terms"):
        app.cxr_terms = dict(_terms(app.env.get_doctree(GLOSSARY)))
    for link in doctree.findall(nodes.reference):
        place = link.get("refid") or link.get("refuri", "").rpartition("#")[2]
        if place in app.cxr_terms:
            link["reftitle"] = app.cxr_terms[place]


def _terms(glossary: Any) -> Iterator[tuple[str, str]]:
    """The place of each term on the glossary's page and the first paragraph of what it means, as plain text."""
    from docutils import nodes

    for item in glossary.findall(nodes.definition_list_item):
        paragraph = next(item.findall(nodes.paragraph))
        for formula in list(paragraph.findall(nodes.math)):
            if "\\" in formula.astext():
                formula.replace_self(nodes.Text("…"))
        for term in item.findall(nodes.term):
            yield from ((place, " ".join(paragraph.astext().split())) for place in term["ids"])


def _chapter(page: str) -> int:
    """The number in a page's name, 0 if it is no chapter."""
    found = re.search(r"(?:^|/)(\d\d)-", page)
    return int(found[1]) if found else 0


def _linked(said: re.Match[str], page: str | None) -> str:
    return f"Introduced in :doc:`chapter {said[1]} </{page}>`" if page else said[0]


_ENTRIES = ("Parameters", "Attributes", "Raises")
_PROSE = ("Returns", "Yields")


def _house_style(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite the sections and the mathematics of a docstring in place, before napoleon reads it.

    Parameters, Attributes and Raises hold entries `name, name : what it is`, Returns and Yields hold prose;
    napoleon would take the text after the colon, and the prose, for types.
    """
    text = _with_math("\n".join(_rewritten(lines)))
    chapters = {_chapter(page): page for page in app.env.found_docs}
    lines[:] = re.sub(INTRODUCED, lambda said: _linked(said, chapters.get(int(said[1]))), text).split("\n")


def _readable_defaults(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Defaults that are no Python, such as `<factory>`, as `...`: Sphinx would not read such a signature."""
    return re.sub(r"<[^<>]*>", "...", signature) if signature else signature, returns


def _skip_tuple_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a named tuple, which its docstring lists with what they mean."""
    return True if (getattr(obj, "__doc__", "") or "").startswith("Alias for field number") else None


def _with_math(text: str) -> str:
    r"""The text with `$$...$$` and `$...$`, as in the chapters, in the form Sphinx reads.

    >>> print(_with_math(r"the mask $\hat y$"))
    the mask :math:`\hat y`
    """

    def displayed(match: re.Match[str]) -> str:
        indent, equation = match[1], " ".join(match[2].split())
        return f"\n{indent}.. math:: {equation}\n"

    text = re.sub(r"^( *)\$\$(.+?)\$\$", displayed, text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\$([^$\n]+)\$", r":math:`\1`", text)


def _rewritten(lines: list[str]) -> Iterator[str]:
    """The lines with the sections above as rubrics, entries as a definition list.

    >>> print(*_rewritten(["Parameters", "---", "a, b : two", "    numbers."]), sep="\\n")
    <BLANKLINE>
    .. rubric:: Parameters
    <BLANKLINE>
    ``a``, ``b``
        two
        numbers.
    """
    section, underline, in_entry = "", None, False
    for line, below in zip(lines, [*lines[1:], ""], strict=False):
        if re.fullmatch("-{3,}", below) and line.strip():
            section, underline = line, below
            yield from ("", f".. rubric:: {line}", "") if line in _ENTRIES + _PROSE else (line,)
        elif line == underline and section in _ENTRIES + _PROSE:
            underline = None
        elif section in _ENTRIES and (entry := re.fullmatch(r"([\w.*]+(?:, [\w.*]+)*) : (.+)", line)):
            role = ":exc:`.{}`" if section == "Raises" else "``{}``"
            yield ", ".join(role.format(name) for name in entry[1].split(", "))
            yield f"    {entry[2]}"
            in_entry = True
        else:
            in_entry = in_entry and bool(line)
            yield f"    {line}" if in_entry and not line.startswith(" ") else line
