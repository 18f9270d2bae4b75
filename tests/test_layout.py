"""The house stands as docs/architecture.md draws it: nothing without a screen pays for one, or needs one installed.

The direction of imports is import-linter's to check (`make lint`); here is what really gets loaded, each time in a
process of its own.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grimp
import pytest

from storage.user.profile import Profile

ROOT = Path(__file__).parent.parent

SCREENLESS_ROOMS = ("mail", "overlay", "storage")

REPORT = """
import sys
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("textual", "rich")))
"""

WALK = """
import importlib, pkgutil
room = importlib.import_module({room!r})
names = [module.name for module in pkgutil.walk_packages(room.__path__, {room!r} + ".")]
for name in names:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
assert names, "the room is empty"
"""

HELP = """
from {module} import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
import sys
sys.stdout.write("\\n--\\n")
"""


def screen_modules_after(code: str) -> str:
    """Run `code` in a new interpreter; the modules of textual and rich that it left loaded, "" for none."""
    process = subprocess.run(
        [sys.executable, "-c", code + REPORT], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()[-1]


def test_the_report_sees_textual_when_it_is_there() -> None:
    assert "textual.app" in screen_modules_after("import textual.app")


@pytest.mark.parametrize("room", SCREENLESS_ROOMS)
def test_no_module_of_a_room_without_a_screen_loads_textual(room: str) -> None:
    assert screen_modules_after(WALK.format(room=room)) == ""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("mail.cli.main", ["--help"]),
        ("tui.__main__", ["--help"]),
        ("tui.__main__", ["--node-only", "--help"]),
    ],
)
def test_a_command_line_loads_textual_only_for_a_screen(module: str, arguments: list[str]) -> None:
    assert screen_modules_after(HELP.format(module=module, arguments=arguments)) == ""


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize(
    "arguments", [["list"], ["search", "lunch"], ["show", "x"], ["outbox"], ["unread-count"], ["--version"], ["--help"]]
)
def test_a_command_that_only_looks_loads_nothing_of_the_network(
    tmp_path: Path, arguments: list[str], joined: bool
) -> None:
    if joined:
        Profile(tmp_path, environ={}).create()
    code = f"""
import sys
from mail.cli.main import main
try:
    code = main({[*arguments, "--profile", str(tmp_path)]!r})
except SystemExit as end:
    code = end.code
heavy = {{"aiohttp", "cryptography", "kademlia", "rpcudp", "uvloop", "yara_x", "zfec", "textual"}}
print("\\n", code, *sorted(heavy & set(sys.modules)))
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    expected = "0" if arguments[0].startswith("--") else "78" if not joined else "65" if "show" in arguments else "0"
    assert process.stdout.splitlines()[-1].split() == [expected], process.stderr


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("tui", "mail", "overlay", "storage")
    left = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    while leaves := {module for module, imported in left.items() if not imported & left.keys()}:
        for module in leaves:
            del left[module]
    assert sorted(left) == []  # what is left imports in a circle, or imports one


@pytest.mark.parametrize("room", SCREENLESS_ROOMS)
def test_no_folder_has_more_files_than_a_reader_takes_in(room: str) -> None:
    folders = [ROOT / room, *(path for path in (ROOT / room).rglob("*") if path.is_dir())]
    counts = {folder.relative_to(ROOT).as_posix(): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: count for name, count in counts.items() if count > 16} == {}


def test_one_class_name_means_one_thing() -> None:
    names = Counter(
        node.name
        for room in ("tui", "mail", "overlay", "storage", "tests", "bench")
        for file in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert {name: count for name, count in names.items() if count > 1} == {}
