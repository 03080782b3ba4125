"""Text, JSON and page of an analysis, also of a dump whose names attack whoever reads them."""

from __future__ import annotations

import html.parser
import json
import subprocess
from pathlib import Path

import jsonschema
import pytest

from dumpagent.analyze.report.asjson import as_json
from dumpagent.analyze.report.page import as_page
from dumpagent.analyze.report.text import as_text
from tests.unit.analyze.examples import analysis, without_suspects
from tools.analysis_schema import schema

SCHEMA = Path(__file__).parents[3] / "dumpagent" / "analyze" / "report" / "analysis.schema.json"
HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</title></style><script>document.title='owned'</script>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n",
    "\u202eevil\u2066\ud800\x00",
    "&lt;script&gt;",
]


class Tags(html.parser.HTMLParser):
    """Collects what tags and attributes a page has, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_dump_adds_no_tag_and_no_attribute_to_the_page(name: str) -> None:
    harmless, found = Tags(), Tags()
    harmless.feed(as_page(analysis()))
    page = as_page(analysis(name))
    page.encode()  # no half of a surrogate pair
    found.feed(page)
    assert found.tags == harmless.tags
    assert found.attributes == harmless.attributes
    assert not {"script", "img", "a", "iframe", "form", "link"} & found.tags


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_dump_does_not_steer_the_terminal(name: str) -> None:
    text = as_text(analysis(name))
    assert not [each for each in text if each != "\n" and (ord(each) < 32 or 0x7F <= ord(each) < 0xA0)]
    assert "\u202e" not in text
    text.encode()


@pytest.mark.parametrize("name", ["com.acme.Session", *HOSTILE])
def test_json_follows_the_schema(name: str) -> None:
    found = json.loads(as_json(analysis(name)))
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))


def test_the_schema_is_that_of_the_values() -> None:
    """`python -m tools.analysis_schema` writes it."""
    assert SCHEMA.read_text() == schema()


def test_text_names_the_holder_first() -> None:
    text = as_text(analysis())
    assert "1. com.acme.Session\n   holds 60.0 MiB, 60% of the heap" in text


def test_a_heap_without_a_suspect_says_so() -> None:
    assert "Nothing holds a large share of the heap." in as_text(without_suspects())
    assert "Nothing holds a large share of the heap." in as_page(without_suspects())


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_a_browser_runs_nothing_of_what_a_dump_says(tmp_path: Path) -> None:
    """A script that ran would have changed the title; a page that is too wide for a phone could be told by its picture."""
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(as_page(analysis(" ".join(HOSTILE))), encoding="utf-8")
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    dom = subprocess.run(
        [*argv, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert "<title>Heap dump &lt;script&gt;" in dom
    assert "<title>owned" not in dom
    assert "<script" not in dom.replace("&lt;script", "")
    phone = ["--window-size=390,800", f"--screenshot={picture}", page.as_uri()]
    subprocess.run([*argv, *phone], capture_output=True, check=True, timeout=120)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    page = as_page(analysis())
    assert "default-src 'none'" in page
    assert "http:" not in page
    assert "https:" not in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
