"""Commands that use only the disk: list, show, search, unread-count, outbox, notices. No key, no network."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial

from mail.author import mailbox as mailbox_of
from mail.cli.errors import CONFIGURATION, DATA, OK, PERMISSION, CommandError
from mail.mailbox import DRAFTS, QUARANTINE, IndexUnavailable, Mailbox
from mail.mime import sanitize
from mail.write.private_headers import without_private
from storage.database import DatabaseError
from storage.user.index import Row
from storage.user.notices import Notice
from storage.user.outbox import Outbox, OutboxEntry
from storage.user.profile import Profile
from storage.user.state import UserState

FLAGS = {"S": "seen", "R": "replied", "F": "flagged", "P": "forwarded", "D": "draft", "T": "trashed"}
"""Names of Maildir flags."""
ROWS_AT_ONCE = 500
STALE = "p2pmail: {} can't be read whole while its disk can't be written; what changed last may be missing"


def opened(profile: Profile) -> Mailbox:
    """Open the mailbox and update its index, in memory if the disk can't be written.

    Raises CommandError if there is no profile.
    """
    existing(profile)
    mailbox = Mailbox(profile)
    try:
        mailbox.refresh()
    except IndexUnavailable:
        mailbox.detach()
        mailbox.refresh()
    return mailbox


def existing(profile: Profile) -> None:
    """Raise CommandError if there is no profile. Commands that only read must not create one."""
    if not profile.exists:
        raise CommandError(CONFIGURATION, f"There is no profile in {profile.root}: join a network, or use --profile.")


def list_(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail list [FOLDER] [--json]`."""
    mailbox = opened(profile)
    name = next((n for n in mailbox.folders() if n.lower() == args.folder.lower()), None)
    if name is None:
        raise CommandError(DATA, f"There is no folder {args.folder!r}; there are: {', '.join(mailbox.folders())}.")
    _print_rows(mailbox, _rows(mailbox, mailbox.ids(name)), args.json)
    return OK


