"""Keys that arrive in one packet, as over a slow line, do what they would have done one by one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input, TextArea

from mail.write.compose import Draft
from tests.screen.world import FakeAgent, app_on, mail_screen, running, settled, type_ahead, until
from tui import input_queue
from tui.app import MailApp
from tui.screens.compose import Compose


def field(app: MailApp, name: str) -> str:
    return app.screen.query_one(f"#{name}", Input).value


def subject(app: MailApp) -> str:
    row = mail_screen(app).messages.selected
    return "" if row is None else row.subject


async def test_backspace_between_letters_deletes_the_one_before_it(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        type_ahead(pilot, "c", "a", "b", "backspace", "c")
        await settled(pilot)
        assert field(app, "to") == "ac"


async def test_a_message_that_is_typed_in_one_packet_is_written_as_typed(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        type_ahead(pilot, "c", *"dan@village.example", "tab", "tab", "tab", *"Lunx", "backspace", *"ch", "tab")
        type_ahead(pilot, *"Hello", "enter", "x", "ctrl+a", *"Dan, ", "end", "backspace", "y")
        await settled(pilot)
        assert isinstance(app.screen, Compose)
        assert (field(app, "to"), field(app, "subject")) == ("dan@village.example", "Lunch")
        assert app.screen.query_one("#text", TextArea).text.splitlines()[:2] == ["Hello", "Dan, y"]


async def test_text_typed_with_reply_lands_in_the_message_and_is_no_command(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        type_ahead(pilot, "r", "d", "d", "a")
        await settled(pilot)
        assert app.screen.query_one("#text", TextArea).text.startswith("dda")
        assert len(app.session.mailbox.ids("Inbox")) == 6


async def test_a_search_typed_in_one_packet_is_searched_for(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        type_ahead(pilot, "/", *"budgex", "backspace", "t", "enter")
        await until(pilot, lambda: subject(app) == "Budget")


async def test_a_move_typed_in_one_packet_goes_to_the_folder_that_was_named(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        type_ahead(pilot, "M", *"junk", "enter", "j")
        await settled(pilot)
        assert len(app.session.mailbox.ids("Junk")) == 2
        assert not app.query("Input")


async def test_a_path_replaced_in_one_packet_is_the_path_that_is_used(root: Path, tmp_path: Path) -> None:
    app = app_on(root)
    file = tmp_path / "photo"
    async with running(app) as pilot:
        type_ahead(pilot, "j", "j", "enter", "v", "s", "ctrl+u", *str(tmp_path / "phx"), "backspace", *"oto", "enter")
        await settled(pilot)
        assert file.read_bytes() == b"\xff" * 9000


async def test_a_paste_between_keys_keeps_its_place(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        type_ahead(pilot, "c", "x", "backspace")
        pilot.app.post_message(events.Paste("dan@village.example"))
        type_ahead(pilot, "tab", "tab", "tab", "y")
        await settled(pilot)
        assert (field(app, "to"), field(app, "subject")) == ("dan@village.example", "y")


@pytest.mark.parametrize("times", [1, 5])
async def test_a_screen_that_closes_holds_up_nothing_that_was_typed_after_it(root: Path, times: int) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        for _ in range(times):
            type_ahead(pilot, "c", "escape", "?", "escape")
        type_ahead(pilot, "j", "j")
        await settled(pilot)
        assert subject(app) == "Photos"


async def test_a_command_chosen_from_the_palette_in_one_packet_is_carried_out(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        type_ahead(pilot, ":", *"outbox")
        await settled(pilot)
        assert app.screen.query_one(Input).value == "outbox"


async def test_what_is_typed_with_send_is_for_the_list_behind(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        type_ahead(pilot, "r", *"Fine", "f5", "j", "j")
        await until(pilot, lambda: subject(app) == "Photos")
        (draft,) = agent.submitted
        assert draft.text.startswith("Fine")


async def test_nothing_can_be_written_into_a_message_that_is_being_sent(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be lost: the message is what it was when it was sent."""
    agent = FakeAgent()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def submit(draft: Draft) -> None:
        begun.set()
        await go_on.wait()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(agent, "submit", submit)
    monkeypatch.setattr(input_queue, "HELD", 0.001)
    app = app_on(root, agent)
    async with running(app) as pilot:
        type_ahead(pilot, "c", *"dan@village.example", "f5")
        await begun.wait()
        await until(pilot, lambda: app.typed.idle)
        type_ahead(pilot, "x")
        await pilot.pause(0)
        await until(pilot, lambda: app.typed.idle)
        assert field(app, "to") == "dan@village.example"
        go_on.set()
        await settled(pilot)
        type_ahead(pilot, "y")
        await settled(pilot)
        assert field(app, "to") == "dan@village.exampley"
