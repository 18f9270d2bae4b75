"""Commands of a profile's user: join, send, sync, status. Only `status` needs no passphrase."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

from mail.agent import Agent, status_document
from mail.cli.errors import CONFIGURATION, DATA, OK, TEMPORARY, UNAVAILABLE, USAGE, CommandError, words
from mail.cli.local import existing, profile_state
from mail.cli.passphrase import existing_passphrase, new_passphrase
from mail.cli.progress import ProgressLine
from mail.cli.running import run_loop, stop_requested
from mail.control import NotRunning, ask
from mail.events import Event, NodeStatus, Progress, Trouble
from mail.identity import Identity
from mail.membership.certificate_status import check_may_accept, stored_certificate_status
from mail.membership.join import join, resume
from mail.membership.offline import take_certificate, write_request
from mail.mime import sanitize
from mail.mime.addresses import addresses
from mail.profile_node import stored_node_id
from mail.send.enqueue import accept, check_room, check_sender, check_size
from mail.version import program_version
from mail.write.submission import Submission, read_submission
from overlay.errors import Unreachable
from overlay.identity.address import AddressError, normalise_address
from overlay.protocol_limits import DEFAULT_K
from storage import durable
from storage.node.store import stored_usage
from storage.user.outbox import Outbox, State
from storage.user.profile import Profile, ProfileBusy

log = logging.getLogger(__name__)

JOIN_WAIT = 60.0
"""Seconds that `join` waits for the authority. The request stays in the network after that."""

RESUME_WAIT = 10.0
"""Seconds that other commands wait for the answer to a pending join."""

RENEW_WAIT = 10.0
"""Seconds that `sync` waits for a renewed certificate after a request, or if the old one has ended."""


def join_(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail join INVITE`, or by files: `--request FILE ADDRESS`, then `--certificate FILE --network FILE`."""
    text = " ".join(args.invite)
    by_certificate = args.certificate is not None and args.network is not None
    if not text and not by_certificate:
        raise CommandError(USAGE, "Name an invite (or an address with --request, or --certificate and --network).")
    passphrase = new_passphrase(args, profile)
    if by_certificate:
        print(f"joined as {take_certificate(profile, args.network, args.certificate, passphrase)}")
        return OK
    if args.request is not None:
        write_request(profile, text, args.request, passphrase)
        print(f"request for {text}: {args.request}")
        return OK
    address = run_loop(join(profile, text, passphrase, wait=JOIN_WAIT, tell=_say))
    print(f"joined as {address}")
    return OK


