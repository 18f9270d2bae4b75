"""Opening, moving about, and what the reader shows."""

from __future__ import annotations

from pathlib import Path

from tests.screen.world import app_on, mail_screen, press, running, settled, type_ahead


def shown(app: object) -> str:
    """The reader's lines as text."""
    from tui.app import MailApp

    assert isinstance(app, MailApp)
    reader = mail_screen(app).reader
    return "\n".join("".join(text for text, _ in reader.line_pieces(y, 80)) for y in range(reader.line_count()))


async def test_enter_opens_the_selected_message_and_marks_it_read(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "enter")
        assert "10:00 Market" in shown(app)
        row = mail_screen(app).messages.selected
        assert row is not None and not row.unread
        assert mail_screen(app).reader.has_focus


async def test_a_key_typed_right_after_enter_is_for_the_message_that_opens(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        screen = mail_screen(app)
        first = screen.messages.listing.selected
        type_ahead(pilot, "enter", "j", "j")
        await settled(pilot)
        assert screen.messages.listing.selected == first


async def test_html_is_shown_as_text_and_said_to_be(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "j", "j", "j", "enter")
        assert "village" in shown(app)
        assert "HTML" in shown(app)
        assert "<b>" not in shown(app)


async def test_the_source_is_shown_and_left_again(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "enter", "backslash")
        assert "Message-ID: <message0@village.example>" in shown(app)
        await press(pilot, "backslash")
        assert "Message-ID:" not in shown(app)


async def test_words_are_found_in_the_message(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "j", "enter", "slash", "=tent", "enter")
        reader = mail_screen(app).reader
        assert reader.found[1] >= 3
        first = reader.found[0]
        await press(pilot, "n")
        assert reader.found[0] == first + 1


async def test_space_at_the_end_goes_to_the_next_message(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "enter", "space")
        assert "tent" in shown(app)


async def test_quarantined_mail_shows_why_it_is_there_and_its_header_but_no_text(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "h", "end", "enter", "enter")
        assert "EICAR Test File" in shown(app)
        assert "mallory" in shown(app).lower()
        assert "EICAR would be here" not in shown(app)


async def test_quarantined_mail_is_released_only_by_typing_the_word(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "h", "end", "enter", "ctrl+r", "=yes", "enter")
        assert app.session.mailbox.ids("Quarantine")
        await press(pilot, "=release", "enter")
        assert not app.session.mailbox.ids("Quarantine")
        await press(pilot, "u")
        assert app.session.mailbox.ids("Quarantine")


async def test_quarantined_mail_cannot_be_moved_answered_or_saved(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "h", "end", "enter", "a", "s", "r", "f", "enter", "v")
        assert len(app.session.mailbox.ids("Quarantine")) == 1
        assert app.screen is mail_screen(app)


async def test_an_attachment_is_saved_where_the_user_says(root: Path, tmp_path: Path) -> None:
    app = app_on(root)
    target = tmp_path / "out"
    async with running(app) as pilot:
        await press(pilot, "j", "j", "enter", "v", "s", "ctrl+u", f"={target}/", "enter")
        assert (target / "photo.jpg").read_bytes() == b"\xff" * 9000


async def test_without_a_desktop_opening_an_attachment_says_so(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "j", "j", "enter", "v", "o")
        assert any("no desktop" in note.message for note in app._notifications)


async def test_a_message_that_another_program_deleted_is_reported(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        row = mail_screen(app).messages.selected
        assert row is not None
        app.session.mailbox.path(row).unlink()
        await press(pilot, "enter")
        assert any("gone" in note.message for note in app._notifications)
