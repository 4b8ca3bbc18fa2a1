"""Sphinx hooks that only the rendered book needs (floor 2).

They make plotly figures work without a network, re-run the chapters when the package changes, and read
docstrings the way this package writes them. `_config.yml` names this module as an extension.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from cxr_tutorial import __version__
from cxr_tutorial.shipped import shipped

PLOTLY_MIME = "application/vnd.plotly.v1+json"
PLOTLY_CLASS = "cxr-plotly"


def setup(app: Any) -> dict[str, Any]:
    """Connect the hooks; Sphinx calls this."""
    app.connect("config-inited", _configure, priority=1)
    app.connect("builder-inited", _copy_plotly)
    app.connect("html-page-context", _load_plotly)
    app.connect("autodoc-process-docstring", _house_style, priority=1)
    return {"version": __version__, "parallel_read_safe": True, "parallel_write_safe": True}


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
    it, and where the real data lies.
    """
    digest = hashlib.sha256(os.environ.get("CXR_DATA", "").encode())
    for folder, pattern in ((Path(__file__).parents[1], "*.py"), (shipped(), "*")):
        for path in sorted(path for path in folder.rglob(pattern) if path.is_file()):
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


_UNDERLINED = re.compile(r"^-{3,}$")


def _house_style(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite the sections of a docstring as field lists, in place.

    Parameters, Attributes and Raises hold entries `name : what it is`, Returns and Yields hold prose;
    numpydoc would take the text after the colon for a type. Everything else is left as it is.
    """
    lines[:] = list(_rewritten(lines))


def _rewritten(lines: list[str]) -> Iterator[str]:
    heading, body = "", list[str]()
    for here, below in zip(lines, [*lines[1:], ""], strict=True):
        if _UNDERLINED.match(below) and here and not here.startswith(" "):
            yield from _section(heading, body)
            heading, body = here, []
        elif not (_UNDERLINED.match(here) and heading and not body):
            body.append(here)
    yield from _section(heading, body)


def _section(heading: str, body: Iterable[str]) -> Iterator[str]:
    rewrite = _SECTIONS.get(heading)
    if rewrite is not None:
        yield from ("", *rewrite(list(body)), "")
    else:
        yield from (heading, "-" * len(heading)) if heading else ()
        yield from body


def _entries(field: str) -> Callable[[list[str]], Iterator[str]]:
    def rewrite(body: list[str]) -> Iterator[str]:
        for line in body:
            if line and not line.startswith(" "):
                names, _, text = line.partition(" : ")
                *others, last = names.split(", ")
                yield from (f":{field} {other}: see ``{last}``." for other in others)
                yield f":{field} {last}: {text}"
            else:
                yield line

    return rewrite


def _prose(field: str) -> Callable[[list[str]], Iterator[str]]:
    def rewrite(body: list[str]) -> Iterator[str]:
        yield f":{field}:"
        yield from (f"    {line}" if line else "" for line in body)

    return rewrite


_SECTIONS: dict[str, Callable[[list[str]], Iterator[str]]] = {
    "Parameters": _entries("param"),
    "Attributes": _entries("ivar"),
    "Raises": _entries("raises"),
    "Returns": _prose("returns"),
    "Yields": _prose("yields"),
}
