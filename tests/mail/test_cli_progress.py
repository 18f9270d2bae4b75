"""The progress line of a command."""

from __future__ import annotations

import io

from mail.cli.progress import CLEAR, ProgressLine
from mail.events import Progress


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_how_far_the_work_is_on_one_line() -> None:
    out = FakeTerminal()
    line = ProgressLine(out)
    line.show(Progress("notifying 5000 recipients of Plan\x1b[2J", 0, 5000))
    line.show(Progress("notifying 5000 recipients of Plan", 1850, 5000))
    line.show(Progress("connecting", 0, 0))
    line.show(Progress("notifying 5000 recipients of Plan", 5000, 5000))
    line.clear()
    _, first, second, third, gone = out.getvalue().split(CLEAR)
    assert first.startswith("notifying 5000 recipients of Plan")
    assert first.endswith(" 0%")
    assert "\x1b" not in first
    assert (second, third, gone) == ("notifying 5000 recipients of Plan 37%", "connecting", "")


def test_a_long_name_is_cut_so_that_the_line_stays_one() -> None:
    out = FakeTerminal()
    ProgressLine(out).show(Progress("x" * 200, 1, 2))
    assert out.getvalue() == CLEAR + "x" * 59 + "… 50%"


def test_a_file_is_told_nothing() -> None:
    out = io.StringIO()
    line = ProgressLine(out)
    line.show(Progress("sending", 1, 2))
    line.clear()
    assert out.getvalue() == ""
