"""What the book needs of Sphinx beyond its settings.

- A paragraph in italics directly after a figure or table is its caption; it becomes the figure's text
  alternative too, so that a caption is written once and also shows in Colab.
- Thebe, which jupyter-book declares on every page and which wants a server elsewhere, is removed.
- A page without vendored MathJax or mermaid says so instead of asking another host.
- Roles, lists and heads of tables that screen readers cannot make sense of are mended; verdicts in tables are badges.
- The first use of each term of the glossary on a page links to it; a number and its % stay on one line.
- The old address of a page that moved leads to the new one.
- Under its title each notebook page says how long the notebook ran when the page was made. ``{runs}`` names
  notebooks, one or more, and shows the time of all together; ``{{ machine }}`` shows what they ran on.
"""

import os
import platform
import re
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx import addnodes
from sphinx.util.logging import getLogger
from sphinxcontrib.mermaid import mermaid

LOGGER = getLogger(__name__)

# A vendored part, the nodes that need it, and what a page shows without it.
PARTS = (
    ("MathJax", (nodes.math, nodes.math_block), "formulas stand as TeX"),
    ("Mermaid", (mermaid,), "a drawing stands as its source, and its caption says what it shows"),
)


def caption_figures(app, doctree) -> None:
    """Give the picture of a cell the text of the italic paragraph that follows the cell."""
    for paragraph in doctree.findall(nodes.paragraph):
        if len(paragraph) != 1 or not isinstance(paragraph[0], nodes.emphasis):
            continue
        before = paragraph.parent[: paragraph.parent.index(paragraph)][-1:]
        if not before:
            continue
        images = list(before[0].findall(nodes.image))
        drawn = any(
            "<table" in raw.astext() or "<svg" in raw.astext()
            for raw in before[0].findall(nodes.raw)
        )
        if images or drawn or before[0].tagname == "mermaid":
            paragraph["classes"].append("figure-caption")
        for image in images:
            image["alt"] = paragraph.astext()


GLOSSARY, WITHOUT_LINKS = (
    "book/glossary",
    ("book/glossary", "book/api", "book/bibliography", "book/teaching"),
)
UNLINKED = (
    nodes.title,
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.caption,
    addnodes.pending_xref,
)


def terms_of(app) -> dict[str, str]:
    """The terms of the glossary, each under its small letters."""
    page = Path(app.srcdir) / f"{GLOSSARY}.md"
    lines = (
        page.read_text(encoding="utf-8").split("```{glossary}")[1].splitlines()
        if page.is_file()
        else []
    )
    return {line.lower(): line for line in lines if line[:1].isalnum()}


def link_terms(app, doctree) -> None:
    """Make the first use of each term of the glossary a link to it, once on a page."""
    terms = {} if app.env.docname.startswith(WITHOUT_LINKS) else terms_of(app)
    if not terms:
        return
    longest_first = sorted(terms, key=len, reverse=True)
    use = re.compile(
        rf"(?<![\w-])({'|'.join(map(re.escape, longest_first))})(?:e?s)?(?![\w-])", re.IGNORECASE
    )
    for text in list(doctree.findall(nodes.Text)):
        above = text.parent
        while above is not None and not isinstance(above, (nodes.paragraph, *UNLINKED)):
            above = above.parent
        if not isinstance(above, nodes.paragraph):
            continue
        parts, end = [], 0
        for found in use.finditer(str(text)):
            term = terms.pop(found.group(1).lower(), None)
            if term is not None:
                link = addnodes.pending_xref(
                    "",
                    nodes.inline("", found.group(), classes=["std-term"]),
                    refdomain="std",
                    reftype="term",
                    reftarget=term,
                    refexplicit=True,
                    refwarn=True,
                    refdoc=app.env.docname,
                )
                parts += [nodes.Text(str(text)[end : found.start()]), link]
                end = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(str(text)[end:])])


