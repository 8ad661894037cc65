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


def sources(path: Path, kind: str = "code") -> list[str]:
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == kind]


def address() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


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


def test_the_readme_names_each_file_of_packages_and_tools_and_all_at_the_top():
    """But for networks and plans: it names their folders, so that a new one touches one place."""
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## What is where")[1]
    files = [path.relative_to(ROOT) for path in tracked()]
    names = {path.parts[0] for path in files}
    listed = [path for path in files if path.parts[0] in ("cmrseg", "cmrtrial", "tools")]
    names |= {path.name for path in listed if path.parts[1] not in ("models", "plans")}
    assert len(names) > 60 and [name for name in sorted(names) if name not in tree] == []


def test_the_table_of_contents_lists_every_page_once():
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [p for p in (ROOT / "book").rglob("*.md") if "_ext" not in p.parts] + NOTEBOOKS
    assert sorted(listed) == sorted(str(p.relative_to(ROOT).with_suffix("")) for p in pages)


def test_the_first_code_cell_is_the_same_everywhere_and_names_the_address():
    firsts = {path.stem: sources(path)[0] for path in NOTEBOOKS}
    # a script as well, which installs nothing outside Colab
    firsts["whole"] = firsts["whole"].replace(' and "google.colab" in sys.modules', "")
    assert len(set(firsts.values())) == 1
    assert re.findall(r"https://\S+?(?=\")", firsts["whole"]) == [address()]


def test_the_address_stands_in_every_copy_and_nowhere_else():
    naming = {
        p for p in tracked() if p.suffix in TEXT and address() in p.read_text(encoding="utf-8")
    }
    pairs = [p.with_suffix(".ipynb") for p in NOTEBOOKS]
    assert naming == {ROOT / "pyproject.toml", *address_tool.places(), *pairs}
    assert {ROOT / "_config.yml", ROOT / "CITATION.cff"} <= naming


def test_workflows_can_be_read_and_what_is_asked_of_make_is_there():
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["name"] == path.stem and workflow["permissions"]
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


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == cmrseg.__version__
    assert {"cff-version", "message", "license", "keywords", "abstract"} <= set(citation)
    for reference in [citation, *citation["references"]]:
        assert {"title", "authors", "type"} <= set(reference)


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


def test_functions_in_notebooks_are_short():
    for path in NOTEBOOKS:
        # in part I they are what the page is about
        most = 30 if path.parent.name == "build" else 10
        source = "\n".join(re.sub(r"^[!%].*$", "", cell, flags=re.M) for cell in sources(path))
        for node in ast.walk(ast.parse(source)):
            # one line for each statement, however it is wrapped
            short = len(ast.unparse(node).splitlines()) <= most
            assert short or not isinstance(node, ast.FunctionDef), f"{path.stem}: {node.name}"


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
        questions = re.split(r"^# \*\*\d\.\*\* ", path.read_text(encoding="utf-8"), flags=re.M)
        for question in questions[1:]:
            first_words = re.findall(r"</summary><p>(\w+)", question.replace("\n# ", " "))
            assert len(first_words) == 3 == question.count('<details class="answer">'), path.stem
            assert first_words.count("Yes") == 1, path.stem


def test_what_a_picture_shows_is_told_in_words_without_formulas():
    """Captions become the pictures' alternative text, which is read out."""
    drawing = re.compile(r"plots\.(panels|show)\(|plt\.(subplots|figure)\(")
    for path in NOTEBOOKS:
        captions = [text for text in sources(path, "markdown") if re.match(r"\*[^*]", text)]
        assert not [text for text in captions if "$" in re.split(r"\.\*|\n\n", text)[0]]
        for cell, after in pairwise(jupytext.read(path).cells):
            if cell.cell_type == "code" and drawing.search(cell.source):
                caption = after.source.split("\n\n")[0]
                assert re.fullmatch(r"\*[^*].*[^*]\*", caption, re.S), caption
                assert "{cite}" not in caption, caption


# --- before the book is built ----------------------------------------------------------------------


