"""What the book needs of Sphinx beyond its settings.

- A paragraph in italics directly after a figure is its caption: it becomes the figure's text
  alternative too, so that a caption is written once and also shows in Colab.
- Thebe, which jupyter-book declares on every page and which wants a server elsewhere, is removed.
- A page without vendored MathJax or mermaid says so instead of asking another host.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes


def caption_figures(app, doctree) -> None:
    """Give the picture of a cell the text of the italic paragraph that follows the cell."""
    for paragraph in doctree.findall(nodes.paragraph):
        if len(paragraph) != 1 or not isinstance(paragraph[0], nodes.emphasis):
            continue
        before = paragraph.parent[: paragraph.parent.index(paragraph)][-1:]
        images = list(before[0].findall(nodes.image)) if before else []
        if images or (before and before[0].tagname == "mermaid"):
            paragraph["classes"].append("figure-caption")
        for image in images:
            image["alt"] = paragraph.astext()


def drop_thebe(app, config) -> None:
    """Disconnect what sphinx_thebe hooked up."""
    for listeners in app.events.listeners.values():
        listeners[:] = [entry for entry in listeners if "thebe" not in entry.handler.__module__]
    app.registry.css_files[:] = [f for f in app.registry.css_files if "thebe" not in f[0]]


def use_what_is_vendored(app, config) -> None:
    """Point MathJax and mermaid at the vendored files, or at nothing."""
    vendor = Path(app.confdir) / "vendor"
    if not (vendor / "mermaid").is_dir():
        config.mermaid_use_local = "data:text/javascript,export default {}"
    config.html_context["has_mathjax"] = (vendor / "mathjax").is_dir()


def note_missing_maths(app, pagename, templatename, context, doctree) -> None:
    """Where MathJax is missing, drop its script and say that formulas stand as TeX."""
    if doctree is None or app.config.html_context.get("has_mathjax"):
        return
    context["script_files"] = [s for s in context["script_files"] if "mathjax" not in str(s)]
    if any(doctree.findall(nodes.math)) or any(doctree.findall(nodes.math_block)):
        note = "MathJax was not at hand when this book was built (it comes with npm): formulas stand as TeX."
        context["body"] = f'<p class="missing-part">{note}</p>' + context["body"]


def setup(app) -> dict:
    app.connect("doctree-read", caption_figures)
    app.connect("config-inited", drop_thebe, priority=990)
    app.connect("config-inited", use_what_is_vendored, priority=991)
    app.connect("html-page-context", note_missing_maths, priority=990)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
