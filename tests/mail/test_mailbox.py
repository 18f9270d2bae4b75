"""Changing mail on disk and undoing it, also when other programs change it meanwhile (mail/mailbox.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mail.mailbox import ARCHIVE, DRAFTS, INBOX, QUARANTINE, TRASH, Mailbox, MailboxError, Profile, Row
from mail.mime.addresses import Address
from mail.write.compose import Enclosure
from mail.write.drafts import DraftForm
from storage import durable

ME = Address("", "alice@network.example")
NOW = 1_790_000_000.0


def message(number: int, text: str = "Hello.") -> bytes:
    return (
        f"From: Bob <bob@network.example>\r\nSubject: Letter {number}\r\nMessage-ID: <m{number}@network.example>\r\n"
        f"Date: Mon, 21 Sep 2026 {10 + number:02}:00:00 +0000\r\n\r\n{text}\r\n"
    ).encode()


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    """Four messages in the Inbox, of which number 3 is the newest; one in Quarantine."""
    profile = Profile(tmp_path / "profile")
    profile.create()
    for number in range(4):
        profile.folders().add(INBOX, message(number))
    profile.folders().add(QUARANTINE, message(9))
    opened = Mailbox(profile, now=lambda: NOW)
    opened.refresh()
    return opened


def rows(mailbox: Mailbox, folder: str) -> list[Row]:
    return mailbox.rows(mailbox.ids(folder))


def on_disk(mailbox: Mailbox, folder: str) -> list[str]:
    """The unique names in the folder on disk, not in the index."""
    return sorted(entry.unique for entry in mailbox.profile.folders().scan(folder))


def test_a_deleted_message_is_in_trash_on_disk_and_back_after_undo(mailbox: Mailbox) -> None:
    before = on_disk(mailbox, INBOX)
    chosen = [row.id for row in rows(mailbox, INBOX)[:2]]
    assert mailbox.delete(chosen) == 2
    assert len(on_disk(mailbox, TRASH)) == 2
    assert mailbox.undo() == "deleted 2 messages"
    assert on_disk(mailbox, INBOX) == before
    assert on_disk(mailbox, TRASH) == []
    assert mailbox.undo() is None


def test_undo_says_what_another_program_took_away(mailbox: Mailbox) -> None:
    first, second, *_ = rows(mailbox, INBOX)
    mailbox.delete([first.id, second.id])
    gone = mailbox.find(first.message_id, TRASH)
    assert gone is not None
    mailbox.path(gone).unlink()
    said = mailbox.undo()
    assert said == "deleted 2 messages; 1 message was changed elsewhere and stays as it is"
    assert mailbox.find(second.message_id, INBOX) is not None


def renamed(mailbox: Mailbox, folder: str, unique: str, flags: str, appended: str = "") -> Path:
    """Another program sets exactly these flags, and appends to the file's name."""
    path = mailbox.profile.folders().path(folder, unique)
    assert path is not None
    return path.rename(path.parent.with_name("cur") / f"{unique}{appended}:2,{flags}")


def flags_on_disk(mailbox: Mailbox, folder: str) -> list[str]:
    return sorted(entry.flags for entry in mailbox.profile.folders().scan(folder))


def test_undo_of_a_move_keeps_the_flags_that_another_program_set(mailbox: Mailbox) -> None:
    chosen = rows(mailbox, INBOX)[0]
    mailbox.archive([chosen.id])
    renamed(mailbox, ARCHIVE, chosen.unique, "FRS", ",U=9")
    mailbox.refresh()
    assert mailbox.undo() == "archived 1 message"
    assert flags_on_disk(mailbox, INBOX) == ["", "", "", "FRS"]


def test_undo_of_a_flag_takes_back_this_flag_alone(mailbox: Mailbox) -> None:
    chosen = rows(mailbox, INBOX)[0]
    renamed(mailbox, INBOX, chosen.unique, "F")  # not in the index yet
    mailbox.flag([chosen.id], add="FS")
    renamed(mailbox, INBOX, chosen.unique, "FRS")
    assert mailbox.undo() == "changed 1 message"
    assert flags_on_disk(mailbox, INBOX) == ["", "", "", "FR"]
    mailbox.flag([chosen.id], remove="R")
    assert mailbox.undo() == "changed 1 message"
    assert flags_on_disk(mailbox, INBOX) == ["", "", "", "FR"]