def search(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail search QUERY [--json]`."""
    mailbox = opened(profile)
    found: Sequence[int] = ()
    for batch in mailbox.search(" ".join(args.query)):
        found = batch
    _print_rows(mailbox, (row for row in _rows(mailbox, found) if row.folder != QUARANTINE), args.json)
    return OK


def unread_count(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail unread-count`."""
    counts = opened(profile).folders().get("Inbox")
    print(counts.unread if counts else 0)
    return OK


def show(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail show ID [--raw]`."""
    mailbox = opened(profile)
    found = mailbox.named(args.id.strip().removeprefix("<").removesuffix(">"))
    row = next((row for row in found if row.folder != QUARANTINE), None)
    if not found:
        raise CommandError(DATA, f"There is no message {args.id} here.")
    if row is None:
        raise CommandError(PERMISSION, "That message is in Quarantine and isn't shown. The reader can release it.")
    if len(found) > 1:
        print(f"p2pmail: {len(found)} messages have this id; `p2pmail list --json` names each.", file=sys.stderr)
    if args.raw:
        with mailbox.path(row).open("rb") as file:
            chunks = iter(partial(file.read, 1 << 16), b"")
            for chunk in without_private(chunks) if row.folder == DRAFTS else chunks:
                sys.stdout.buffer.write(chunk)
        return OK
    message = mailbox.open(row)
    for name, value in (
        ("From", message.author),
        ("To", ", ".join(map(str, message.to))),
        ("Cc", ", ".join(map(str, message.cc))),
        ("Bcc", ", ".join(map(str, message.bcc))),
        ("Date", _date(message.date) or f"{_date(row.date)} (of arrival; its own date can't be read)"),
        ("Subject", message.subject),
    ):
        if value:
            print(f"{name}: {sanitize.line(value)}")
    if message.defects:
        print(f"Odd: {'; '.join(message.defects)}.")
    for attachment in message.attachments:
        print(f"Attachment: {attachment.name} ({attachment.content_type}, {attachment.size} bytes)")
    print()
    print(message.text)
    return OK


def outbox(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail outbox [--json]`."""
    existing(profile)
    entries: list[OutboxEntry] = []
    if profile.outbox_file.exists():
        try:
            box, whole = Outbox.to_read(profile.outbox_file)
        except DatabaseError:  # an older version, or damaged: opening it below says so
            box, whole = Outbox(profile.outbox_file), True
        with closing(box):
            entries = box.entries()
        if not whole:
            print(STALE.format("the outbox"), file=sys.stderr)
    if args.json:
        print(json.dumps([_entry(entry) for entry in entries], indent=2, ensure_ascii=False))
        return OK
    for entry in entries:
        print(f"{_day(entry.created)}  {sanitize.line(entry.subject) or '(no subject)'}  <{entry.message_id}>")
        for r in entry.recipients:
            copies = f"bodies {r.bodies[0]}/{r.bodies[1]}, notifications {r.notifications[0]}/{r.notifications[1]}"
            print(f"    {r.state:<10} {r.address}  {copies}{'  ' + sanitize.line(r.reason) if r.reason else ''}")
    return OK


def notices(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail notices [--all] [--json] [--seen]`."""
    existing(profile)
    if not profile.state_file.exists():  # no notice was ever stored; don't create the file
        if args.json:
            print("[]")
        return OK
    with profile_state(profile, reads=not args.seen) as state:
        found = state.notices.all() if args.all else state.notices.unseen()
        if args.json:
            print(json.dumps([_notice(notice) for notice in found], indent=2, ensure_ascii=False))
        else:
            for notice in found:
                print(f"{' ' if notice.seen else 'N'} {_day(notice.at)}  {sanitize.line(notice.text)}")
        sys.stdout.flush()
        if args.seen and found:
            state.notices.mark_seen(found[0].id, time.time())
    return OK


@contextmanager
def profile_state(profile: Profile, *, reads: bool = False) -> Iterator[UserState]:
    """Open the profile's state during the block; with `reads`, without writing to disk. Raises DatabaseError."""
    state = None
    if reads:
        with suppress(DatabaseError):  # an older version, or damaged: opening it below says so
            state, whole = UserState.to_read(profile.state_file)
            if not whole:
                print(STALE.format("the list of notices"), file=sys.stderr)
    with closing(state or UserState(profile.state_file)) as opened_state:
        yield opened_state


def _notice(notice: Notice) -> dict[str, object]:
    return {"id": notice.id, "at": _date(notice.at), "text": notice.text, "seen": notice.seen is not None}


def _rows(mailbox: Mailbox, ids: Sequence[int]) -> Iterable[Row]:
    for start in range(0, len(ids), ROWS_AT_ONCE):
        yield from mailbox.rows(ids[start : start + ROWS_AT_ONCE])


def _print_rows(mailbox: Mailbox, rows: Iterable[Row], as_json: bool) -> None:
    if as_json:
        shared = mailbox.shared_message_ids()
        print(json.dumps([_row(row, shared) for row in rows], indent=2, ensure_ascii=False))
        return
    for row in rows:
        mark = "N" if row.unread else " "
        print(f"{mark} {_day(row.date)}  {row.who[:28]:<28}  {sanitize.line(row.subject)}")


def _row(row: Row, shared: Collection[str]) -> dict[str, object]:
    """`id` is what the commands take: the Message-ID, or where that is missing or not the only one the file's name."""
    alone = row.message_id and row.message_id not in shared
    return {
        "id": f"<{row.message_id}>" if alone else row.unique,
        "message_id": f"<{row.message_id}>" if row.message_id else "",
        "folder": row.folder,
        "from": row.sender if row.who == mailbox_of(row.sender).name else mailbox_of(row.sender).address,
        "to": ", ".join(row.recipients),
        "subject": row.subject,
        "date": _date(row.date),
        "flags": [FLAGS[flag] for flag in row.flags if flag in FLAGS],
        "size": row.size,
    }


def _entry(entry: OutboxEntry) -> dict[str, object]:
    return {
        "id": f"<{entry.message_id}>",
        "subject": entry.subject,
        "recipients": [
            {
                "address": r.address,
                "state": str(r.state),
                "bodies": list(r.bodies),
                "notifications": list(r.notifications),
                "reason": r.reason,
            }
            for r in entry.recipients
        ],
    }


def _date(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds or 0, UTC).isoformat()


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
