"""The book's house: pairs, table of contents, the one address, the one set of colours, what Sphinx is taught."""

import ast
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
from conftest import REPOSITORY as ROOT

import cmrseg
from cmrseg.plots import CLASS_COLOURS

sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import address as address_tool
import book_pages
import prepare

BUILT = ROOT / "_build" / "html"
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.py"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXT = {".cff", ".ipynb", ".md", ".py", ".toml", ".yml", ".txt", ".js", ".css", ".json", ""}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def sources(path: Path, kind: str = "code") -> list[str]:
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == kind]


def address() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
        "Repository"
    ]


def tracked() -> list[Path]:
    answer = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        pytest.skip("not a git checkout: nothing says which files are ours")
    return [ROOT / name for name in answer.stdout.splitlines() if (ROOT / name).is_file()]


# --- the repository --------------------------------------------------------------------------------


def test_each_notebook_has_its_pair_and_both_say_the_same():
    """Byte for byte as written from the .py, and so without outputs."""
    assert NOTEBOOKS
    words = [sys.executable, ROOT / "tools" / "pairs.py", "--check"]
    answer = subprocess.run(words, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout
    pairs = (ROOT / "notebooks").rglob("*.ipynb")
    pairs = [p.with_suffix(".py") for p in pairs if ".ipynb_checkpoints" not in p.parts]
    assert sorted(pairs) == NOTEBOOKS


def test_the_table_of_contents_lists_every_page_once():
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [p for p in (ROOT / "book").rglob("*.md") if "_ext" not in p.parts] + NOTEBOOKS
    assert sorted(listed) == sorted(str(p.relative_to(ROOT).with_suffix("")) for p in pages)


def test_the_first_code_cell_is_the_same_everywhere_and_names_the_address():
    firsts = {path.stem: sources(path)[0] for path in NOTEBOOKS}
    # a script as well, which installs nothing outside Colab
    firsts["whole"] = firsts["whole"].replace(' and "google.colab" in sys.modules', "")
    usual = sources(NOTEBOOKS[0])[0]
    assert [name for name, first in firsts.items() if first != usual] == []
    assert re.findall(r"https://\S+?(?=\")", usual) == [address()]


def test_the_address_stands_alike_in_every_copy():
    assert (
        yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
        == address()
    )
    assert (
        yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"]
        == address()
    )
    pairs = [p.with_suffix(".ipynb") for p in NOTEBOOKS]
    known = [ROOT / "pyproject.toml", *address_tool.places(), *pairs]
    naming = {
        p for p in tracked() if p.suffix in TEXT and address() in p.read_text(encoding="utf-8")
    }
    assert naming == set(known)


def test_workflows_can_be_read_and_what_is_asked_of_make_is_there():
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["name"] == path.stem and workflow["permissions"]
        assert workflow[True]  # what YAML makes of "on"
        for step in (step for job in workflow["jobs"].values() for step in job["steps"]):
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
            for name in re.findall(r"\b(?:tests|tools|benchmarks)/\S+", step.get("run", "")):
                assert (ROOT / name).exists(), name
    pages = [*WORKFLOWS, ROOT / ".ci" / "run", ROOT / "README.md", *(ROOT / "book").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    asked = set(re.findall(r"(?:^|`|: |=\w+ )make ([a-z-]+)", text, re.M))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"book", "test", "data"} <= asked <= targets


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == cmrseg.__version__
    for reference in [citation, *citation["references"]]:
        assert {"title", "authors", "type"} <= set(reference)
    assert {"cff-version", "message", "license", "keywords", "abstract"} <= set(citation)
    assert re.search(
        r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    )


def test_no_ignored_file_no_slice_no_path_of_one_machine_and_no_registry_host_is_committed():
    words = ["git", "ls-files", "-ci", "--exclude-standard"]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout == ""
    homes = "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers"])
    hosts = ["registry." + "npmjs", "files." + "pythonhosted", "pypi." + "org/simple"]
    hosts = "|".join(map(re.escape, [*hosts, "deb." + "debian"]))
    foreign = re.compile(rf"(?<![\w.])/(?:{homes})/[a-z]|{hosts}")
    for path in tracked():
        assert not re.fullmatch(r"cmr\d+(_mask)?\.png", path.name)
        if path.suffix not in (".png", ".safetensors"):
            match = foreign.search(path.read_text(errors="ignore", encoding="utf-8"))
            assert not match, f"{path.relative_to(ROOT)}: {match[0]}"