@pytest.mark.parametrize("looked", [True, False])
def test_undo_leaves_what_another_program_moved_on_where_it_is(mailbox: Mailbox, looked: bool) -> None:
    chosen = rows(mailbox, INBOX)[0]
    mailbox.archive([chosen.id])
    mailbox.profile.folders().move(ARCHIVE, chosen.unique, "Work")
    if looked:
        mailbox.refresh()
    assert mailbox.undo() == "archived 1 message; 1 message was changed elsewhere and stays as it is"
    assert on_disk(mailbox, "Work") == [chosen.unique]


def test_after_an_error_the_rest_of_a_change_can_be_undone_again(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox.delete([row.id for row in rows(mailbox, INBOX)[:2]])
    move, calls = durable.move, iter([True, False])

    def failing(source: Path, target: Path) -> None:
        if not next(calls, True):
            raise OSError(28, "No space left on device")
        move(source, target)

    monkeypatch.setattr(durable, "move", failing)
    with pytest.raises(OSError, match="No space left"):
        mailbox.undo()
    assert mailbox.undo() == "deleted 2 messages"
    assert len(on_disk(mailbox, INBOX)) == 4


def test_a_draft_renamed_by_mbsync_between_saves_leaves_nothing_behind(mailbox: Mailbox) -> None:
    kept = None
    for number in range(3):
        kept = mailbox.save_draft(DraftForm(subject=f"v{number}"), ME, kept)
        renamed(mailbox, DRAFTS, kept, "DS", f",U={number + 1}")
    assert kept is not None
    assert on_disk(mailbox, DRAFTS) == [kept]
    mailbox.refresh()
    mailbox.discard_draft(kept)
    assert on_disk(mailbox, DRAFTS) == []
    assert rows(mailbox, DRAFTS) == []


def test_undo_works_after_the_index_was_made_again(mailbox: Mailbox) -> None:
    chosen = rows(mailbox, INBOX)[0]
    mailbox.delete([chosen.id])
    mailbox.close()
    for name in ("", "-wal", "-shm"):
        Path(f"{mailbox.profile.index_file}{name}").unlink(missing_ok=True)
    mailbox.refresh()
    assert mailbox.undo() == "deleted 1 message"
    assert len(on_disk(mailbox, INBOX)) == 4


def test_a_change_that_concerned_nothing_is_not_in_the_way_of_undo(mailbox: Mailbox) -> None:
    chosen = [rows(mailbox, INBOX)[0].id]
    mailbox.delete(chosen)
    assert mailbox.flag(chosen, "", "F") == 0
    assert mailbox.undo() == "deleted 1 message"


def test_flags_that_another_program_set_survive_ours(mailbox: Mailbox) -> None:
    chosen = rows(mailbox, INBOX)[0]
    mailbox.profile.folders().change_flags(INBOX, chosen.unique, "R", "", chosen.place)
    mailbox.flag([chosen.id], "F")
    entry = mailbox.profile.folders().find(INBOX, chosen.unique)
    assert entry is not None and entry.flags == "FR"


def test_reading_a_message_is_not_undone(mailbox: Mailbox) -> None:
    chosen = rows(mailbox, INBOX)[0]
    assert mailbox.mark_seen(chosen)
    assert not mailbox.mark_seen(chosen)
    assert mailbox.undo() is None


def test_a_message_renamed_by_another_program_is_still_opened(mailbox: Mailbox) -> None:
    chosen = rows(mailbox, INBOX)[0]
    mailbox.profile.folders().change_flags(INBOX, chosen.unique, "FS", "", chosen.place)
    assert mailbox.open(chosen).subject == "Letter 3"


def test_nothing_of_a_message_in_quarantine_is_opened_moved_or_saved(mailbox: Mailbox, tmp_path: Path) -> None:
    (suspect,) = rows(mailbox, QUARANTINE)
    for attempt in (
        lambda: mailbox.open(suspect),
        lambda: mailbox.source(suspect),
        lambda: mailbox.hold(suspect),
        lambda: mailbox.save_attachment(suspect, 0, tmp_path),
        lambda: mailbox.move([suspect.id], INBOX),
        lambda: mailbox.delete([suspect.id]),
        lambda: mailbox.move([rows(mailbox, INBOX)[0].id], QUARANTINE),
    ):
        with pytest.raises(MailboxError):
            attempt()
    assert mailbox.mark_ham([suspect.id]) == 0
    assert mailbox.quarantined(suspect).headers
    assert len(on_disk(mailbox, QUARANTINE)) == 1


def test_release_is_the_only_way_out_of_quarantine_and_can_be_undone(mailbox: Mailbox) -> None:
    (suspect,) = rows(mailbox, QUARANTINE)
    assert mailbox.release([suspect.id]) == 1
    assert on_disk(mailbox, QUARANTINE) == []
    mailbox.undo()
    assert len(on_disk(mailbox, QUARANTINE)) == 1


def test_a_draft_kept_again_replaces_what_was_kept_before(mailbox: Mailbox) -> None:
    first = mailbox.save_draft(DraftForm(to="bob"), ME)
    second = mailbox.save_draft(DraftForm(to="bob@network.example"), ME, first)
    assert on_disk(mailbox, DRAFTS) == [second]
    assert [mailbox.open_draft(row).to for row in rows(mailbox, DRAFTS)] == ["bob@network.example"]
    mailbox.discard_draft(second)
    assert on_disk(mailbox, DRAFTS) == []


def test_a_forwarded_message_stays_readable_although_it_is_deleted_meanwhile(mailbox: Mailbox) -> None:
    chosen = rows(mailbox, INBOX)[0]
    held = mailbox.hold(chosen)
    mailbox.purge([chosen.id])
    assert b"Letter 3" in held.read_bytes()
    mailbox.let_go(DraftForm(enclosures=(Enclosure(held, 0),)))
    assert not held.exists()


def test_letting_go_touches_no_file_of_the_users(mailbox: Mailbox, tmp_path: Path) -> None:
    own = tmp_path / "forward-own.eml"
    own.write_text("mine")
    mailbox.let_go(DraftForm(enclosures=(Enclosure(own),)))
    assert own.exists()


def test_a_big_search_hands_out_its_first_results_before_all(mailbox: Mailbox) -> None:
    for number in range(10, 230):
        mailbox.profile.folders().add(INBOX, message(number % 10, "haystack"))
    mailbox.refresh()
    first, everything = mailbox.search("haystack")
    assert (len(first), len(everything)) == (200, 220)
    assert everything[:200] == first


def test_stamps_change_when_another_program_changes_a_folder(mailbox: Mailbox) -> None:
    before = mailbox.stamps()
    assert mailbox.stamps() == before
    mailbox.profile.folders().add(INBOX, message(5))
    assert mailbox.stamps() != before


def drafts_shown(mailbox: Mailbox) -> list[tuple[str, str]]:
    mailbox.refresh()
    return sorted((found.to, found.text) for found in map(mailbox.open_draft, rows(mailbox, DRAFTS)))


def test_a_draft_that_another_program_took_away_and_wrote_again_is_kept_beside_ours(mailbox: Mailbox) -> None:
    told: list[str] = []
    kept = mailbox.save_draft(DraftForm(to="bob@x.example", text="one"), ME)
    path = mailbox.profile.folders().path(DRAFTS, kept)
    assert path is not None
    (path.parent / "1700000000.neomutt.host:2,DS").write_bytes(b"To: carol@x.example\r\n\r\ntheirs\r\n")
    path.unlink()
    kept = mailbox.save_draft(DraftForm(to="bob@x.example", text="two"), ME, kept, told.append)
    assert drafts_shown(mailbox) == [("bob@x.example", "two"), ("carol@x.example", "theirs\n")]
    assert [words.partition(":")[0] for words in told] == ["Another program has changed, sent or deleted this draft"]
    mailbox.save_draft(DraftForm(to="bob@x.example", text="three"), ME, kept, told.append)
    assert len(told) == 1


def test_a_draft_that_another_program_wrote_into_is_kept_beside_ours(mailbox: Mailbox) -> None:
    told: list[str] = []
    first = mailbox.save_draft(DraftForm(to="bob@x.example", text="one"), ME)
    path = mailbox.profile.folders().path(DRAFTS, first)
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b"bob@", b"carol@"))
    mailbox.save_draft(DraftForm(to="bob@x.example", text="two"), ME, first, told.append)
    assert drafts_shown(mailbox) == [("bob@x.example", "two"), ("carol@x.example", "one")]
    assert told == ["Another program has changed this draft: its version stays in Drafts, beside yours."]


