"""The book's house: pairs, table of contents, the one address, the one set of colours.

What makes each test fail (each was seen to fail):

- pairs: change a word in a notebook's .py and do not run `make pairs`
- outputs: add an output to a cell of a committed .ipynb
- contents: remove a line of _toc.yml, or name a page there that is not
- first cell: change the address in one notebook
- address: name it in a file that tools/address.py does not know, or drop one of those from its list; drop
  its check of the form
- Colab's button: in _config.yml, change the branch or drop launch_buttons, and build
- no tight pins: in pyproject.toml, torch==2.13.0 or numpy<3
- workflows: misspell a make target in one, drop an action's version, or indent a line wrongly
- questions: give one two answers that hold, or none
- citation, changelog: change the version in CITATION.cff; rename the section [Unreleased]
- short functions: add lines to a function in a notebook until it has eleven
- exercises: rename a solution's label
- colours: change --class-rv in book.css
- nothing foreign: name a package registry's host in a page
- other hosts: set mermaid_use_local to nothing in _config.yml, and build
- no stray words: drop the `;` after the last line of a figure's cell in a notebook
- quotations: change a number in report-2020.md
- cache: in tools/prepare.py, ``changed = ...`` -> ``False`` or ``True``
- run beforehand: in execute(), add no notebook to the project, or ``for again in ("",)``
- second try: in pyproject.toml, drop --reruns or --only-rerun
- ignored files: git add -f a file under results/.locks
- missing parts: in book_pages.py, do not disconnect mermaid, or name a part that is never missing
- worst slices: in tools/worst.py, ``nsmallest`` -> ``nlargest``, or swap two names' masks
- tables: in book_pages.py, drop ``NAME_BELOW.sub`` or ``EMPTY.sub``
- per cent: in book_pages.py, do not connect keep_together, or without nodes.literal
- terms: in book_pages.py, do not connect link_terms; ``terms.pop(`` -> ``terms.get(``; nodes.title not UNLINKED
- footer: in book_pages.py, do not connect link_footer; ``page in app.env.found_docs`` -> ``False``
- captions: in a notebook, go on in the paragraph of a caption, or cite something in it
- predicted: in book_pages.py, do not connect close_predicted_outputs, or without its condition
- how long: in book_pages.py, do not connect say_how_long or fill_in_times, or sum only the first time
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import jupytext
import nbformat
import pandas as pd
import pytest
import yaml

import cmrseg
from cmrseg import data, metrics, rle
from cmrseg.plots import CLASS_COLOURS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import address as address_tool  # noqa: E402
import book_pages  # noqa: E402
import prepare  # noqa: E402
import worst  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.py"))
TEXT = {".cff", ".ipynb", ".md", ".py", ".toml", ".yml", ".txt", ".js", ".css", ".json", ""}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]


def address() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def test_each_notebook_has_its_pair_and_both_say_the_same():
    assert NOTEBOOKS
    answer = subprocess.run([sys.executable, ROOT / "tools" / "pairs.py", "--check"],
                            capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout
    assert {p.with_suffix("") for p in NOTEBOOKS} == {
        p.with_suffix("") for p in (ROOT / "notebooks").rglob("*.ipynb")
        if ".ipynb_checkpoints" not in p.parts}


@every_notebook
def test_outputs_are_not_committed(path):
    for cell in json.loads(path.with_suffix(".ipynb").read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_the_table_of_contents_lists_every_page_once():
    text = (ROOT / "_toc.yml").read_text()
    listed = re.findall(r"(?:file|root): (\S+)", text)
    pages = [p for p in (ROOT / "book").rglob("*.md") if "_ext" not in p.parts] + NOTEBOOKS
    assert sorted(listed) == sorted(str(p.relative_to(ROOT).with_suffix("")) for p in pages)


@every_notebook
def test_the_first_code_cell_is_the_same_everywhere_and_names_the_address(path):
    first = code_of(path)[0]
    if path.stem == "whole":  # a script as well, which installs nothing outside Colab
        first = first.replace(' and "google.colab" in sys.modules', "")
    assert first == code_of(NOTEBOOKS[0])[0]
    assert re.findall(r"https://\S+?(?=\")", first) == [address()]


def test_the_address_stands_alike_in_every_copy():
    assert yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"] == address()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == address()
    pairs = [p.with_suffix(".ipynb") for p in NOTEBOOKS]
    known = [ROOT / "pyproject.toml", *address_tool.places(), *pairs]
    naming = {p for p in tracked() if p.suffix in TEXT and address() in p.read_text()}
    assert naming == set(known)


def test_a_new_address_reaches_every_copy_and_a_wrong_one_none(tmp_path, monkeypatch, capsys):
    for name in ("pyproject.toml", *address_tool.FILES, "notebooks"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(address_tool, "ROOT", tmp_path)
    new, project = "https://github.com/somebody/some-book", tmp_path / "pyproject.toml"
    for wrong in (new + ".git", new + "/", "github.com/somebody/some-book"):
        project.write_text((ROOT / "pyproject.toml").read_text().replace(address(), wrong))
        with pytest.raises(SystemExit) as stop:
            address_tool.main()
        assert stop.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
        assert address() in (tmp_path / "_config.yml").read_text()
    project.write_text((ROOT / "pyproject.toml").read_text().replace(address(), new))
    address_tool.main()
    for path in address_tool.places():
        assert address() not in path.read_text() and new in path.read_text()


def test_the_button_of_every_notebook_page_opens_its_notebook():
    built = ROOT / "_build" / "html" / "notebooks"
    if not built.is_dir():
        pytest.skip("no book is built here: make book")
    for path in built.rglob("*.html"):
        name = path.relative_to(built.parent).with_suffix(".ipynb")
        if str(name.with_suffix("")) in book_pages.MOVED:  # it only leads on
            continue
        place = f"{address().removeprefix('https://github.com/')}/blob/main/{name}"
        assert f'href="https://colab.research.google.com/github/{place}"' in path.read_text(), name
        assert (ROOT / name).is_file()


def test_the_package_takes_the_torch_and_numpy_that_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in project["dependencies"]:
        assert not re.search(r"==|~=|<", wanted), wanted


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflows_can_be_read_and_ask_make_for_what_it_knows(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["name"] == path.stem and workflow["permissions"]
    assert workflow[True]  # what YAML makes of "on"
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["steps"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
            assert set(re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))) <= targets()


def test_what_pages_and_workflows_ask_of_make_is_there():
    pages = [*WORKFLOWS, ROOT / ".ci" / "run", ROOT / "README.md", *(ROOT / "book").glob("*.md")]
    text = "\n".join(path.read_text() for path in pages)
    asked = set(re.findall(r"(?:^|`|: |=\w+ )make ([a-z-]+)", text, re.M))
    assert {"book", "test", "data"} <= asked <= targets()


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cmrseg.__version__
    for reference in [citation, *citation["references"]]:
        assert {"title", "authors", "type"} <= set(reference)
    assert {"cff-version", "message", "license", "keywords", "abstract"} <= set(citation)
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), re.M)


@every_notebook
def test_functions_in_notebooks_are_short(path):
    source = "\n".join(re.sub(r"^[!%].*$", "", cell, flags=re.M) for cell in code_of(path))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            lines = ast.unparse(node).splitlines()  # one for each statement, however it is wrapped
            most = 30 if path.parent.name == "build" else 10  # there they are what the page is about
            assert len(lines) <= most, f"{node.name} has over {most} lines"


@every_notebook
def test_each_notebook_ends_with_something_to_try(path):
    text = path.read_text()
    exercises = re.findall(r"\{exercise\}.*\n# :label: (\S+)", text)
    assert exercises and exercises == re.findall(r"\{solution(?:-start)?\} (\S+)", text)
    assert executed_solutions(text)
    if path.parent.name != "build":  # whose frame has a test of its own
        assert text.index("## What to conclude") < text.index("## Try")


def executed_solutions(text):
    """The cells of code that stand in a solution; all of them run with the notebook."""
    return re.findall(r"\{solution-start\}(?:(?!solution-end).)*?^# %%(?! \[markdown)", text, re.M | re.S)


def test_there_are_forty_exercises_whose_solutions_run():
    assert sum(len(executed_solutions(path.read_text())) for path in NOTEBOOKS) >= 40


@every_notebook
def test_each_question_has_one_answer_that_holds(path):
    for question in re.split(r"^# \*\*\d\.\*\* ", path.read_text(), flags=re.M)[1:]:
        first_words = re.findall(r"</summary><p>(\w+)", question.replace("\n# ", " "))
        assert len(first_words) == 3 == question.count('<details class="answer">')
        assert first_words.count("Yes") == 1


def test_class_colours_are_the_same_in_figures_and_pages():
    css = (ROOT / "book" / "assets" / "book.css").read_text()
    for name, colour in CLASS_COLOURS.items():
        assert f"--class-{name.lower()}: {colour.lower()};" in css


LOADS = re.compile(r"""
    <(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=["']((?:https?:)?//[^"']+)
    | <object\b[^>]*?\sdata=["']((?:https?:)?//[^"']+)
    | <link\b(?=[^>]*rel=["'](?:stylesheet|preload|modulepreload|icon|shortcut\ icon|manifest))[^>]*?
      \shref=["']((?:https?:)?//[^"']+)
    | (?:\bimport\s*\(?|\bfrom)\s*["'](https?://[^"']+)
    | (?:@import\s+|url\()["']?((?:https?:)?//[^"')]+)""", re.X)


def test_built_pages_load_nothing_from_another_host():
    built = ROOT / "_build" / "html"
    pages = [p for p in built.rglob("*.html") if "_static" not in p.parts]
    if not pages:
        pytest.skip("no book is built here: make book")
    for path in [*pages, *built.rglob("*.css")]:
        found = LOADS.search(path.read_text())
        assert not found, f"{path.relative_to(built)}: {found[0][:200]}"


REPRESENTATION = re.compile(r"&lt;(?:Axes|Figure|matplotlib|function|module|\w+(?:\.\w+)+) ?[^&]*&gt;|\bText\(\d|"
                            r"PathCollection|Line2D\(|\bat 0x[0-9a-f]{6,}")


def test_built_pages_show_no_representation_of_an_object():
    """Such as ``Text(0, 0.5, ...)``, what a cell says whose last line draws."""
    pages, faults = sorted((ROOT / "_build" / "html" / "notebooks").rglob("*.html")), []
    if not pages:
        pytest.skip("no book is built here: make book")
    for page in pages:
        for output in re.findall(r'<div class="output[^"]*text_plain.*?</pre>', page.read_text(), re.DOTALL):
            if found := REPRESENTATION.search(output):
                faults.append(f"{page.name}: {found[0]}")
    assert not faults


@pytest.mark.parametrize("printed", ["Text(0, 0.5, 'x')", "&lt;Axes: title={}&gt;", "&lt;matplotlib.lines.Line2D at 0x7f00aa11bb22&gt;"])
def test_a_representation_of_an_object_is_known_as_one(printed):
    assert REPRESENTATION.search(printed) and not REPRESENTATION.search("Dice 0.86 &lt; 0.9, 12 &gt; 3")


def test_a_verdict_in_a_table_is_a_badge_and_its_cells_know_their_columns():
    table = pd.DataFrame({"verdict": ["confirmed (asked late)", "inconclusive"], "we found": ["+0.1", "0.0"]}, index=["A", "B"])
    html = book_pages.marked(table.to_html())
    assert '<td data-label="verdict" data-verdict="confirmed"><span class="verdict">confirmed</span> (asked late)</td>' in html
    assert '<td data-label="we found">+0.1</td>' in html and 'class="dataframe verdicts"' in html


def test_the_worst_slices_are_shown_as_a_network_draws_them(real):
    recorded, slices = worst.worst(), data.load(real, "labelled")
    drawn = rle.read_submission(worst.OUT)
    assert set(drawn) == set(recorded.index)
    for name, dice in recorded.items():
        again = metrics.mean(metrics.dice(drawn[name][None], slices.masks[slices.names.index(name)][None]))
        assert again == pytest.approx(dice, abs=0.2)  # another machine, another rounding


@pytest.mark.parametrize("named", [True, False])
def test_the_head_of_a_table_has_no_empty_cell(named):
    table = pd.DataFrame({"runs": [5, 2], "dice": [0.81, 0.79]}, index=pd.Index(["relu", "tanh"]))
    table = table.rename_axis("setting") if named else table
    for html in (table.style.to_html(), table.to_html()):
        context = {"body": html}
        book_pages.mend_tables(None, "a page", "", context, None)
        found = ElementTree.fromstring(re.search("<table.*</table>", context["body"], re.DOTALL)[0])
        assert all(cell.text and cell.text.strip() for cell in found.iter("th"))
        rows = [[(cell.text or "").strip() for cell in row] for row in found.iter("tr")]
        assert [row[0] for row in rows[-2:]] == ["relu", "tanh"] and all(len(row) == 3 for row in rows)
        if named and html.startswith("<style"):
            assert len(rows) == 3 and rows[0] == ["setting", "runs", "dice"]


def configure(folder, parsers="'myst_parser'", settings=""):
    """Make a folder a small book that has what book_pages adds."""
    (folder / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        f"extensions = [{parsers}, 'sphinxcontrib.mermaid', 'book_pages']\n{settings}")


def test_without_vendored_parts_a_page_loads_none_and_says_so(tmp_path):
    configure(tmp_path, "'myst_parser', 'sphinx.ext.mathjax'",
              "myst_enable_extensions = ['dollarmath']\nmathjax_path = 'mathjax/here.js'\n")
    (tmp_path / "index.md").write_text("# A page\n\n$x$\n\n```{mermaid}\nflowchart LR\n  a --> b\n```\n")
    for vendored in (False, True):
        for part in ("mathjax", "mermaid") if vendored else ():
            (tmp_path / "vendor" / part).mkdir(parents=True)
        out = tmp_path / f"html{vendored}"
        subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "-E", tmp_path, out], check=True)
        page = (out / "index.html").read_text()
        for name, script in (("MathJax", "mathjax/here.js"), ("Mermaid", "import mermaid from")):
            assert (f"{name} was not at hand" in page) is not vendored
            assert (script in page) is vendored


def test_a_number_and_its_per_cent_sign_stay_together(tmp_path):
    configure(tmp_path)
    (tmp_path / "index.md").write_text("# A page\n\nIn 95 % of *5 % of* `3 %`.\n")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", tmp_path, tmp_path / "html"], check=True)
    page = (tmp_path / "html" / "index.html").read_text()
    assert "In 95\u00a0% of <em>5\u00a0% of</em>" in page and "3 %" in re.sub("<.*?>", "", page)


@every_notebook
def test_no_line_of_text_begins_with_a_comment_of_markdown(path):
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "markdown":
            assert not [line for line in cell.source.split("\n") if line.startswith("% ")]


def test_the_first_use_of_a_term_links_to_the_glossary(tmp_path):
    configure(tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "glossary.md").write_text(
        "# Glossary\n\n```{glossary}\nDice\n  A number.\n\nearly stopping\n  Ending at the best epoch.\n\n"
        "stopping\n  An end.\n```\n")
    (tmp_path / "index.md").write_text(
        "# Dice\n\n`Dice` and (*the Dice* of two) dices, Dice.\nEarly stopping, and non-stopping.\n\n"
        "```{toctree}\nbook/glossary\n```\n")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", tmp_path, tmp_path / "html"], check=True)
    page = (tmp_path / "html" / "index.html").read_text()
    links = re.findall(r'<a class="reference internal" href="(book/glossary.html#[^"]*)">'
                       r'<span class="std-term">(.*?)</span>', page)
    assert links == [("book/glossary.html#term-Dice", "Dice"), ("book/glossary.html#term-early-stopping", "Early stopping")]
    assert "(<em>the <a" in page


def test_the_foot_of_a_page_leads_to_the_licences(tmp_path):
    footer = yaml.safe_load((ROOT / "_config.yml").read_text())["html"]["extra_footer"]
    configure(tmp_path, settings=f"html_theme = 'sphinx_book_theme'\nhtml_theme_options = {{'extra_footer': {footer!r}}}\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "licences.md").write_text("# Licences\n")
    (tmp_path / "index.md").write_text("# A page\n\n```{toctree}\nbook/licences\n```\n")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", tmp_path, tmp_path / "html"], check=True)
    for page, path in (("index", "book/licences.html"), ("book/licences", "#")):
        foot = (tmp_path / "html" / f"{page}.html").read_text().split('class="extra_footer"')[1]
        assert f'see <a href="{path}">Data and licences</a>' in foot


def test_a_page_says_how_long_its_notebook_ran(tmp_path, monkeypatch):
    monkeypatch.delenv("CMRSEG_BUDGET", raising=False)
    configure(tmp_path, "'myst_nb'", "myst_enable_extensions = ['substitution']\n")
    for name, code in (("still", "import time; time.sleep(1)"), ("trained", "fit = abs\nfit(1)")):
        cells = [nbformat.v4.new_markdown_cell("# A page"), nbformat.v4.new_code_cell(code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    (tmp_path / "index.md").write_text(
        "# Times\n\nOne {runs}`still`, two {runs}`still trained`, on {{ machine }}.\n\n"
        "```{toctree}\nstill\ntrained\n```\n")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", tmp_path, tmp_path / "html"], check=True)
    said = r'<p class="how-long">Ran in (\d+) s on one core when this page was made(.*?)\.</p>'
    (still,), (trained,) = (re.findall(said, (tmp_path / "html" / f"{name}.html").read_text())
                            for name in ("still", "trained"))
    assert (still[1], trained[1]) == ("", ", a small training included")
    page = (tmp_path / "html" / "index.html").read_text()
    one, two = re.search(r"One (\d+) s, two (\d+) s, on \d+ cores", page).groups()
    assert one == still[0] and abs(int(two) - int(one) - int(trained[0])) <= 1


def test_what_a_reader_is_asked_to_predict_waits_for_a_click(tmp_path):
    configure(tmp_path, "'myst_nb'")
    cells = [nbformat.v4.new_markdown_cell("# A page\n\n**Predict, then run**: what does it print?"),
             nbformat.v4.new_code_cell("print('the answer')"), nbformat.v4.new_code_cell("print('more')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "index.ipynb")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", tmp_path, tmp_path / "html"], check=True)
    page = (tmp_path / "html" / "index.html").read_text()
    assert page.count("Show what it prints or draws") == 1
    closed = page.split("<details")[1].split("</details>")[0]
    assert "the answer" in closed and "more" not in closed


def numbers(tree) -> set[float]:
    """Every number in what tomllib read."""
    if isinstance(tree, dict):
        return numbers([*tree.values(), *tree])
    if isinstance(tree, list):
        return set().union(*map(numbers, tree)) if tree else set()
    return {float(n) for n in re.findall(r"\d+(?:\.\d+)?", str(tree))}


def test_numbers_quoted_from_the_report_are_those_on_file():
    on_file = numbers(tomllib.loads((ROOT / "results" / "report-2020.toml").read_text()))
    on_file |= {round(n, 3) for n in on_file} | {round(n, 2) for n in on_file}
    quoted = re.findall(r"(?<![\d.])\d\.\d+", (ROOT / "book" / "report-2020.md").read_text())
    assert len(quoted) > 10
    for number in quoted:
        assert float(number) in on_file, number


@every_notebook
def test_a_figure_comes_without_the_name_of_its_last_object(path):
    drawing = r"\w+(\[.*\])?\.(set|plot|legend|ax.line|annotate|bar|hist|imshow|fill_between)\w*\(.*\)"
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "code":
            last = cell.source.rstrip().split("\n")[-1]
            assert last.startswith(" ") or not re.fullmatch(drawing, last), last


def test_the_cache_of_outputs_goes_when_what_they_depend_on_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    monkeypatch.setattr(prepare, "VENDOR", tmp_path / "vendor")
    monkeypatch.setattr(prepare, "PACKAGES", {})
    monkeypatch.setattr(prepare, "execute", lambda: None)
    made = []
    monkeypatch.setattr(prepare.served, "make", lambda folder: made.append(folder) or folder.mkdir(exist_ok=True))
    for name in ("CMRSEG_DATA", "CMRSEG_BUDGET"):
        monkeypatch.delenv(name, raising=False)
    for folder in ("cmrseg", "results", "_build/.jupyter_cache"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text("torch")
    cache = tmp_path / "_build" / ".jupyter_cache"
    prepare.main()
    assert not cache.exists()
    record = tmp_path / "results" / "1.json"
    for change, goes in ((lambda: None, False), (lambda: record.write_text("{}"), True),
                         (lambda: monkeypatch.setenv("CMRSEG_BUDGET", "smoke"), True)):
        cache.mkdir(exist_ok=True)
        change()
        prepare.main()
        assert cache.exists() is not goes
    assert made == 3 * [tmp_path / "_build" / "made"]  # at first, and after each change
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.md").touch()
    os.utime(made[0], (1, 1))
    for _ in range(2):
        prepare.main()
    assert len(made) == 4  # a page is newer than what was made


def test_notebooks_run_once_beforehand(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name, code in (("good", "print(6 * 7)"), ("bad", "1 / 0")):
        cell = nbformat.v4.new_code_cell(code)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / f"{name}.ipynb")
    prepare.execute()
    cache = prepare.get_cache(tmp_path / "_build" / ".jupyter_cache")
    (record,) = cache.list_cache_records()
    said = capsys.readouterr().out.splitlines()
    assert record.uri.endswith("good.ipynb") and said == ["running 2 notebooks", "running 1 notebooks again"]
    assert "42" in str(cache.get_cache_bundle(record.pk).nb.cells[0].outputs)
    assert [r.uri for r in cache.list_unexecuted()] == [str(tmp_path / "notebooks" / "bad.ipynb")]


@pytest.mark.parametrize("problem, status", [("Kernel died before replying to kernel_info", 0), ("anything else", 1)])
def test_a_kernel_whose_port_was_taken_has_a_second_try(problem, status, tmp_path):
    (tmp_path / "test_it.py").write_text(
        f"import pathlib\ndef test_it():\n    note = pathlib.Path({str(tmp_path / 'note')!r})\n    if not note.exists():\n"
        f"        note.touch()\n        raise RuntimeError({problem!r})\n")
    words = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider", tmp_path / "test_it.py"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True).returncode == status


def test_nothing_that_git_ignores_is_committed():
    answer = subprocess.run(["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True,
                            text=True)
    assert answer.stdout == ""


def tracked() -> list[Path]:
    answer = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        pytest.skip("not a git checkout: nothing says which files are ours")
    return [ROOT / name for name in answer.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_path_of_one_machine_and_no_registry_host_is_committed():
    homes = "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers"])
    hosts = ["registry." + "npmjs", "files." + "pythonhosted", "pypi." + "org/simple", "deb." + "debian"]
    pattern = re.compile(rf"(?<![\w.])/(?:{homes})/[a-z]|" + "|".join(map(re.escape, hosts)))
    for path in tracked():
        if path.suffix in (".png", ".safetensors"):
            continue
        found = pattern.search(path.read_text(errors="ignore"))
        assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


def test_no_real_slice_is_committed():
    assert not [p for p in tracked() if re.fullmatch(r"cmr\d+(_mask)?\.png", p.name)]


@every_notebook
def test_what_a_picture_shows_is_told_in_words_without_formulas(path):
    """Captions become the pictures' alternative text, which is read out."""
    cells = jupytext.read(path).cells
    captions = [c.source for c in cells if c.cell_type == "markdown" and re.match(r"\*[^*]", c.source)]
    assert not [c for c in captions if "$" in re.split(r"\.\*|\n\n", c)[0]]
    for cell, after in pairwise(cells):
        if cell.cell_type == "code" and re.search(r"plots\.(panels|show)\(|plt\.(subplots|figure)\(", cell.source):
            caption = after.source.split("\n\n")[0]
            assert re.fullmatch(r"\*[^*].*[^*]\*", caption, re.S) and "{cite}" not in caption, caption
