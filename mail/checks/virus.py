"""Checks for viruses with YARA-X rules over the message and every decoded part; always available.

Loads the rules in rules/*.yar and scans files with them. Archives aren't unpacked yet. mail/checks/clamd.py asks
ClamAV's daemon.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import yara_x

from mail.checks.pipeline import Clean, IncomingMessage, Infected, Unchecked, Verdict
from mail.mime import content_decoding, parser, sanitize
from mail.mime.parser import Part
from storage.errors import CONFIGURATION, P2PMailError

RULES = Path(__file__).parent / "rules"
TIMEOUT = 60
"""Seconds for one file; 25 MB take about 0.1 s."""
IN_MEMORY = 1024 * 1024
"""Bytes of a decoded part up to which it is scanned in memory."""
MESSAGE_DEPTH = 4
"""Nested encoded messages that are opened; unencoded ones are found by mail/mime/parser.py."""


class RulesError(P2PMailError):
    """The virus rules can't be used; the text says which file and why."""

    exit_code = CONFIGURATION


def load_rules(folders: Sequence[Path] = (RULES,)) -> yara_x.Rules:
    """Compile every *.yar in `folders`, each file in its own namespace. Raises RulesError.

    Rules may use the variables that `_Scan` sets: `kind` ("message", "text", "attachment") and `file_name`.
    """
    compiler = yara_x.Compiler(includes_enabled=False)
    compiler.define_global("kind", "")
    compiler.define_global("file_name", "")
    files = [path for folder in folders for path in sorted(folder.glob("*.yar"))]
    if not files:
        raise RulesError(f"There are no virus rules (*.yar) in {', '.join(map(str, folders))}; install p2pmail again.")
    for path in files:
        try:
            compiler.new_namespace(path.stem)
            compiler.add_source(path.read_text(encoding="utf-8"), origin=path.name)
        except (OSError, UnicodeDecodeError, yara_x.CompileError) as error:
            raise RulesError(f"The virus rules in {path} can't be used: {str(error).splitlines()[0]}") from error
    return compiler.build()


class YaraCheck:
    """Scans the raw file and every decoded part, so that whatever is saved later was scanned."""

    name = "virus rules"

    def __init__(self, rules: yara_x.Rules | None = None) -> None:
        self._rules = rules if rules is not None else load_rules()
        # One scan at a time, always in this thread, because each thread keeps the memory that its scans needed. The
        # file is mapped, not read: its pages count as resident during the scan, but the system can reclaim them
        # (bench/anonymous.py).
        self._worker = ThreadPoolExecutor(1, "virus-rules")

    def check(self, incoming: IncomingMessage) -> Verdict:
        """Infected by the first rule that matches; Unchecked if parts may have been missed. Raises OSError."""
        return self._worker.submit(self._check, incoming.path).result()

    def _check(self, path: Path) -> Verdict:
        try:
            return _Scan(self._rules).message(path, 0)
        except yara_x.TimeoutError:
            return Unchecked(f"the scan took more than {TIMEOUT} seconds")
        except yara_x.ScanError as error:
            return Unchecked(f"the scan failed: {sanitize.line(str(error))[:200]}")


class _Scan:
    """One message's scan. A scanner belongs to one thread."""

    def __init__(self, rules: yara_x.Rules) -> None:
        self._scanner = yara_x.Scanner(rules)
        self._scanner.set_timeout(TIMEOUT)

    def message(self, path: Path, depth: int) -> Verdict:
        found = self._file(path, "message", "")
        if found:
            return Infected(found)
        with path.open("rb") as file:
            structure = parser.walk(file)
            unsure = [defect for defect in structure.defects if defect in parser.MAY_HIDE_PARTS]
            for part in _leaves(structure.parts):
                verdict = self._part(file, part, depth)
                if isinstance(verdict, Infected):
                    return verdict
                if isinstance(verdict, Unchecked):
                    unsure.append(parser.Defect.TOO_DEEP)
        return Unchecked(unsure[0]) if unsure else Clean()

    def _part(self, file: BinaryIO, part: Part, depth: int) -> Verdict:
        name = sanitize.line(part.file_name)[:1000]
        text = part.content_type in ("text/plain", "text/html") and not name and part.disposition != "attachment"
        kind = "text" if text else "attachment"
        message = part.content_type.startswith("message/") or name.lower().endswith(".eml")
        data, more = content_decoding.head(file, part, IN_MEMORY)
        if not more and not message:
            found = self._told(kind, name).scan(data).matching_rules
            return Infected(_name(found)) if found else Clean()
        with _decoded(file, part) as path:
            identifier = self._file(path, kind, name)
            if identifier:
                return Infected(identifier)
            if not message:
                return Clean()
            return self.message(path, depth + 1) if depth < MESSAGE_DEPTH else Unchecked(parser.Defect.TOO_DEEP)

    def _file(self, path: Path, kind: str, name: str) -> str:
        found = self._told(kind, name).scan_file(str(path)).matching_rules
        return _name(found) if found else ""

    def _told(self, kind: str, name: str) -> yara_x.Scanner:
        self._scanner.set_global("kind", kind)
        self._scanner.set_global("file_name", name)
        return self._scanner


def _leaves(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts with their own content, also those within forwarded messages."""
    return (part for part in parts if not (part.is_multipart or part.is_message))


def _name(found: Sequence[yara_x.Rule]) -> str:
    return str(found[0].identifier).replace("_", " ")


@contextmanager
def _decoded(file: BinaryIO, part: Part) -> Iterator[Path]:
    """The part's content in a temporary file that only this user can read."""
    with tempfile.TemporaryDirectory(prefix="p2pmail-scan-") as folder:
        path = Path(folder) / "part"
        with path.open("xb") as out:
            content_decoding.copy(file, part, out)
        yield path