def test_a_sent_draft_that_another_program_changed_stays_and_is_told(mailbox: Mailbox) -> None:
    mailbox.save_draft(DraftForm(to="bob@x.example", text="one"), ME)
    (row,) = rows(mailbox, DRAFTS)
    mailbox.open_draft(row)
    path = mailbox.path(row)
    path.write_bytes(path.read_bytes().replace(b"bob@", b"carol@"))
    assert "stays in Drafts" in mailbox.discard_draft(row.unique)
    assert drafts_shown(mailbox) == [("carol@x.example", "one")]


def test_a_draft_keeps_the_flags_that_another_program_gave_it(mailbox: Mailbox) -> None:
    kept = mailbox.save_draft(DraftForm(text="one"), ME)
    renamed(mailbox, DRAFTS, kept, "DFS", ",U=3")
    mailbox.save_draft(DraftForm(text="two"), ME, kept)
    assert flags_on_disk(mailbox, DRAFTS) == ["DFS"]


def test_attachments_of_another_programs_draft_outlive_every_save(mailbox: Mailbox) -> None:
    boundary = b"--b\r\n"
    place = mailbox.profile.folder(DRAFTS) / "cur" / "1700000000.neomutt.host:2,DS"
    place.write_bytes(
        b"To: bob@x.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        + boundary
        + b"\r\nsee\r\n"
        + boundary
        + b"Content-Type: image/png\r\nContent-Disposition: attachment; filename=a.png\r\n\r\npixels\r\n--b--\r\n"
    )
    mailbox.refresh()
    (row,) = rows(mailbox, DRAFTS)
    unsent, kept = mailbox.open_draft(row), row.unique
    for text in ("see 1", "see 2"):
        kept = mailbox.save_draft(replace(unsent, text=text), ME, kept)
    (row,) = rows(mailbox, DRAFTS)
    (attachment,) = mailbox.open(row).attachments
    saved = mailbox.save_attachment(row, attachment.index, mailbox.profile.root)
    assert (saved.name, saved.read_bytes()) == ("a.png", b"pixels")
    mailbox.let_go(unsent, kept=True)
    assert list(mailbox.profile.spool.iterdir()) == []