def keep_together(app, doctree) -> None:
    """A number and its per cent sign stay on one line."""
    for text in list(doctree.findall(nodes.Text)):
        if re.search(r"\d %", text) and not isinstance(
            text.parent, (nodes.literal, nodes.literal_block, nodes.raw)
        ):
            text.parent.replace(text, nodes.Text(re.sub(r"(\d) %", "\\1\u00a0%", str(text))))


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
    config.html_context["vendored"] = (
        {p.name for p in vendor.iterdir()} if vendor.is_dir() else set()
    )
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


# A table of pandas names its index in a second row of its head, and leaves all other cells there empty.
NAME_BELOW = re.compile(
    r'<th class="blank level0" >&nbsp;</th>((?:(?!</thead>).)*?)</tr>\s*<tr>\s*'
    r'(<th class="index_name level0" >[^<]*</th>)(?:\s*<th class="blank col\d+" >&nbsp;</th>)+\s*</tr>',
    re.DOTALL,
)
EMPTY = re.compile(r'<th( class="blank[^"]*")? *>(?:&nbsp;)?</th>')


def mend_tables(app, pagename, templatename, context, doctree) -> None:
    """The head of a table has no empty cells, which a screen reader would read out."""
    if "body" in context:
        context["body"] = EMPTY.sub(r"<td\1></td>", NAME_BELOW.sub(r"\2\1</tr>", context["body"]))


VERDICTS = (
    "confirmed",
    "contradicted",
    "equivalent",
    "inconclusive",
    "ambiguous",
    "not testable here",
    "not run yet",
)
TABLE = re.compile(r"<table\b(?:(?!</table>).)*<th[^>]*>verdict</th>.*?</table>", re.DOTALL)


def mark_verdicts(app, pagename, templatename, context, doctree) -> None:
    """In a table of verdicts each verdict is a badge, and each cell knows its column, for screens without room for heads."""
    if "body" in context:
        context["body"] = TABLE.sub(lambda match: marked(match[0]), context["body"])


def marked(html: str) -> str:
    """A table of verdicts, marked."""
    table = BeautifulSoup(html, "html.parser").table
    table["class"] = [*table.get("class", []), "verdicts"]
    heads = [cell.get_text() for cell in table.thead.tr.find_all(["th", "td"])]
    for row in table.tbody.find_all("tr"):
        for head, cell in zip(heads, row.find_all(["th", "td"])):
            cell["data-label"] = head.strip()
            verdict = next((word for word in VERDICTS if cell.get_text().startswith(word)), None)
            if head == "verdict" and verdict:
                cell["data-verdict"] = verdict
                text = cell.find(string=True)
                badge = BeautifulSoup("", "html.parser").new_tag("span", attrs={"class": "verdict"})
                badge.string = verdict
                text.replace_with(badge, text.removeprefix(verdict))
    return str(table)


def link_footer(app, pagename, templatename, context, doctree) -> None:
    """The foot of every page leads to the page of licences, by a path from where it stands."""
    page, title = "book/licences", "Data and licences"
    if page in app.env.found_docs:
        link = f'<a href="{context["pathto"](page)}">{title}</a>'
        context["theme_extra_footer"] = context["theme_extra_footer"].replace(
            f"<em>{title}</em>", link
        )


# Pages that stand elsewhere now: old address -> new one.
MOVED = {
    "notebooks/basics/hearts": "notebooks/build/pixels_and_a_first_dice",
    "notebooks/architectures/unet": "notebooks/build/the_unet",
    "notebooks/basics/loss": "notebooks/build/the_loss",
    "notebooks/basics/training": "notebooks/build/batches_and_the_loop",
}
FORWARD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>This page has moved</title>
<meta http-equiv="refresh" content="0; url={to}"><link rel="canonical" href="{to}"></head>
<body><main><p>This page has moved: <a href="{to}">{to}</a></p></main></body></html>
"""


def forward_old_addresses(app, problem) -> None:
    """Write a page at each old address that leads to the new one."""
    if problem or app.builder.format != "html":
        return
    for old, new in MOVED.items():
        if new in app.env.found_docs and old not in app.env.found_docs:
            page = Path(app.outdir) / f"{old}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            to = "../" * old.count("/") + f"{new}.html"
            page.write_text(FORWARD.format(to=to), encoding="utf-8")


class runs(nodes.inline):
    """Stands for the time of the notebooks in ``docnames`` until all pages have been read."""


def runs_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role ``{runs}``: names of notebooks with spaces between them."""
    return [runs(docnames=text.split())], []