def test_numbers_quoted_from_the_report_are_those_on_file():
    report = re.sub(r"#.*", "", (ROOT / "results" / "report-2020.toml").read_text(encoding="utf-8"))
    on_file = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", report)}
    on_file |= {round(n, 3) for n in on_file} | {round(n, 2) for n in on_file}
    page = (ROOT / "book" / "report-2020.md").read_text(encoding="utf-8")
    quoted = re.findall(r"(?<![\d.])\d\.\d+", page)
    assert len(quoted) > 10 and {float(number) for number in quoted} <= on_file


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepare a checkout of nothing; returns the folders of what was made for readers."""
    made = []
    places = {"ROOT": tmp_path, "VENDOR": tmp_path / "vendor", "PACKAGES": {}}
    for name, value in (places | {"execute": lambda: None}).items():
        monkeypatch.setattr(prepare, name, value)
    monkeypatch.setattr("served.make", lambda to: made.append(to) or to.mkdir(exist_ok=True))
    monkeypatch.delenv("CMRSEG_BUDGET", raising=False)
    for folder in ("cmrseg", "results", "book", "_build/.jupyter_cache"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text("torch", encoding="utf-8")
    prepare.main()
    return made


def test_the_cache_of_outputs_goes_when_what_they_depend_on_changes(
    prepared, tmp_path, monkeypatch
):
    cache, record = tmp_path / "_build" / ".jupyter_cache", tmp_path / "results" / "1.json"
    assert not cache.exists()
    changes = [(lambda: None, False), (lambda: record.write_text("{}", encoding="utf-8"), True)]
    changes.append((lambda: monkeypatch.setenv("CMRSEG_BUDGET", "smoke"), True))
    for change, goes in changes:
        cache.mkdir(exist_ok=True)
        change()
        prepare.main()
        assert cache.exists() is not goes
    assert prepared == 3 * [tmp_path / "_build" / "made"]  # at first, and after each change


def test_what_is_served_is_made_anew_when_a_page_is_newer_or_has_moved(prepared, tmp_path):
    page, moved = tmp_path / "book" / "page.md", tmp_path / "book" / "part" / "page.md"
    page.touch()
    os.utime(prepared[0], (1, 1))
    for _ in range(2):
        prepare.main()
    assert len(prepared) == 2
    moved.parent.mkdir()
    page.rename(moved)
    os.utime(prepared[0], (1, 1))
    os.utime(moved, (0, 0))
    prepare.main()
    assert len(prepared) == 3


def write_notebook(path, *code, text=()):
    """Write a notebook of texts, and cells of code after them."""
    cells = [*map(nbformat.v4.new_markdown_cell, text), *map(nbformat.v4.new_code_cell, code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_notebooks_of_this_checkout_run_once_beforehand_and_no_others(
    tmp_path, monkeypatch, capsys
):
    """Case B2: others were renamed since the last build, deleted, or are of the checkout this is a copy of."""
    monkeypatch.setattr(prepare, "ROOT", tmp_path / "copy")
    notebooks, other = tmp_path / "copy" / "notebooks", tmp_path / "first" / "notebooks"
    for folder in (notebooks, other):
        folder.mkdir(parents=True)
        write_notebook(folder / "page.ipynb", f"print('{folder.parent.name}')")
    write_notebook(notebooks / "bad.ipynb", "1 / 0")
    write_notebook(notebooks / "old.ipynb", "1")
    cache = prepare.get_cache(tmp_path / "copy" / "_build" / ".jupyter_cache")
    for path in (other / "page.ipynb", notebooks / "old.ipynb", tmp_path / "nowhere.ipynb"):
        cache.add_nb_to_project(str(path))
    (notebooks / "old.ipynb").unlink()
    prepare.execute()
    assert capsys.readouterr().out == "running 2 notebooks\nrunning 1 notebooks again\n"
    (record,) = cache.list_cache_records()
    assert record.uri == str(notebooks / "page.ipynb")
    assert "copy" in str(cache.get_cache_bundle(record.pk).nb.cells[0].outputs)
    assert [r.uri for r in cache.list_unexecuted()] == [str(notebooks / "bad.ipynb")]


def test_a_blank_in_the_path_of_the_slices_reaches_the_build_whole(tmp_path):
    """Case B1: My Drive, My Documents."""
    slices, show = tmp_path / "my slices", tmp_path / "show"
    show.write_text('show:\n\t@echo "[$$CMRSEG_DATA]"\n', encoding="utf-8")
    done = subprocess.run(
        ["make", "-s", "-f", ROOT / "Makefile", "-f", show, "show"],
        env=os.environ | {"CMRSEG_DATA": str(slices)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"[{slices}]"


STUB = """#!/bin/sh
# Stands in for Python: -m venv makes an environment that says nothing.
[ "$1 $2" != "-m venv" ] || { mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; }
"""


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
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
    how(first, second)
    assert make(second) == str(second)
    assert not (second / ".venv" / "bin" / "mine").exists()
    if first.exists():
        (second / ".venv" / "lib").mkdir()
        shutil.rmtree(first / ".venv")
        (first / ".venv").symlink_to(second / ".venv")
        assert make(first) == str(first) and (second / ".venv" / "lib").is_dir()


# --- what book_pages adds to Sphinx ----------------------------------------------------------------


SETTINGS = """
import sys; sys.path.insert(0, {extensions!r})
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinxcontrib.mermaid", "book_pages"]
myst_enable_extensions = ["dollarmath", "substitution"]
mathjax_path = "mathjax/here.js"
html_theme = "sphinx_book_theme"
html_theme_options = {{"extra_footer": {footer!r}}}
"""
DRAWN = "# A page\n\n$x$\n\n```{mermaid}\nflowchart LR\n  a --> b\n```\n"
PAGES = {
    "index": "# Dice\n\n`Dice` and (*the Dice* of two) dices, Dice.\nEarly stopping, and "
    "non-stopping.\n\nOne {runs}`still`, two {runs}`still trained`, on {{ machine }}.\n\n"
    "```{toctree}\nbook/glossary\nbook/licences\ndrawn\nstill\ntrained\nasked\n```\n",
    "book/glossary": "# Glossary\n\n```{glossary}\nDice\n  A number.\n\nearly stopping\n"
    "  Ending at the best epoch.\n\nstopping\n  An end.\n```\n",
    "book/licences": "# Licences\n",
    "drawn": DRAWN,
}
ASKED = "# A page\n\n**Predict, then run**: what does it print?"


def build(folder, pages):
    """Build a small book of texts, and of notebooks that lie there already: a page's name -> HTML."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    names = {"extensions": str(ROOT / "book" / "_ext"), "footer": config["html"]["extra_footer"]}
    (folder / "conf.py").write_text(SETTINGS.format(**names), encoding="utf-8")
    for name, text in pages.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "-E", folder, folder / "html"]
    quiet = {name: value for name, value in os.environ.items() if name != "CMRSEG_BUDGET"}
    subprocess.run(words, check=True, env=quiet)
    return lambda name="index": (folder / "html" / f"{name}.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page's name -> its HTML, in a small book without vendored parts."""
    folder = tmp_path_factory.mktemp("book")
    write_notebook(folder / "still.ipynb", "import time; time.sleep(1)", text=["# A page"])
    write_notebook(folder / "trained.ipynb", "fit = abs\nfit(1)", text=["# A page"])
    write_notebook(folder / "asked.ipynb", "print('the answer')", "print('more')", text=[ASKED])
    return build(folder, PAGES)


def test_without_vendored_parts_a_page_loads_none_and_says_so(page, tmp_path):
    for part in ("mathjax", "mermaid"):
        (tmp_path / "vendor" / part).mkdir(parents=True)
    there = build(tmp_path, {"index": DRAWN})()
    for name, script in (("MathJax", "mathjax/here.js"), ("Mermaid", "import mermaid from")):
        assert f"{name} was not at hand" in page("drawn") and script not in page("drawn")
        assert f"{name} was not at hand" not in there and script in there


def test_the_first_use_of_a_term_links_to_the_glossary(page):
    link = r'href="book/glossary.html#term-([^"]*)"><span class="std-term">(.*?)</span></a>'
    assert re.findall(link, page()) == [("Dice", "Dice"), ("early-stopping", "Early stopping")]
    assert "(<em>the <a" in page()


def test_the_foot_of_a_page_leads_to_the_licences(page):
    for name, path in (("index", "book/licences.html"), ("book/licences", "#")):
        foot = page(name).split('class="extra_footer"')[1]
        assert f'see <a href="{path}">Data and licences</a>' in foot


def test_a_page_says_how_long_its_notebook_ran(page):
    said = r'<p class="how-long">Ran in (\d+) s on one core when this page was made(.*?)\.</p>'
    (still,), (trained,) = (re.findall(said, page(name)) for name in ("still", "trained"))
    assert (still[1], trained[1]) == ("", ", a small training included")
    one, two = re.search(r"One (\d+) s, two (\d+) s, on \d+ cores", page()).groups()
    assert one == still[0] and abs(int(two) - int(one) - int(trained[0])) <= 1


def test_what_a_reader_is_asked_to_predict_waits_for_a_click(page):
    assert page("asked").count("Show what it prints or draws") == 1
    closed = page("asked").split("<details")[1].split("</details>")[0]
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
