"""The table of files in docs/architecture.md, made of the first line of each docstring.

python scripts/file_table.py         write it
python scripts/file_table.py --check  fail when it isn't what it should be
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("storage", "overlay", "mail", "tui")
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- files: made by scripts/file_table.py -->\n", "<!-- end of files -->\n"


def first_line(file: Path) -> str:
    """The first sentence or line of a module's docstring, for a table's cell. Raises ValueError where there is none."""
    text = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    if not text:
        raise ValueError(f"{file.relative_to(ROOT)} has no docstring")
    return text.partition("\n")[0].replace("|", r"\|")


def table() -> str:
    """Each package and each file in it, with what it is for."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    for room in ROOMS:
        for folder in sorted({file.parent for file in (ROOT / room).rglob("*.py")}):
            name = folder.relative_to(ROOT).as_posix()
            yield f"\n#{'##' if name in ROOMS else '###'} {name}/\n\n{first_line(folder / '__init__.py')}\n"
            yield "| file | what it is for |\n|---|---|"
            for file in sorted(folder.glob("*.py")):
                if file.name != "__init__.py":
                    yield f"| `{file.name}` | {first_line(file)} |"


def updated(document: str) -> str:
    """The document with today's table in it."""
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{table()}\n{END}{tail}"


def main() -> int:
    """Write the table, or say that it is out of date."""
    document = DOCUMENT.read_text("utf-8")
    if sys.argv[1:] == ["--check"]:
        return int(updated(document) != document)
    DOCUMENT.write_text(updated(document), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
