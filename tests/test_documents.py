"""The documents name things that exist: tests, files, other documents. What they say of them is for people to check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def source(pattern: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(ROOT.glob(pattern)))


@every_document
def test_every_test_that_is_named_exists(document: Path) -> None:
    tests = set(re.findall(r"def (test_\w+)", source("tests/**/*.py")))
    modules = {path.stem for path in ROOT.glob("tests/**/test_*.py")}
    named = set(re.findall(r"`(?:tests/[\w/]*)?(test_\w+)(?:\.py)?`", document.read_text("utf-8")))
    assert named - tests - modules == set()


def test_every_module_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    here = {path.name for room in ("tui", "mail", "overlay", "storage") for path in (ROOT / room).rglob("*.py")}
    named = set(re.findall(r"`(?:\w+/)*(\w+\.py)`", text)) - {path.name for path in ROOT.glob("tests/**/*.py")}
    assert named - here == set()


def test_the_architecture_lists_each_file_with_its_docstring() -> None:
    process = subprocess.run([sys.executable, ROOT / "scripts" / "file_table.py", "--check"], check=False)
    assert process.returncode == 0, "run: python scripts/file_table.py"


def test_every_term_of_the_glossary_lives_where_it_says() -> None:
    places = re.findall(
        r"\| `([\w/]+\.py)`(?: `(\w+)`)? \|$", (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(places) >= 50
    for file, name in places:
        text = (ROOT / file).read_text("utf-8")
        assert not name or re.search(rf"^(class|def|async def) {name}\b", text, re.MULTILINE), f"{file} {name}"


@every_document
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text("utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []
