"""What the book needs of Sphinx beyond its settings.

- A paragraph in italics directly after a figure or table is its caption; it becomes the figure's text
  alternative too, so that a caption is written once and also shows in Colab.
- Thebe, which jupyter-book declares on every page and which wants a server elsewhere, is removed.
- A page without vendored MathJax or mermaid says so instead of asking another host.
- Roles and lists that screen readers cannot make sense of are mended.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinxcontrib.mermaid import mermaid

# A vendored part, the nodes that need it, and what a page shows without it.
PARTS = (("MathJax", (nodes.math, nodes.math_block), "formulas stand as TeX"),
         ("Mermaid", (mermaid,), "a drawing stands as its source, and its caption says what it shows"))


def caption_figures(app, doctree) -> None:
    """Give the picture of a cell the text of the italic paragraph that follows the cell."""
    for paragraph in doctree.findall(nodes.paragraph):
        if len(paragraph) != 1 or not isinstance(paragraph[0], nodes.emphasis):
            continue
        before = paragraph.parent[: paragraph.parent.index(paragraph)][-1:]
        if not before:
            continue
        images = list(before[0].findall(nodes.image))
        table = any("<table" in raw.astext() for raw in before[0].findall(nodes.raw))
        if images or table or before[0].tagname == "mermaid":
            paragraph["classes"].append("figure-caption")
        for image in images:
            image["alt"] = paragraph.astext()


def disconnect(app, module: str) -> None:
    """Take an extension's hands off the pages: forget the listeners that come from its module."""
    for listeners in app.events.listeners.values():
        listeners[:] = [entry for entry in listeners if module not in entry.handler.__module__]


def drop_thebe(app, config) -> None:
    """Disconnect what sphinx_thebe hooked up."""
    disconnect(app, "thebe")
    app.registry.css_files[:] = [f for f in app.registry.css_files if "thebe" not in f[0]]


def use_what_is_vendored(app, config) -> None:
    """See which of the vendored parts are here; without mermaid, load none of it."""
    vendor = Path(app.confdir) / "vendor"
    config.html_context["vendored"] = {p.name for p in vendor.iterdir()} if vendor.is_dir() else set()
    if "mermaid" not in config.html_context["vendored"]:
        disconnect(app, "sphinxcontrib.mermaid")


def note_what_is_missing(app, pagename, templatename, context, doctree) -> None:
    """Where MathJax or mermaid is missing, the page says what stands there instead."""
    here = app.config.html_context["vendored"]
    if "mathjax" not in here:
        context["script_files"] = [s for s in context["script_files"] if "mathjax" not in str(s)]
    for name, kinds, stands in PARTS:
        if name.lower() not in here and doctree is not None and any(map(doctree.next_node, kinds)):
            note = f"{name} was not at hand when this book was built (it comes with npm): {stands}."
            context["body"] = f'<p class="missing-part">{note}</p>' + context["body"]


def mend_roles(app, pagename, templatename, context, doctree) -> None:
    """The bibliography is a list for screen readers too: its children must be the list's items."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
    if pagename == "_modules/index":  # its lists stand in lists, and belong into their items
        body = context["body"].replace("</li>\n<ul>", "\n<ul>")
        context["body"] = body.replace("</ul><li>", "</ul></li>\n<li>")


def setup(app) -> dict:
    app.connect("doctree-read", caption_figures)
    app.connect("config-inited", drop_thebe, priority=990)
    app.connect("config-inited", use_what_is_vendored, priority=991)
    app.connect("html-page-context", note_what_is_missing, priority=990)
    app.connect("html-page-context", mend_roles, priority=991)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