def send(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail send [-t] [-f ADDRESS] [-F NAME] [ADDRESS...] < message`."""
    if args.mode == "p":  # sendmail's way to ask for the queue
        from mail.cli.local import outbox as list_outbox

        return list_outbox(argparse.Namespace(json=False), profile)
    if args.mode != "m":
        raise CommandError(USAGE, f"-b{args.mode} isn't supported: the message is read from standard input as it is.")
    _check_addresses(args.address)
    identity = _identity(args, profile)
    _check_sender(args.sender, identity.address)
    outbox = Outbox(profile.outbox_file)
    try:
        check_sender(identity.owner.certificate, time.time())
        _check_size(outbox, profile, sys.stdin.buffer)
        durable.make_folder(profile.spool)
        spool = profile.spool / f"{secrets.token_hex(8)}.eml"
        taken = read_submission(
            sys.stdin.buffer,
            spool,
            args.address,
            identity.address,
            from_headers=args.from_headers,
            name=args.name,
        )
        try:
            _accept(profile, outbox, taken, identity)
        finally:
            with suppress(OSError):  # a leftover file changes nothing about the message
                spool.unlink(missing_ok=True)
        # The message is accepted now. An error here would make the caller submit it again.
        try:
            watch = NoticeWatch(profile)
            run_loop(_try_to_send(profile, identity, watch))
            watch.clear()
            _report(outbox, taken.message_id)
            watch.finish()
        except Exception as error:
            log.debug("not sent yet", exc_info=True)
            _say(f"not sent yet: {words(error)} It is in the outbox and will be tried again.")
    finally:
        outbox.close()
    return OK


def _check_addresses(texts: Sequence[str]) -> None:
    """Raises AddressError for an invalid ADDRESS (exit code 64: the command line is wrong, not the message)."""
    for text in texts:
        for found in addresses([text.encode("utf-8", "replace")], commas_in_names=False):
            normalise_address(found.address or found.name)


def _check_sender(sender: str | None, own: str) -> None:
    """Raises CommandError for `-f` with somebody else's address. One without a domain is a name on this computer."""
    text = (sender or "").strip("<> ")
    if "@" not in text:
        return
    try:
        same = normalise_address(text) == own
    except AddressError:
        same = False
    if not same:
        raise CommandError(
            DATA, f"You are {own}: nothing can be sent as {sanitize.line(text)[:100]}. Nothing was kept."
        )


def _accept(profile: Profile, outbox: Outbox, taken: Submission, identity: Identity) -> None:
    """Accept the message into the outbox, with a copy in Sent. Raises as `accept`."""
    check_may_accept(profile, identity, time.time())
    folders = profile.folders()
    accept(
        outbox,
        folders,
        taken.path,
        message_id=taken.message_id,
        subject=taken.subject,
        sender=identity.address,
        recipients=taken.recipients,
        now=time.time(),
        certificate=identity.owner.certificate,
        bcc=taken.bcc,
    )


def _check_size(outbox: Outbox, profile: Profile, stream: BinaryIO) -> None:
    """Refuse a too large file before copying it. Raises CannotAccept, OSError."""
    try:
        found = os.fstat(stream.fileno())
    except OSError:  # not a real file
        return
    if stat.S_ISREG(found.st_mode):
        size = found.st_size - stream.tell()
        check_size(size)
        check_room(outbox, profile.folders(), size, 1, composed=True)


def sync(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail sync [--watch]`."""
    identity = _identity(args, profile)
    return run_loop(_watch(profile, identity) if args.watch else _sync(profile, identity))


def status(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail status [--json]`."""
    try:
        document = asyncio.run(ask(profile.control_socket, "status"))
    except NotRunning:
        existing(profile)
        document = _status_on_disk(profile)
    if "error" in document:
        raise CommandError(TEMPORARY, f"The running process can't say: {document['error']}")
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        for name, value in document.items():
            print(f"{name.replace('_', ' ')}: {_in_words(name, value)}")
    return OK


def _in_words(name: str, value: object) -> object:
    if name == "offline_since":
        return "-" if not isinstance(value, float) else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return "unknown" if value is None else value


def _identity(args: argparse.Namespace, profile: Profile) -> Identity:
    if not profile.keyring_file.exists():
        raise CommandError(CONFIGURATION, f"{profile.root} has no keys yet: paste an invite with `p2pmail join`.")
    identity = Identity.open(profile, existing_passphrase(args, profile))
    if identity.joining:
        run_loop(resume(profile, identity.keyring, wait=RESUME_WAIT, tell=_say))
    return identity


async def _try_to_send(profile: Profile, identity: Identity, watch: NoticeWatch) -> None:
    """Try once to send, by the running agent if there is one. What fails stays in the outbox."""
    try:
        agent = await Agent.open(profile, identity, tell=watch.tell)
    except ProfileBusy:
        with suppress(NotRunning):
            await ask(profile.control_socket, "sync")
        return
    try:
        await agent.send()
    finally:
        await agent.close()


def _report(outbox: Outbox, message_id: str) -> None:
    """Report on standard error which recipients the message didn't reach."""
    entry = outbox.entry(message_id)
    for recipient in entry.recipients if entry else ():
        if recipient.state in (State.QUEUED, State.FAILED):
            later = "" if recipient.settled else "; it is in the outbox and will be tried again"
            _say(f"{recipient.address}: {(recipient.reason or 'not sent yet').rstrip('.')}{later}")


async def _sync(profile: Profile, identity: Identity) -> int:
    watch = NoticeWatch(profile)
    try:
        waiting = _waiting(profile, await _sync_once(profile, identity, watch))
    except Exception:
        watch.finish()
        raise
    return UNAVAILABLE if watch.finish() else waiting


async def _sync_once(profile: Profile, identity: Identity, watch: NoticeWatch) -> int:
    """Publish, send and collect. Returns the number of messages that couldn't be collected yet."""
    try:
        agent = await Agent.open(profile, identity, tell=watch.tell)
    except ProfileBusy:
        return await _ask_for_sync(profile)
    try:
        if agent.ended:
            await agent.renew(RENEW_WAIT)
        results = await asyncio.gather(
            agent.publish_card(), agent.sync(), agent.renew(RENEW_WAIT), return_exceptions=True
        )
        late = agent.late
    finally:
        await agent.close()
    # All have ended. Report a problem of this profile rather than one of the network.
    for error in sorted(results, key=lambda result: isinstance(result, Unreachable)):
        if isinstance(error, BaseException):
            raise error
    return late


async def _ask_for_sync(profile: Profile) -> int:
    """Let the running agent sync. Returns the number of messages that it couldn't collect. Raises CommandError."""
    try:
        answer = await ask(profile.control_socket, "sync")
    except NotRunning as error:
        raise CommandError(TEMPORARY, "Another process is at work on this profile; try again later.") from error
    if "error" in answer:
        raise CommandError(TEMPORARY, str(answer["error"]))
    late = answer.get("late", 0)
    return late if isinstance(late, int) else 0


async def _watch(profile: Profile, identity: Identity) -> int:
    watch = NoticeWatch(profile)
    agent = await Agent.open(profile, identity, tell=watch.tell)
    agent.start()
    try:
        await stop_requested()
    finally:
        await agent.close()
    return UNAVAILABLE if watch.finish() else OK


class NoticeWatch:
    """Prints the events of a command's agent, and finds the notices stored during the command.

    It reads notices from disk, because another process may have stored them.
    """

    def __init__(self, profile: Profile) -> None:
        """Raises DatabaseError."""
        self._profile = profile
        self._printed: set[str] = set()
        self._line = ProgressLine()
        with profile_state(profile) as state:
            self._before = state.notices.newest()

    def tell(self, event: Event) -> None:
        """Print a trouble at once, and show progress on a terminal."""
        if isinstance(event, Progress):
            self._line.show(event)
        if isinstance(event, Trouble):
            self._line.clear()
            _say(event.text)
            self._printed.add(event.text)

    def clear(self) -> None:
        """Clear the progress line before something else is printed."""
        self._line.clear()

    def finish(self) -> bool:
        """Print new notices that weren't printed yet. Returns whether there are any. Raises DatabaseError."""
        self._line.clear()
        with profile_state(self._profile) as state:
            unseen = state.notices.unseen()
        fresh = [notice for notice in unseen if notice.id > self._before]
        for notice in reversed(fresh):
            if notice.text not in self._printed:
                _say(notice.text)
        if earlier := len(unseen) - len(fresh):
            notices = "notice that you haven't seen is" if earlier == 1 else "notices that you haven't seen are"
            _say(f"{earlier} earlier {notices} kept: p2pmail notices")
        return bool(fresh)


def _waiting(profile: Profile, late: int) -> int:
    """The exit code: 75 if unsent mail, or mail that couldn't be collected, waits; else 0."""
    outbox = Outbox(profile.outbox_file)
    try:
        queued = any(r.state is State.QUEUED for e in outbox.due(0.0, True) for r in e.recipients)
    finally:
        outbox.close()
    if late:
        _say(f"{late} message{' waits' if late == 1 else 's wait'} to be collected; it will be tried again")
    if queued:
        _say("unsent mail waits in the outbox; it will be tried again")
    return TEMPORARY if queued or late else OK


def _status_on_disk(profile: Profile) -> dict[str, object]:
    """The figures on disk, when no node is running."""
    usage = stored_usage(profile.node_folder)
    state, ends = stored_certificate_status(profile, time.time())
    return status_document(
        NodeStatus(
            node_id=stored_node_id(profile.node_folder),
            listening="",
            mode="node" if profile.config.mode == "node" else "client",
            contacts=0,
            objects=usage.objects if usage else 0,
            bytes=usage.bytes if usage else 0,
            quota=profile.config.quota,
            inboxes=usage.inboxes if usage else 0,
            availability=None,
            k=DEFAULT_K,
            version=program_version(),
            certificate=state,
            certificate_ends=ends,
        )
    )


def _say(words: str) -> None:
    print(sanitize.line(words), file=sys.stderr)