def test_a_full_disk_leaves_the_draft_that_was_kept(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = mailbox.save_draft(DraftForm(text="one"), ME)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("mail.write.drafts.write", full)
        with pytest.raises(OSError, match="No space left"):
            mailbox.save_draft(DraftForm(text="two"), ME, kept)
    assert on_disk(mailbox, DRAFTS) == [kept]
    assert list(mailbox.profile.spool.iterdir()) == []


# -- who is shown as the sender

ANSWER = (
    b"From: alice@network.example\r\nTo: Bob Smith <bob@network.example>\r\nSubject: Re: Letter\r\n"
    b"Message-ID: <sent@network.example>\r\n\r\nYes.\r\n"
)


def from_(sender: str) -> bytes:
    return f"From: {sender}\r\nSubject: S\r\nMessage-ID: <odd@network.example>\r\n\r\nx\r\n".encode()


@pytest.mark.parametrize(
    ("sender", "listed", "opened", "odd"),
    [
        ("Carol <carol@network.example>", "Carol", "Carol <carol@network.example>", 0),
        ("Bob Smith <bob@network.example>", "Bob Smith", "Bob Smith <bob@network.example>", 0),
        (
            '"bob@network.example" <mallory@network.example>',
            "mallory@network.example",
            'mallory@network.example (calls itself "bob@network.example")',
            0,
        ),
        (
            f'"Bob <bob@network.example>{chr(0x2800) * 60}" <mallory@network.example>',
            "mallory@network.example",
            'mallory@network.example (calls itself "Bob <bob@network.example>")',
            0,
        ),
        (f'"{chr(0x3164)}" <mallory@network.example>', "mallory@network.example", "mallory@network.example", 0),
        (
            "B\u043eb Smith <mallory@network.example>",
            "!? mallory@network.example",
            'mallory@network.example (calls itself "B\u043eb Smith")',
            2,
        ),
        ("Robert <b0b@network.example>", "!? Robert", "Robert <b0b@network.example>", 1),
    ],
)
def test_attack_a_sender_is_not_taken_for_a_contact(
    mailbox: Mailbox, sender: str, listed: str, opened: str, odd: int
) -> None:
    mailbox.profile.folders().add("Sent", ANSWER)
    mailbox.profile.folders().add(ARCHIVE, from_(sender))
    mailbox.refresh()
    (row,) = rows(mailbox, ARCHIVE)
    assert row.who == listed
    message = mailbox.open(row)
    assert message.author == opened
    assert sum("the sender" in words for words in message.defects) == odd


def test_the_sender_of_what_lies_in_quarantine_is_only_claimed(mailbox: Mailbox) -> None:
    assert [row.who for row in rows(mailbox, QUARANTINE)] == ["claims: bob@network.example"]


def test_somebody_is_a_contact_as_soon_as_a_message_to_them_is_in_sent(mailbox: Mailbox) -> None:
    mailbox.profile.folders().add(ARCHIVE, from_("Bob Smith <mallory@network.example>"))
    mailbox.refresh()
    assert rows(mailbox, ARCHIVE)[0].who == "Bob Smith"
    mailbox.profile.folders().add("Sent", ANSWER)
    mailbox.refresh()
    assert rows(mailbox, ARCHIVE)[0].who == "mallory@network.example"
