"""The repository as a site: files outside docs/ become pages, and names in code become links.

Pages of docs/ link to other files of the repository: `../CONTRIBUTING.md#adding-a-cell`, `../examples/long_gap.py`. On
the site such a file is a page under sources/, at its path in the repository. Markdown stays as it is; a program or a
header of C becomes a page with its source. These pages, with the suffix .markdown, are written before a build and are
not part of the repository. A link to an HTML file of docs/ opens it as it is.

An inline literal that is the name of a documented object, with or without `fastrnn.`, becomes a link to it.
"""

import os
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode
from sphinx.util.osutil import relative_uri

DOCS = Path(__file__).parent.parent
REPOSITORY = DOCS.parent
SOURCES = DOCS / "sources"
LIST_OF_PROGRAMS = SOURCES / "examples.markdown"
PROGRAMS = ("examples/*.py", "examples/answers/*.py", "examples/models/*.py", "examples/c/*.c", "csrc/fastrnn*.h")
LANGUAGES = {".py": "python", ".c": "c", ".h": "c"}
TEXTS = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")

LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
NAME = re.compile(r"(?:fastrnn\.)?([A-Za-z_][\w.]*)(?:\(.*\))?")


def write_sources(app):
    """Write the pages under sources/."""
    shutil.rmtree(SOURCES, ignore_errors=True)
    SOURCES.mkdir()
    for name in TEXTS:
        shutil.copyfile(REPOSITORY / name, page_of(REPOSITORY / name))
    programs = sorted(program for pattern in PROGRAMS for program in REPOSITORY.glob(pattern))
    for program in programs:
        page = page_of(program)
        page.parent.mkdir(parents=True, exist_ok=True)
        source = os.path.relpath(program, page.parent)
        listing = f"```{{literalinclude}} {source}\n:language: {LANGUAGES[program.suffix]}\n```\n"
        text = f"---\norphan: true\n---\n\n# {program.name}\n\n{listing}"
        page.write_text(text, encoding="utf-8")
    links = [f"- [{p.relative_to(REPOSITORY)}]({page_of(p).relative_to(SOURCES)})\n" for p in programs]
    LIST_OF_PROGRAMS.write_text(f"# Programs\n\n{''.join(links)}", encoding="utf-8")


def page_of(path):
    """The page that shows a file of the repository, or a folder of programs."""
    if path.is_relative_to(DOCS):
        return path
    if path == REPOSITORY / "README.md":
        return DOCS / "index.md"
    if path.is_dir():
        return LIST_OF_PROGRAMS
    page = SOURCES / path.relative_to(REPOSITORY)
    return page.with_name(f"{page.name.removesuffix('.md')}.markdown")


def link_pages(app, docname, source):
    """Point the links of a page to the pages of the files that they name."""
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".rst" or page == LIST_OF_PROGRAMS:
        return
    original = REPOSITORY / page.relative_to(SOURCES) if page.is_relative_to(SOURCES) else page

    def linked(match):
        target = Path(os.path.normpath(original.parent / match[1]))
        if not target.exists():  # code that looks like a link, or a mistake, of which Sphinx warns
            return match[0]
        return f"]({os.path.relpath(page_of(target), page.parent)}{match[2] or ''})"

    source[0] = LINK.sub(linked, source[0])


class NamesToLinks(SphinxPostTransform):
    """Links from inline literals to the objects that they name."""

    default_priority = 5  # before references are resolved

    def run(self, **options):
        objects = self.env.domains.python_domain.objects
        for literal in list(self.document.findall(nodes.literal)):
            if isinstance(literal.parent, (nodes.reference, nodes.title)) or "xref" in literal["classes"]:
                continue
            match = NAME.fullmatch(literal.astext())
            found = match and objects.get(f"fastrnn.{match[1]}")
            if found and found.docname != self.env.docname:
                where = self.app.builder, self.env.docname, found.docname, found.node_id
                literal.replace_self(make_refnode(*where, literal.deepcopy()))


class OpenedInTheBrowser(SphinxPostTransform):
    """Links that open a page of HTML, which Sphinx would offer as a download."""

    default_priority = 5
    builders = ("html",)

    def run(self, **options):
        base = self.app.builder.get_target_uri(self.env.docname)
        for link in list(self.document.findall(download_reference)):
            if link.get("filename", "").endswith(".html"):
                address = relative_uri(base, f"_downloads/{link['filename']}")
                link.replace_self(nodes.reference("", "", *link.children, refuri=address, internal=True))


def hide_constructor(app, what, name, obj, options, signature, annotation):
    """No signature for a class whose objects are made by a method."""
    return ("", "") if name == "fastrnn.stream.Stream" else None


def setup(app):
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("builder-inited", write_sources)
    app.connect("source-read", link_pages)
    app.add_post_transform(NamesToLinks)
    app.add_post_transform(OpenedInTheBrowser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
