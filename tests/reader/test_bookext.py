from types import SimpleNamespace

import plotly.graph_objects as go
from docutils import nodes
from sphinx.addnodes import pending_xref

from cxr_tutorial.reader import bookext
from cxr_tutorial.reader.bookext import PLOTLY_MIME, PlotlyRenderer, package_fingerprint
from cxr_tutorial.reader.figures import figure_layout


def render(figure, cell=0, mime=PLOTLY_MIME):
    data = SimpleNamespace(mime_type=mime, content=figure.to_dict(), cell_index=cell, output_index=0)
    return PlotlyRenderer.handle_mime(SimpleNamespace(source="book/02.ipynb"), data, False)


def test_a_figure_becomes_html_that_needs_no_network():
    figure = go.Figure(go.Scatter(y=[1, 2])).update_layout(**figure_layout(alt='rises by "1" < 2'))
    [node] = render(figure)
    html = node.astext()
    assert 'role="figure" aria-label="rises by &quot;1&quot; &lt; 2"' in html
    assert "Plotly.newPlot" in html
    assert "http" not in html
    assert len(html) < 10_000  # plotly's own code is shared, not inlined


def test_the_same_figure_twice_gets_two_ids():
    figure = go.Figure()
    assert render(figure, cell=0)[0].astext() != render(figure, cell=1)[0].astext()


def test_other_outputs_are_left_to_others():
    assert render(go.Figure(), mime="text/html") is None


def test_the_fingerprint_follows_the_real_data_folder(monkeypatch):
    monkeypatch.delenv("CXR_DATA", raising=False)
    without = package_fingerprint()
    assert without == package_fingerprint()
    monkeypatch.setenv("CXR_DATA", "elsewhere")
    assert package_fingerprint() != without


def test_the_fingerprint_follows_the_code(tmp_path, monkeypatch):
    (tmp_path / "reader").mkdir()
    monkeypatch.setattr(bookext, "__file__", str(tmp_path / "reader/bookext.py"))
    before = package_fingerprint()
    (tmp_path / "figures.py").write_text("INK = 'red'")
    assert package_fingerprint() != before


APP = SimpleNamespace(env=SimpleNamespace(found_docs={"book/intro", "book/04-kltv"}, docname="book/04-kltv"))


def rewritten(text):
    lines = text.strip("\n").split("\n")
    bookext._house_style(APP, "function", "f", None, None, lines)
    return "\n".join(lines)


def test_prose_after_returns_is_not_taken_for_a_type():
    text = rewritten("One line.\n\nReturns\n-------\nA scalar, or\n(N, C) values.")
    assert ".. rubric:: Returns\n\nA scalar, or\n(N, C) values." in text
    assert "---" not in text


def test_errors_are_links():
    assert ":exc:`.InputError`\n    a bad name." in rewritten("Raises\n------\nInputError : a bad name.")


def test_a_doctest_after_the_entries_is_no_entry():
    assert rewritten("Raises\n------\nInputError : bad.\n\n>>> f(0) : 1").endswith("    bad.\n\n>>> f(0) : 1")


def test_other_sections_and_code_are_left_alone():
    text = "One.\n\nExamples\n--------\n>>> x : int = 1\n"
    assert rewritten(text) == text.strip("\n")


def test_displayed_equations_keep_their_indent():
    assert rewritten("Sum:\n\n  $$a\n  = b$$\n\nand $c$") == "Sum:\n\n\n  .. math:: a = b\n\n\nand :math:`c`"


def test_a_name_without_docstring_passes():
    lines: list[str] = []
    bookext._house_style(APP, "data", "NAME", None, None, lines)
    assert lines == [""]


def test_a_default_that_is_no_python_is_three_dots():
    read = bookext._readable_defaults
    assert read(APP, "class", "C", None, None, "(a: int = <factory>)", "int") == ("(a: int = ...)", "int")
    assert read(APP, "class", "C", None, None, None, None) == (None, None)


def test_a_docstring_links_to_its_chapter_if_the_book_has_it():
    assert rewritten("Introduced in chapter 4.") == "Introduced in :doc:`chapter 4 </book/04-kltv>`."
    assert rewritten("Introduced in chapter 5.") == "Introduced in chapter 5."


def test_a_chapter_ends_with_links_to_what_it_introduces():
    def linked_at_the_end_of(*sections):
        page = nodes.section("", *(nodes.section("", names=[name]) for name in sections))
        bookext._name_what_is_introduced(APP, page)
        return [link["reftarget"] for link in page.children[-1].findall(pending_xref)]

    assert "cxr_tutorial.losses.kl_tversky" in linked_at_the_end_of("summary", "next")
    assert linked_at_the_end_of("next", "summary") == []
    assert linked_at_the_end_of("summary") == []


def test_a_link_to_a_term_says_what_it_means():
    meaning = nodes.paragraph("", "", nodes.Text("The share\nof "), nodes.math("", r"\mu"), nodes.Text(" rays."))
    item = nodes.definition_list_item("", nodes.term("", ids=["term-x"]), nodes.definition("", meaning))
    env = SimpleNamespace(found_docs={"book/glossary"}, get_doctree=lambda page: nodes.section("", item))
    links = nodes.paragraph(
        "", "", nodes.reference(refuri="glossary.html#term-x"), nodes.reference(refuri="https://example.org")
    )
    bookext._tell_terms(SimpleNamespace(env=env), links, "book/01-x")
    assert [link.get("reftitle") for link in links.findall(nodes.reference)] == ["The share of … rays.", None]