def test_class_colours_are_the_same_in_figures_and_pages():
    css = (ROOT / "book" / "assets" / "book.css").read_text(encoding="utf-8")
    for name, colour in CLASS_COLOURS.items():
        assert f"--class-{name.lower()}: {colour.lower()};" in css


# --- pages as they are written ---------------------------------------------------------------------


@every_notebook
def test_functions_in_notebooks_are_short(path):
    source = "\n".join(re.sub(r"^[!%].*$", "", cell, flags=re.M) for cell in sources(path))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            lines = ast.unparse(node).splitlines()  # one for each statement, however it is wrapped
            # in part I they are what the page is about
            most = 30 if path.parent.name == "build" else 10
            assert len(lines) <= most, f"{node.name} has over {most} lines"


def test_each_notebook_ends_with_something_to_try_and_forty_solutions_run():
    runs = 0
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        exercises = re.findall(r"\{exercise\}.*\n# :label: (\S+)", text)
        assert exercises and exercises == re.findall(r"\{solution(?:-start)?\} (\S+)", text), path
        # a solution with a cell of code in it, which runs with the notebook
        code = r"\{solution-start\}(?:(?!solution-end).)*?^# %%(?! \[markdown)"
        assert re.search(code, text, re.M | re.S), path
        runs += len(re.findall(code, text, re.M | re.S))
        if path.parent.name != "build":  # whose frame has a test of its own
            assert text.index("## What to conclude") < text.index("## Try"), path
    assert runs >= 40


def test_each_question_has_one_answer_that_holds():
    for path in NOTEBOOKS:
        for question in re.split(r"^# \*\*\d\.\*\* ", path.read_text(encoding="utf-8"), flags=re.M)[
            1:
        ]:
            first_words = re.findall(r"</summary><p>(\w+)", question.replace("\n# ", " "))
            assert len(first_words) == 3 == question.count('<details class="answer">'), path.stem
            assert first_words.count("Yes") == 1, path.stem


@every_notebook
def test_what_a_picture_shows_is_told_in_words_without_formulas(path):
    """Captions become the pictures' alternative text, which is read out."""
    captions = [text for text in sources(path, "markdown") if re.match(r"\*[^*]", text)]
    assert not [text for text in captions if "$" in re.split(r"\.\*|\n\n", text)[0]]
    drawing = re.compile(r"plots\.(panels|show)\(|plt\.(subplots|figure)\(")
    for cell, after in pairwise(jupytext.read(path).cells):
        if cell.cell_type == "code" and drawing.search(cell.source):
            caption = after.source.split("\n\n")[0]
            assert re.fullmatch(r"\*[^*].*[^*]\*", caption, re.S), caption
            assert "{cite}" not in caption, caption


# --- before the book is built ----------------------------------------------------------------------


