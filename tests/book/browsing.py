"""A real browser (Debian's Chromium, or the one named by CMRSEG_CHROMIUM), and pages to open in it."""

import functools
import http.server
import json
import os
import shutil
import threading

import pytest
from stand_in import ASSETS, VENDOR

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = os.environ.get("CMRSEG_CHROMIUM")
CHROMIUM = CHROMIUM or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET += ["--disable-component-update"]


@pytest.fixture(scope="module", name="browser")
def make_browser():
    if not CHROMIUM:
        pytest.skip("no Chromium here: install Debian's chromium, or set CMRSEG_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


def listen(opened):
    """A list that gets every error which a page throws or logs."""
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: said.type == "error" and errors.append(said.text))
    return errors


def requested(opened):
    """A list that gets the address of everything a page asks for from now on."""
    urls = []
    opened.on("request", lambda request: urls.append(request.url))
    return urls


@pytest.fixture(name="page")
def make_page(browser, tmp_path):
    """Open a page that has nothing but this body and the book's own scripts; no error may be logged."""
    opened = browser.new_page()
    errors = listen(opened)

    def show(body):
        names = ("book.js", "explorers.js")
        scripts = "".join(f'<script src="{(ASSETS / name).as_uri()}"></script>' for name in names)
        path = tmp_path / "page.html"
        path.write_text(
            f"<!doctype html><meta charset=utf-8><body>{body}{scripts}</body>", encoding="utf-8"
        )
        opened.goto(path.as_uri())
        return opened

    yield show
    opened.close()
    assert errors == []


def explorer(kind):
    return f'<div class="explorer" data-explorer="{kind}">In words.</div>'


def says(opened):
    """The sentence of the explorer."""
    return opened.locator(".explorer-says").inner_text()


# --- over http -------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")  # tests change files within a second
        super().end_headers()


@pytest.fixture(scope="module", name="serve")
def make_serve():
    """Serve a folder: ``serve(folder)`` -> its address."""
    servers = []

    def start(folder):
        handler = functools.partial(Quiet, directory=folder)
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="module", name="address")
def make_address(serve, static):
    """The address of a book of one page with everything that is fetched."""
    if (VENDOR / "onnxruntime").is_dir():
        shutil.copytree(VENDOR / "onnxruntime", static / "onnxruntime")
    return serve(static.parent)


@pytest.fixture(name="visit")
def make_visit(page, address, static):
    """As ``page``, but over http, from a book with everything, or with other files: ``name={...}``.

    The files are put back afterwards.
    """
    opened, before = page(""), {}

    def show(body, **files):
        for name, content in files.items():
            path = (static / name.replace("__", "/")).with_suffix(".json")
            before.setdefault(path, path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(content), encoding="utf-8")
        names = ("book", "explorers")
        scripts = "".join(f'<script src="../_static/{name}.js"></script>' for name in names)
        css = '<link rel="stylesheet" href="../_static/book.css"><link rel="icon" href="data:,">'
        (static.parent / "book").mkdir(exist_ok=True)
        (static.parent / "book" / "page.html").write_text(
            f'<!doctype html><html lang="en" data-theme="light"><meta charset=utf-8>{css}'
            f"<body>{body}{scripts}</body></html>",
            encoding="utf-8",
        )
        opened.goto(f"{address}/book/page.html")
        return opened

    yield show
    for path, content in before.items():
        path.write_text(content, encoding="utf-8")
