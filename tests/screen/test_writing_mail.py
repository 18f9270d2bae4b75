"""Composing: what is typed is kept, what is sent is what was typed, and nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input, TextArea

from mail.mailbox import Mailbox
from mail.write import drafts
from mail.write.drafts import DraftForm
from tests.screen.world import FakeAgent, app_on, mail_screen, press, running, settled, type_ahead, until
from tui.app import MailApp
from tui.screens.compose import Compose


def kept(app: MailApp) -> list[DraftForm]:
    """The drafts on disk, newest first."""
    mailbox = Mailbox(app.session.profile)
    mailbox.refresh()
    return [mailbox.open_draft(row) for row in mailbox.rows(mailbox.ids("Drafts"))]


async def test_a_message_is_sent_as_it_was_typed_and_its_draft_goes(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "c", "=bob@village.example", "enter", "enter", "enter", "=Hi", "enter", "=Text here", "f5")
        (draft,) = agent.submitted
        assert [person.address for person in draft.to] == ["bob@village.example"]
        assert (draft.subject, draft.text) == ("Hi", "Text here")
        assert app.screen is mail_screen(app)
        assert kept(app) == []


async def test_what_is_typed_is_kept_while_it_is_typed(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "c", "=bob", "enter", "enter", "enter", "=Half")
        (unsent,) = kept(app)
        assert (unsent.to, unsent.subject) == ("bob", "Half")


async def test_a_draft_is_continued_and_stays_one_draft(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "c", "=bob@village.example", "escape")
        mail_screen(app).show_folder("Drafts")
        await settled(pilot)
        await press(pilot, "enter", "=More", "escape")
        (unsent,) = kept(app)
        assert unsent.to == "bob@village.example"
        assert unsent.text == "More"


async def test_a_draft_that_another_program_changes_while_it_is_written_is_kept_beside_it_aloud(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "c", "=bob@village.example", "enter")
        (path,) = (app.session.profile.folder("Drafts") / "cur").iterdir()
        path.write_bytes(path.read_bytes().replace(b"bob@", b"carol@"))
        await press(pilot, "=dave@village.example", "escape")
        assert sorted((unsent.to, unsent.cc) for unsent in kept(app)) == [
            ("bob@village.example", "dave@village.example"),
            ("carol@village.example", ""),
        ]
        assert any("stays in Drafts, beside yours" in note.message for note in app._notifications)


async def test_a_draft_that_can_not_be_kept_whole_stays_as_it_is(root: Path) -> None:
    html = b"To: bob@village.example\r\nSubject: rich\r\nContent-Type: text/html\r\n\r\n<b>words</b>\r\n"
    app = app_on(root)
    place = app.session.profile.folder("Drafts") / "cur" / "1700000000.other.host:2,DS"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(html)
    async with running(app) as pilot:
        mail_screen(app).show_folder("Drafts")
        await settled(pilot)
        await press(pilot, "enter", "=More", "escape")
        assert place.read_bytes() == html
        assert sorted(unsent.text for unsent in kept(app)) == ["words\n", "words\nMore"]
        assert any("It stays in Drafts unchanged" in note.message for note in app._notifications)


async def test_a_message_without_recipient_is_not_sent_and_says_why(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "c", "f5")
        assert agent.submitted == []
        assert isinstance(app.screen, Compose)
        assert any("no recipient" in note.message for note in app._notifications)


async def test_a_message_that_the_agent_refuses_stays_on_the_screen_and_in_drafts(root: Path) -> None:
    agent = FakeAgent()
    agent.refuse = OSError(28, "No space left on device")
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "c", "=bob@village.example", "f5")
        assert isinstance(app.screen, Compose)
        assert any("No space left" in note.message for note in app._notifications)
        assert [unsent.to for unsent in kept(app)] == ["bob@village.example"]


async def test_reply_quotes_names_the_parent_and_marks_it_replied_and_read(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "r", "=Fine", "f5")
        (draft,) = agent.submitted
        assert draft.in_reply_to == "message0@village.example"
        assert draft.text.startswith("Fine")
        assert "> 10:00 Market" in draft.text
        row = app.session.mailbox.find("message0@village.example", "Inbox")
        assert row is not None and set(row.flags) >= {"R", "S"}


async def test_text_typed_right_after_reply_lands_in_the_message(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        type_ahead(pilot, "r")
        await until(pilot, lambda: isinstance(app.screen, Compose))
        type_ahead(pilot, "d", "d", "a")
        await settled(pilot)
        assert app.screen.query_one("#text", TextArea).text.startswith("dda")
        assert len(app.session.mailbox.ids("Inbox")) == 6


async def test_what_is_too_large_is_said_when_it_is_attached(root: Path, tmp_path: Path) -> None:
    video = tmp_path / "video.bin"
    with video.open("wb") as out:
        out.truncate(740_000_000)
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "c", "f6", "ctrl+u", f"={video}", "enter")
        assert isinstance(app.screen, Compose)
        assert app.screen.unsent.enclosures == ()
        assert any("960 MiB" in note.message for note in app._notifications)


async def test_forward_takes_the_attachments_along(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "j", "j", "f", "=dan@village.example", "f5")
        (draft,) = agent.submitted
        assert [item.name for item in draft.enclosures] == ["photo.jpg"]
        assert draft.subject == "Fwd: Photos"
        row = app.session.mailbox.find("message2@village.example", "Inbox")
        assert row is not None and "P" in row.flags
        assert list(app.session.profile.spool.glob("forward-*")) == []


async def test_an_answer_without_a_word_leaves_nothing_behind(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "r", "escape", "j", "j", "f", "escape")
        assert kept(app) == []
        assert list(app.session.profile.spool.glob("forward-*")) == []


async def test_a_file_is_attached_and_taken_off(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("notes")
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "c", "f6", "ctrl+u", f"={file}", "enter")
        screen = app.screen
        assert isinstance(screen, Compose)
        assert [item.path for item in screen.unsent.enclosures] == [file]
        await press(pilot, "f8")
        assert screen.unsent.enclosures == ()


async def test_discarding_asks_and_then_removes_the_draft(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "c", "=bob", "f9", "n")
        assert isinstance(app.screen, Compose)
        await press(pilot, "f9", "y")
        assert kept(app) == []


async def test_a_crash_keeps_what_was_typed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_on(root)
    with pytest.raises(RuntimeError, match="planted"):
        async with running(app) as pilot:
            await press(pilot, "c")
            monkeypatch.setattr(Compose, "_keep", lambda self: None)
            app.screen.query_one("#subject", Input).value = "Precious"
            app.screen.query_one("#text", TextArea).text = "words"
            await settled(pilot)

            def break_down() -> None:
                raise RuntimeError("planted")

            app.call_later(break_down)
            await pilot.pause()
    assert [(unsent.subject, unsent.text) for unsent in kept(app)] == [("Precious", "words")]


async def test_quitting_keeps_what_was_typed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "c")
        monkeypatch.setattr(Compose, "_keep", lambda self: None)
        app.screen.query_one("#subject", Input).value = "Precious"
        await settled(pilot)
        type_ahead(pilot, "ctrl+q")
        await settled(pilot)
        assert [unsent.subject for unsent in kept(app)] == ["Precious"]


async def test_the_editor_changes_the_text(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "from the editor" >> "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    from contextlib import nullcontext

    app = app_on(root)
    monkeypatch.setattr(app, "suspend", nullcontext)
    async with running(app) as pilot:
        await press(pilot, "c", "f7")
        assert "from the editor" in app.screen.query_one("#text", TextArea).text


def test_a_draft_is_read_as_it_was_written(tmp_path: Path) -> None:
    from mail.mime.addresses import Address
    from mail.write.compose import Enclosure

    unsent = DraftForm(
        to='"Doe, John" <john@example.org>, half@',
        bcc="Čapek <c@example.org>",
        subject="Grüße " * 60,
        text="first\n\nlast öä\n",
        enclosures=(Enclosure(Path("/tmp/ä b.txt")), Enclosure(Path("/x.eml"), 2, "p.jpg")),
        in_reply_to="a@b",
        references=("x@y", "a@b"),
        answers="a@b",
    )
    place = tmp_path / "draft"
    with place.open("wb") as out:
        drafts.write(
            out,
            unsent,
            sender=Address("", "alice@village.example"),
            message_id="d@village.example",
            now=1e9,
            key=b"key",
        )
    assert drafts.read(place, b"key") == unsent


def test_a_draft_of_another_program_is_read_from_its_header(tmp_path: Path) -> None:
    place = tmp_path / "draft"
    place.write_bytes(b"To: bob@example.org\nSubject: Hi\nX-P2pmail-Draft: !!nonsense\n\nText\n")
    unsent = drafts.read(place, b"key")
    assert (unsent.to, unsent.subject, unsent.text) == ("bob@example.org", "Hi", "Text\n")