def test_the_cache_of_outputs_goes_when_what_they_depend_on_changes(tmp_path, monkeypatch):
    made, cache = [], tmp_path / "_build" / ".jupyter_cache"
    places = {"ROOT": tmp_path, "VENDOR": tmp_path / "vendor", "PACKAGES": {}}
    for name, value in (places | {"execute": lambda: None}).items():
        monkeypatch.setattr(prepare, name, value)
    monkeypatch.setattr("served.make", lambda to: made.append(to) or to.mkdir(exist_ok=True))
    monkeypatch.delenv("CMRSEG_BUDGET", raising=False)
    for folder in ("cmrseg", "results", "_build/.jupyter_cache"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text("torch", encoding="utf-8")
    prepare.main()
    assert not cache.exists()
    changes = [(lambda: None, False)]
    changes += [
        (lambda: (tmp_path / "results" / "1.json").write_text("{}", encoding="utf-8"), True)
    ]
    changes += [(lambda: monkeypatch.setenv("CMRSEG_BUDGET", "smoke"), True)]
    for change, goes in changes:
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
    (tmp_path / "book" / "part").mkdir()
    (tmp_path / "book" / "page.md").rename(tmp_path / "book" / "part" / "page.md")
    os.utime(made[0], (1, 1))
    os.utime(tmp_path / "book" / "part" / "page.md", (0, 0))
    prepare.main()
    assert len(made) == 5  # or has moved


def write_notebook(path, *code, text=()):
    """Write a notebook of texts, and cells of code after them."""
    cells = [*map(nbformat.v4.new_markdown_cell, text), *map(nbformat.v4.new_code_cell, code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_notebooks_run_once_beforehand(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks" / "good.ipynb", "print(6 * 7)")
    write_notebook(tmp_path / "notebooks" / "bad.ipynb", "1 / 0")
    prepare.execute()
    cache = prepare.get_cache(tmp_path / "_build" / ".jupyter_cache")
    (record,) = cache.list_cache_records()
    assert record.uri.endswith("good.ipynb")
    assert capsys.readouterr().out == "running 2 notebooks\nrunning 1 notebooks again\n"
    assert "42" in str(cache.get_cache_bundle(record.pk).nb.cells[0].outputs)
    assert [r.uri for r in cache.list_unexecuted()] == [str(tmp_path / "notebooks" / "bad.ipynb")]


def test_notebooks_that_are_not_of_this_checkout_are_not_run(tmp_path, monkeypatch, capsys):
    """Renamed since the last build, deleted, or of the checkout that this one is a copy of."""
    monkeypatch.setattr(prepare, "ROOT", tmp_path / "copy")
    notebooks = tmp_path / "copy" / "notebooks"
    other = tmp_path / "first" / "notebooks"
    for folder in (notebooks, other):
        folder.mkdir(parents=True)
        write_notebook(folder / "page.ipynb", f"print('{folder.parent.name}')")
    write_notebook(notebooks / "old.ipynb", "1")
    cache = prepare.get_cache(tmp_path / "copy" / "_build" / ".jupyter_cache")
    for path in (other / "page.ipynb", notebooks / "old.ipynb", tmp_path / "nowhere.ipynb"):
        cache.add_nb_to_project(str(path))
    (notebooks / "old.ipynb").unlink()
    prepare.execute()
    assert capsys.readouterr().out == "running 1 notebooks\n"
    assert [r.uri for r in cache.list_project_records()] == [str(notebooks / "page.ipynb")]


STUB = """#!/bin/sh
# Stands in for Python: -m venv makes an environment that says nothing.
[ "$1 $2" != "-m venv" ] || { mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; }
"""


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_an_environment_is_made_for_one_place(how, tmp_path):
    first, second = tmp_path / "first place", tmp_path / "second"
    first.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, first)
    (tmp_path / "python").write_text(STUB, encoding="utf-8")
    (tmp_path / "python").chmod(0o755)

    def make(place):
        words = ["make", "-s", f"PYTHON={tmp_path / 'python'}", ".venv/ready"]
        subprocess.run(words, cwd=place, check=True, capture_output=True, timeout=60)
        return (place / ".venv" / "ready").read_text(encoding="utf-8").strip()

    assert make(first) == str(first)
    (first / ".venv" / "bin" / "mine").touch()
    make(first)
    assert (first / ".venv" / "bin" / "mine").exists()  # nothing was to do
    (shutil.copytree if how == "copied" else shutil.move)(first, second)
    assert make(second) == str(second)
    assert not (second / ".venv" / "bin" / "mine").exists()
    if how == "copied":
        (second / ".venv" / "lib").mkdir()
        shutil.rmtree(first / ".venv")
        (first / ".venv").symlink_to(second / ".venv")
        assert make(first) == str(first) and (second / ".venv" / "lib").is_dir()


# --- what book_pages adds to Sphinx ----------------------------------------------------------------


@pytest.fixture
def book(tmp_path):
    """Build a small book of texts, and of notebooks that lie there already: a page's name -> HTML."""

    def build(index="", parser="myst_parser", settings="", pages=()):
        (tmp_path / "conf.py").write_text(
            f"import sys; sys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
            f"extensions = [{parser!r}, 'sphinx.ext.mathjax', 'sphinxcontrib.mermaid', 'book_pages']\n"
            f"mathjax_path = 'mathjax/here.js'\n{settings}\n",
            encoding="utf-8",
        )
        for name, text in {"index": index, **dict(pages)}.items():
            if text:
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / f"{name}.md").write_text(text, encoding="utf-8")
        words = [sys.executable, "-m", "sphinx", "-q", "-W", "-E", tmp_path, tmp_path / "html"]
        subprocess.run(words, check=True)
        return lambda name="index": (tmp_path / "html" / f"{name}.html").read_text(encoding="utf-8")

    return build


@pytest.mark.parametrize("vendored", [False, True])
def test_without_vendored_parts_a_page_loads_none_and_says_so(book, tmp_path, vendored):
    for part in ("mathjax", "mermaid") if vendored else ():
        (tmp_path / "vendor" / part).mkdir(parents=True)
    text = "# A page\n\n$x$\n\n```{mermaid}\nflowchart LR\n  a --> b\n```\n"
    page = book(text, settings="myst_enable_extensions = ['dollarmath']")()
    for name, script in (("MathJax", "mathjax/here.js"), ("Mermaid", "import mermaid from")):
        assert (f"{name} was not at hand" in page) is not vendored
        assert (script in page) is vendored


def test_the_first_use_of_a_term_links_to_the_glossary(book):
    glossary = (
        "# Glossary\n\n```{glossary}\nDice\n  A number.\n\n"
        "early stopping\n  Ending at the best epoch.\n\nstopping\n  An end.\n```\n"
    )
    page = book(
        "# Dice\n\n`Dice` and (*the Dice* of two) dices, Dice.\nEarly stopping, and non-stopping.\n\n"
        "```{toctree}\nbook/glossary\n```\n",
        pages={"book/glossary": glossary},
    )()
    link = r'href="book/glossary.html#term-([^"]*)"><span class="std-term">(.*?)</span></a>'
    assert re.findall(link, page) == [("Dice", "Dice"), ("early-stopping", "Early stopping")]
    assert "(<em>the <a" in page


def test_the_foot_of_a_page_leads_to_the_licences(book):
    footer = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["html"][
        "extra_footer"
    ]
    theme = f"html_theme = 'sphinx_book_theme'\nhtml_theme_options = {{'extra_footer': {footer!r}}}"
    index = "# A page\n\n```{toctree}\nbook/licences\n```\n"
    page = book(index, settings=theme, pages={"book/licences": "# Licences\n"})
    for name, path in (("index", "book/licences.html"), ("book/licences", "#")):
        foot = page(name).split('class="extra_footer"')[1]
        assert f'see <a href="{path}">Data and licences</a>' in foot


def test_a_page_says_how_long_its_notebook_ran(book, tmp_path, monkeypatch):
    monkeypatch.delenv("CMRSEG_BUDGET", raising=False)
    write_notebook(tmp_path / "still.ipynb", "import time; time.sleep(1)", text=["# A page"])
    write_notebook(tmp_path / "trained.ipynb", "fit = abs\nfit(1)", text=["# A page"])
    page = book(
        "# Times\n\nOne {runs}`still`, two {runs}`still trained`, on {{ machine }}.\n\n"
        "```{toctree}\nstill\ntrained\n```\n",
        parser="myst_nb",
        settings="myst_enable_extensions = ['substitution']",
    )
    said = r'<p class="how-long">Ran in (\d+) s on one core when this page was made(.*?)\.</p>'
    (still,), (trained,) = (re.findall(said, page(name)) for name in ("still", "trained"))
    assert (still[1], trained[1]) == ("", ", a small training included")
    one, two = re.search(r"One (\d+) s, two (\d+) s, on \d+ cores", page()).groups()
    assert one == still[0] and abs(int(two) - int(one) - int(trained[0])) <= 1


def test_what_a_reader_is_asked_to_predict_waits_for_a_click(book, tmp_path):
    text = "# A page\n\n**Predict, then run**: what does it print?"
    write_notebook(tmp_path / "index.ipynb", "print('the answer')", "print('more')", text=[text])
    page = book(parser="myst_nb")()
    assert page.count("Show what it prints or draws") == 1
    closed = page.split("<details")[1].split("</details>")[0]
    assert "the answer" in closed and "more" not in closed


def test_a_verdict_in_a_table_is_a_badge_and_its_cells_know_their_columns():
    columns = {"verdict": ["confirmed (asked late)", "inconclusive"], "we found": ["+0.1", "0.0"]}
    html = book_pages.marked(pd.DataFrame(columns, index=["A", "B"]).to_html())
    badge = '<span class="verdict">confirmed</span> (asked late)'
    assert f'<td data-label="verdict" data-verdict="confirmed">{badge}</td>' in html
    assert '<td data-label="we found">+0.1</td>' in html and 'class="dataframe verdicts"' in html


@pytest.mark.parametrize("named", ["setting", None])
def test_the_head_of_a_table_has_no_empty_cell(named):
    settings = pd.Index(["relu", "tanh"], name=named)
    table = pd.DataFrame({"runs": [5, 2], "dice": [0.81, 0.79]}, index=settings)
    for html in (table.style.to_html(), table.to_html()):
        context = {"body": html}
        book_pages.mend_tables(None, "a page", "", context, None)
        mended = re.search("<table.*</table>", context["body"], re.DOTALL)[0]
        mended = ElementTree.fromstring(mended)
        assert all(cell.text and cell.text.strip() for cell in mended.iter("th"))
        rows = [[(cell.text or "").strip() for cell in row] for row in mended.iter("tr")]
        assert [row[0] for row in rows[-2:]] == ["relu", "tanh"] and {*map(len, rows)} == {3}


# --- the built book --------------------------------------------------------------------------------


@pytest.fixture
def built():
    """The pages of the built book."""
    pages = sorted(p for p in BUILT.rglob("*.html") if "_static" not in p.relative_to(BUILT).parts)
    if not pages:
        pytest.skip("no book is built here: make book")
    return pages


def test_the_button_of_every_notebook_page_opens_its_notebook(built):
    for path in built:
        name = path.relative_to(BUILT).with_suffix(".ipynb")
        # a page that moved only leads on
        if name.parts[0] == "notebooks" and str(name.with_suffix("")) not in book_pages.MOVED:
            place = f"{address().removeprefix('https://github.com/')}/blob/main/{name}"
            button = f'href="https://colab.research.google.com/github/{place}"'
            assert button in path.read_text(encoding="utf-8") and (ROOT / name).is_file(), name


LOADS = re.compile(r"""(?x)
    <(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=["']((?:https?:)?//[^"']+)
    | <object\b[^>]*?\sdata=["']((?:https?:)?//[^"']+)
    | <link\b(?=[^>]*rel=["'](?:stylesheet|preload|modulepreload|icon|shortcut\ icon|manifest))[^>]*?
      \shref=["']((?:https?:)?//[^"']+)
    | (?:\bimport\s*\(?|\bfrom)\s*["'](https?://[^"']+)
    | (?:@import\s+|url\()["']?((?:https?:)?//[^"')]+)""")


def test_built_pages_load_nothing_from_another_host(built):
    for path in [*built, *BUILT.rglob("*.css")]:
        match = LOADS.search(path.read_text(encoding="utf-8"))
        assert not match, f"{path.relative_to(BUILT)}: {match[0][:200]}"


# Such as ``Text(0, 0.5, ...)``, what a cell says whose last line draws, or what it prints of an object.
REPRESENTATION = re.compile(
    r"&lt;(?:Axes|Figure|matplotlib|function|module|\w+(?:\.\w+)+) ?[^&]*&gt;|\bText\(\d|"
    r"PathCollection|Line2D\(|\bat 0x[0-9a-f]{6,}|"
    r"Namespace\(|PosixPath\(|&lt;All keys|Sequential\(|(?m:^|>)torch\.Size\("
)


def test_built_pages_show_no_representation_of_an_object(built):
    plain, faults = r'<div class="output[^"]*(?:text_plain|stream).*?</pre>', []
    for page in built:
        for output in re.findall(plain, page.read_text(encoding="utf-8"), re.DOTALL):
            if match := REPRESENTATION.search(output):
                faults.append(f"{page.name}: {match[0]}")
    assert not faults
