"""The page that a student gets back: marks with reasons, the notebook as it ran without hidden tests (floor 3)."""

from __future__ import annotations

import copy
import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cxr_tutorial.classroom.sources import HIDDEN, Notebook, is_test

if TYPE_CHECKING:
    from cxr_tutorial.classroom.grade import Graded

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
body { color: #1b1b1b; background: #fff }
table.marks { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem }
.marks th, .marks td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd }
.marks td:nth-child(2) { white-space: nowrap }
pre { background: #f6f6f6; padding: .6rem; overflow-x: auto; font-size: .85rem; line-height: 1.35 }
.input_prompt, .output_prompt, .prompt { display: none }
img { max-width: 100% }
"""


def page(
    name: str,
    graded: Graded,
    given: Mapping[str, float | None] | None = None,
    said: Mapping[str, str] | None = None,
) -> str:
    """One HTML page; `given` holds the points of a person by task, `said` their words."""
    given, said = given or {}, said or {}
    rows, total = [], 0.0
    for mark in graded.marks:
        by_hand = given.get(mark.task)
        points = mark.points if by_hand is None else by_hand
        total += points or 0.0
        words = "passed" if mark.points == mark.of and not mark.words else mark.words
        words = "marked by your teacher" if by_hand is not None else words
        words = "; ".join([words, said[mark.task]]) if mark.task in said else words
        shown = "?" if points is None else f"{points:g}"
        cells = (mark.task, f"{shown} of {mark.of:g}", words)
        rows.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    of = sum(mark.of for mark in graded.marks)
    waiting = sum(mark.of for mark in graded.marks if mark.points is None and given.get(mark.task) is None)
    later = f" ({waiting:g} points are still to be read)" if waiting else ""
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in graded.notes if not note.startswith("worth a look"))
    style, body = _rendered(graded.notebook) if graded.notebook is not None else ("", "")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(name)}: {html.escape(graded.student)}</title>
<style>{STYLE}{style}</style></head><body>
<h1>{html.escape(name)}</h1>
<p><strong>{html.escape(graded.student)}: {total:g} of {of:g} points</strong>{later}.
Your notebook {html.escape(graded.words)}.</p>
{f"<ul>{notes}</ul>" if notes else ""}
<table class="marks"><tr><th>task</th><th>points</th><th>why</th></tr>{"".join(rows)}</table>
{body}
</body></html>
"""


def _rendered(notebook: Notebook) -> tuple[str, str]:
    """Styles and HTML of the notebook: hidden tests are left out, and nothing that a student wrote can run."""
    from nbconvert.exporters import HTMLExporter
    from pygments.formatters import HtmlFormatter

    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if is_test(cell):
            cell.source = _without_hidden(cell.source)
    exporter = HTMLExporter(template_name="basic", sanitize_html=True)
    body, _ = exporter.from_notebook_node(shown)
    return HtmlFormatter().get_style_defs(".highlight"), body


def _without_hidden(source: str) -> str:
    lines, hidden = [], False
    for line in source.splitlines():
        if HIDDEN[0] in line:
            hidden = True
        if not hidden:
            lines.append(line)
        if HIDDEN[1] in line:
            hidden = False
    return "\n".join(lines).rstrip()
