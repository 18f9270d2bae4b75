"""Deleting, moving, marking, undoing; and that nothing ever happens to another message than the selected one."""

from __future__ import annotations

from pathlib import Path

from mail.events import NewMail
from mail.mailbox import Mailbox, Profile
from tests.screen.world import FakeAgent, SampleMessage, app_on, mail_screen, press, running, settled, written
from tui.app import MailApp


def subjects(app: MailApp, folder: str) -> list[str]:
    """What lies in a folder, newest first."""
    mailbox = app.session.mailbox
    return [row.subject for row in mailbox.rows(mailbox.ids(folder))]


async def test_delete_moves_to_trash_and_selects_the_next_message(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "d")
        assert subjects(app, "Trash") == ["The plan for Saturday"]
        row = mail_screen(app).messages.selected
        assert row is not None and row.subject == "Re: Who brings the tent?"


async def test_undo_takes_back_one_change_after_the_other(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        before = subjects(app, "Inbox")
        await press(pilot, "d", "a", "exclamation_mark")
        assert len(subjects(app, "Inbox")) == len(before) - 2
        await press(pilot, "u", "u", "u")
        assert subjects(app, "Inbox") == before
        assert not any("F" in row.flags for row in app.session.mailbox.rows(app.session.mailbox.ids("Inbox"))[:3])


async def test_new_mail_does_not_move_the_selection_to_another_message(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "j", "j")
        chosen = mail_screen(app).messages.selected
        Profile(root).folders().add("Inbox", written(SampleMessage("Fresh", age=0), 99))
        agent.tell(NewMail("message99@village.example", "Bob <bob@village.example>", "Fresh", "Inbox"))
        await settled(pilot)
        assert subjects(app, "Inbox")[0] == "Fresh"
        assert mail_screen(app).messages.selected == chosen
        await press(pilot, "d")
        assert subjects(app, "Trash") == ["Photos"]


async def test_nothing_is_deleted_when_the_selected_message_was_taken_away_by_another_program(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "j")
        row = mail_screen(app).messages.selected
        assert row is not None
        app.session.mailbox.path(row).unlink()
        mail_screen(app).refresh_index()
        await settled(pilot)
        before = subjects(app, "Inbox")
        await press(pilot, "d")
        assert subjects(app, "Inbox") == before
        assert subjects(app, "Trash") == []


async def test_marked_messages_are_archived_together(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "x", "x", "j", "x", "a")
        assert subjects(app, "Archive") == ["The plan for Saturday", "Re: Who brings the tent?", "Newsletter"]
        await press(pilot, "u")
        assert subjects(app, "Archive") == []


async def test_in_the_reader_only_the_message_shown_is_deleted_whatever_is_marked(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "x", "x", "enter", "d")
        assert subjects(app, "Trash") == ["Photos"]


async def test_deleting_in_trash_asks_and_then_deletes_for_good(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "d")
        mail_screen(app).show_folder("Trash")
        await settled(pilot)
        await press(pilot, "d", "n")
        assert len(subjects(app, "Trash")) == 1
        await press(pilot, "d", "y")
        assert subjects(app, "Trash") == []
        await press(pilot, "u", "u")
        assert "The plan for Saturday" not in subjects(app, "Inbox")


async def test_spam_goes_to_junk_and_is_learned_and_undo_unlearns_it(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "s")
        assert "The plan for Saturday" in subjects(app, "Junk")
        assert learned(root) == (1, 0)
        await press(pilot, "u")
        assert "The plan for Saturday" in subjects(app, "Inbox")
        assert learned(root) == (0, 0)


async def test_in_junk_the_same_key_says_not_spam(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        mail_screen(app).show_folder("Junk")
        await settled(pilot)
        await press(pilot, "s")
        assert "You have won" in subjects(app, "Inbox")
        assert learned(root) == (0, 1)


def learned(root: Path) -> tuple[int, int]:
    """How often the sender's domain was learned in spam and in ham."""
    from storage.user.state import UserState

    state = UserState(root / "state.sqlite")
    try:
        counts = state.tokens(["domain:village.example", "domain:spam.example"])
        return sum(spam for spam, _ in counts.values()), sum(ham for _, ham in counts.values())
    finally:
        state.close()


async def test_move_asks_for_a_folder_and_makes_a_new_one(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "M", "=arc", "enter")
        assert subjects(app, "Archive") == ["The plan for Saturday"]
        await press(pilot, "M", "=Tents", "enter")
        assert subjects(app, "Tents") == ["Re: Who brings the tent?"]


async def test_read_and_unread(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "N")
        row = mail_screen(app).messages.selected
        assert row is not None and not row.unread
        await press(pilot, "N")
        row = mail_screen(app).messages.selected
        assert row is not None and row.unread


async def test_what_neomutt_did_meanwhile_is_shown(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        other = Mailbox(Profile(root))
        folders = Profile(root).folders()
        row = other.rows(other.ids("Inbox"))[0]
        folders.change_flags("Inbox", row.unique, "FS", "", row.place)
        mail_screen(app)._watch()
        await settled(pilot)
        now = mail_screen(app).messages.selected
        assert now is not None and now.flags == "FS"


async def test_search_finds_in_all_folders_as_it_is_typed_and_escape_returns(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "slash", "=sat")
        screen = mail_screen(app)
        assert [row.subject for row in app.session.mailbox.rows(screen.messages.listing.ids)] == [
            "The plan for Saturday"
        ]
        await press(pilot, "escape")
        assert len(screen.messages.listing) == 6


async def test_a_search_that_makes_no_sense_says_so_and_nothing_breaks(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "slash", "=is:purple ")
        assert any("is:purple" in note.message for note in app._notifications)
        await press(pilot, "escape")
        assert len(mail_screen(app).messages.listing) == 6