def seconds(env, docname: str) -> float | None:
    """How long a notebook ran when it was last executed; None for what is not one."""
    return (getattr(env, "nb_metadata", {}).get(docname, {}).get("exec_data") or {}).get("runtime")


def in_words(time: float) -> str:
    return f"{max(1, round(time))} s" if time < 90 else f"{time / 60:.1f} min"


def say_how_long(app, doctree) -> None:
    """Under the title: how long the notebook ran, and whether something was trained meanwhile."""
    title, time = doctree.next_node(nodes.title), seconds(app.env, app.env.docname)
    if not title or time is None:
        return
    code = "\n".join(block.astext() for block in doctree.findall(nodes.literal_block))
    meanwhile = ", a small training included" if re.search(r"\bfit\(|\.step\(\)", code) else ""
    tiny = ", its live parts made tiny" if os.environ.get("CMRSEG_BUDGET") == "smoke" else ""
    said = f"Ran in {in_words(time)} on one core when this page was made{meanwhile}{tiny}."
    title.parent.insert(
        title.parent.index(title) + 1, nodes.paragraph("", said, classes=["how-long"])
    )


def close_predicted_outputs(app, doctree) -> None:
    """Where a paragraph asks the reader to predict what a cell prints, the output waits for a click."""
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code" or cell.get("hide_mode"):
            continue
        place = cell.parent.index(cell)
        before = cell.parent[place - 1] if place else None
        if isinstance(before, nodes.paragraph) and any(
            strong.astext().startswith("Predict") for strong in before.findall(nodes.strong)
        ):
            cell["hide_mode"] = "output"
            cell["prompt_show"], cell["prompt_hide"] = (
                "Show what it prints or draws",
                "Hide it again",
            )


def fill_in_times(app, doctree, docname) -> None:
    """Put the times where the role ``{runs}`` stands."""
    for node in list(doctree.findall(runs)):
        times = [seconds(app.env, name) for name in node["docnames"]]
        if unknown := [name for name in node["docnames"] if name not in app.env.found_docs]:
            LOGGER.warning("runs: no such page: %s", ", ".join(unknown), location=node)
        node.replace_self(nodes.Text("not run" if None in times else in_words(sum(times))))


def name_the_machine(app, config) -> None:
    config.myst_substitutions = {**getattr(config, "myst_substitutions", {}), "machine": machine()}


def machine() -> str:
    """Cores and processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores, {processor}"


def setup(app) -> dict:
    app.add_node(runs)
    app.add_role("runs", runs_role)
    app.connect("doctree-read", caption_figures)
    app.connect("doctree-read", keep_together)
    app.connect("doctree-read", link_terms)
    app.connect("doctree-read", say_how_long)
    app.connect("doctree-read", close_predicted_outputs)
    app.connect("doctree-resolved", fill_in_times)
    app.connect("config-inited", name_the_machine)
    app.connect("config-inited", drop_thebe, priority=990)
    app.connect("config-inited", use_what_is_vendored, priority=991)
    app.connect("html-page-context", note_what_is_missing, priority=990)
    app.connect("html-page-context", mend_roles, priority=991)
    app.connect("html-page-context", mend_tables, priority=991)
    app.connect("html-page-context", mark_verdicts, priority=992)
    app.connect("html-page-context", link_footer, priority=991)
    app.connect("build-finished", forward_old_addresses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
