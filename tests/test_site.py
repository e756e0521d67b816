"""The site: it builds without a warning and without network, its links lead somewhere, and a browser shows it."""

import html.parser
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site is not built: pip install '.[docs]'")

import fastrnn

REPOSITORY = Path(__file__).parent.parent
TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")

# Sphinx, in a process that cannot open a connection.
BUILD = """
import socket, sys

def refuse(*_):
    raise OSError("the build of the site uses the network")

socket.socket.connect = socket.getaddrinfo = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


def build(docs, site):
    """Build the pages in `docs` into the folder `site`; returns the exit status and the warnings."""
    environment = os.environ | {"PYTHONPATH": str(Path(fastrnn.__file__).parent.parent), "NO_COLOR": "1"}
    command = [sys.executable, "-c", BUILD, "-q", "-W", "--keep-going", docs, site]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    return result.returncode, result.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; the build writes into a copy of the repository."""
    copy = tmp_path_factory.mktemp("repository")
    unwanted = shutil.ignore_patterns("sources", "generated", "__pycache__")
    for name in ("csrc", "docs", "examples"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=unwanted)
    for name in TEXTS:
        shutil.copyfile(REPOSITORY / name, copy / name)
    assert build(copy / "docs", copy / "site") == (0, "")
    return copy / "site"


def pages_of(site):
    """The paths of the pages; the theme has a template in _static."""
    return [path for path in site.rglob("*.html") if "_static" not in path.parts]


class Page(html.parser.HTMLParser):
    """The ids of a page, the targets of its links, and the files that it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag in ("script", "link", "img"):
            self.loaded += [attributes[name] for name in ("src", "href") if name in attributes]


def test_links_lead_somewhere(site):
    pages = {path: Page(path) for path in pages_of(site)}
    for path, page in pages.items():
        for target in page.links + page.loaded:
            address = urllib.parse.urlsplit(target)
            if address.scheme or address.netloc:
                assert target not in page.loaded, f"{path.relative_to(site)} loads {target}"
                continue
            other = Path(os.path.normpath(path.parent / urllib.parse.unquote(address.path))) if address.path else path
            assert other.exists(), f"{path.relative_to(site)}: {target}"
            if address.fragment and other in pages:
                assert address.fragment in pages[other].ids, f"{path.relative_to(site)}: {target}"
    assert len(pages) > 100


def test_signatures_come_from_the_code(site):
    page = (site / "reference" / "generated" / "fastrnn.LSTM.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]*>", "", page)
    assert "peephole=False, recurrent_activation='sigmoid'" in text and "dtype=np.float32" in text
    assert "forward(x, state=None, lengths=None, resets=None, *, checkpoint_every=None, return_gates=False)" in text


def test_names_in_code_and_files_of_the_repository_are_links(site):
    assert "../reference/generated/fastrnn.save.html#fastrnn.save" in Page(site / "api" / "files.html").links
    assert "sources/CONTRIBUTING.html#adding-a-cell" in Page(site / "design.html").links
    assert "sources/examples/long_gap.py.html" in Page(site / "gallery.html").links


def test_mistakes_are_errors(tmp_path):
    docs = tmp_path / "docs"
    for name in ("_extensions", "_static", "_templates"):
        shutil.copytree(REPOSITORY / "docs" / name, docs / name)
    shutil.copyfile(REPOSITORY / "docs" / "conf.py", docs / "conf.py")
    for name in TEXTS:
        (tmp_path / name).write_text(f"# {name}\n", encoding="utf-8")
    listed = "".join(f"- file: sources/{name}\n" for name in ("examples", *TEXTS[1:]))
    (docs / "_toc.yml").write_text(f"root: index\nentries:\n{listed}", encoding="utf-8")
    index = docs / "index.md"
    index.write_text("# Index\n\n`fastrnn.LSTM`, [texts](../CONTRIBUTING.md#contributingmd)\n", encoding="utf-8")
    assert build(docs, tmp_path / "right") == (0, "")

    index.write_text("# Index\n\n[page](nowhere.md), [heading](#nothing), [file](../none.py)\n", encoding="utf-8")
    (docs / "lonely.md").write_text("# A page that is in no list\n", encoding="utf-8")
    status, warnings = build(docs, tmp_path / "wrong")
    assert status == 1
    lost = "lonely.md: WARNING: document isn't included in any toctree"
    for complaint in (lost, "nowhere.md", "'nothing'", "none.py"):
        assert complaint in warnings


def test_every_page_in_a_browser(site, browser):
    """In dark mode at the width of a phone: nothing is complained of, loaded from elsewhere, or wider than the page."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    complaints, requests = [], []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    functions = site / "reference" / "generated"
    shown = [path for path in pages_of(site) if path.parent != functions]
    for path in [*shown, functions / "fastrnn.LSTM.html", functions / "fastrnn.from_weights.html"]:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert complaints == [], path
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in re.findall(r"\d+", background)[:3]) < 100

    page.goto((site / "study.html").as_uri())
    page.get_by_role("link", name="visualize.html").click()
    page.locator("#text span").first.wait_for()  # shown, not downloaded

    page.goto((site / "search.html").as_uri() + "?q=checkpoint_every")
    page.get_by_role("link", name="All layers").first.wait_for()


@pytest.mark.parametrize("width", [390, 1024, 1300])
def test_the_header_does_not_hide_a_linked_heading(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto((site / "study.html").as_uri() + "#which-parts-of-an-lstm-are-needed")
    heading = "document.querySelector('#which-parts-of-an-lstm-are-needed > h2').getBoundingClientRect().top"
    header = "document.querySelector('.bd-header').getBoundingClientRect().bottom"
    # a TimeoutError if it stays hidden
    page.wait_for_function(f"{header} - 1 < {heading} && {heading} < {header} + 100")
