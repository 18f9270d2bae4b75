"""What senders were told, and whether it came true: every message in each recipient's folders once, as it was sent.

What lies in the folders is read from the files, and what the program lists is held against them. Nothing is started or
changed here.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

_ID = re.compile(rb"^message-id:\s*<([^>]*)>", re.IGNORECASE | re.MULTILINE)
_TUID = re.compile(rb"^X-TUID: \S{12}\r?\n", re.MULTILINE)
"""What mbsync adds to what it copies."""
_LENGTH = re.compile(rb"(\r?\n)Content-Length: \d+\n(?:Lines: \d+\n)?\n")
"""What neomutt adds to what it moves, with the end of the header, which it always writes so."""
_HEADER = 1 << 18


class Answered(StrEnum):
    """What the sender knows of handing a message in."""

    YES = "accepted"
    NO = "refused"
    NOTHING = "unclear"
    """The command was killed, and it wasn't tried again."""


@dataclass(slots=True)
class Claim:
    """A message that was handed in."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    digest: bytes
    answered: Answered = Answered.NOTHING


class Finding(StrEnum):
    """What can be wrong."""

    LOST = "lost"
    DOUBLED = "doubled"
    CHANGED = "changed"
    UNTRUE = "untrue"
    """A state, an answer or a list that says something else than what is."""
    FAULT = "fault"
    """A command that failed as none may: a traceback, an exit code that isn't documented, one that hangs."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong."""

    found: Finding
    words: str

    def __str__(self) -> str:
        return f"{self.found}: {self.words}"


@dataclass(frozen=True, slots=True)
class Copy:
    """A message as it lies in a folder."""

    path: Path
    folder: str
    message_id: str
    digests: frozenset[bytes]
    """Of its bytes, and of these without what another program adds."""


@dataclass(slots=True)
class Shelf:
    """All messages under one profile's folders; read again, only what is new is opened."""

    profile: Path
    mail: str = "mail"
    _known: dict[tuple[int, int, int, int], tuple[str, frozenset[bytes]]] = field(default_factory=dict)

    def copies(self) -> Iterator[Copy]:
        """Every message there is now."""
        places = [*(self.profile / self.mail).glob("*"), self.profile / "quarantine"]
        for folder in places:
            for subdir in ("new", "cur"):
                for path in sorted((folder / subdir).glob("*")):
                    with suppress(FileNotFoundError):  # another program was quicker
                        facts = path.stat()
                        key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
                        if key not in self._known:
                            self._known[key] = _read(path)
                        yield Copy(path, folder.name, *self._known[key])


def _read(path: Path) -> tuple[str, frozenset[bytes]]:
    data = path.read_bytes()
    found = _ID.search(data[:_HEADER])
    without = _LENGTH.sub(rb"\1\1", _TUID.sub(b"", data[:_HEADER], count=1), count=1) + data[_HEADER:]
    digests = frozenset((hashlib.sha256(data).digest(), hashlib.sha256(without).digest()))
    return found[1].decode("latin-1") if found else "", digests


@dataclass(slots=True)
class Whereabouts:
    """One user's messages: in the profile, and in those that a backup took the place of."""

    address: str
    profile: Path
    replaced: list[Path] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    """Message-IDs of what another program was told to delete, and had."""
    _shelves: dict[Path, Shelf] = field(default_factory=dict)

    def now(self) -> list[Copy]:
        """What she sees."""
        return self._on(self.profile)

    def before(self) -> list[Copy]:
        """What she saw before a backup was put back."""
        return [copy for profile in self.replaced for copy in self._on(profile)]

    def _on(self, profile: Path) -> list[Copy]:
        return [*self._shelves.setdefault(profile, Shelf(profile)).copies()]


class Claims:
    """All messages of a story. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[str, Claim] = {}
        self._wrong: list[Wrong] = []

    def hand_in(self, message_id: str, sender: str, recipients: Iterable[str], message: Path) -> Claim:
        """Note a message before it is handed in."""
        data = message.read_bytes()
        claim = Claim(message_id, sender, tuple(recipients), len(data), hashlib.sha256(data).digest())
        with self._lock:
            assert message_id not in self._claims
            self._claims[message_id] = claim
        return claim

    def say(self, found: Finding, words: str) -> None:
        """Note what went wrong on the way."""
        with self._lock:
            self._wrong.append(Wrong(found, words))

    @property
    def all(self) -> list[Claim]:
        """The messages."""
        with self._lock:
            return list(self._claims.values())

    @property
    def wrong(self) -> list[Wrong]:
        """What went wrong on the way."""
        with self._lock:
            return list(self._wrong)

    def missing(self, users: Sequence[Whereabouts]) -> set[tuple[str, str]]:
        """Message-ID and recipient of each accepted message that isn't anywhere."""
        there = {user.address: _by_id([*user.now(), *user.before()]) for user in users}
        removed = {user.address: user.removed for user in users}
        return {
            (claim.message_id, address)
            for claim in self.all
            if claim.answered is Answered.YES
            for address in claim.recipients
            if claim.message_id not in there[address] and claim.message_id not in removed[address]
        }

    def judge(
        self, users: Sequence[Whereabouts], outboxes: Mapping[str, list[dict[str, Any]]], lists: Mapping[str, list[str]]
    ) -> list[Wrong]:
        """Everything that is wrong now. `outboxes`: `p2pmail outbox --json` of each sender; `lists`: the ids that
        `p2pmail list` has for each user, over all folders."""
        wrong = self.wrong
        now = {user.address: user.now() for user in users}
        everything = {user.address: _by_id([*now[user.address], *user.before()]) for user in users}
        by_address = {user.address: user for user in users}
        for claim in self.all:
            states = _states(outboxes[claim.sender], claim.message_id)
            restored = bool(by_address[claim.sender].replaced)
            accepted = claim.answered is Answered.YES or bool(states)
            wrong += _sender(claim, states, everything[claim.sender].get(claim.message_id, []), restored=restored)
            for address in claim.recipients:
                copies = [c for c in everything[address].get(claim.message_id, []) if c.folder != "Sent"]
                gone = claim.message_id in by_address[address].removed
                wrong += _recipient(claim, address, copies, states, accepted=accepted, gone=gone, restored=restored)
        for user in users:
            wrong += _eyes(user, now[user.address], lists[user.address])
        return wrong


def _by_id(copies: Iterable[Copy]) -> dict[str, list[Copy]]:
    found: dict[str, list[Copy]] = {}
    for copy in copies:
        found.setdefault(copy.message_id, []).append(copy)
    return found


def _states(outbox: list[dict[str, Any]], message_id: str) -> dict[str, str]:
    return {
        recipient["address"]: recipient["state"]
        for entry in outbox
        if entry["id"] == f"<{message_id}>"
        for recipient in entry["recipients"]
    }


def _sender(claim: Claim, states: Mapping[str, str], copies: list[Copy], *, restored: bool) -> Iterator[Wrong]:
    """What is wrong on the sender's side."""
    sent = [copy for copy in copies if copy.folder == "Sent"]
    what = f"{claim.message_id} of {claim.sender} ({claim.size} bytes, {claim.answered})"
    if claim.answered is Answered.NO and states:
        yield Wrong(Finding.UNTRUE, f"{what} is in the outbox")
    if claim.answered is Answered.YES and not restored:
        if not states:
            yield Wrong(Finding.UNTRUE, f"{what} isn't in the outbox")
        if not sent:
            yield Wrong(Finding.LOST, f"{what} isn't in Sent")
    if claim.answered is Answered.NO and sent:
        yield Wrong(Finding.UNTRUE, f"{what} is in Sent")
    if any(claim.digest not in copy.digests for copy in sent):
        yield Wrong(Finding.CHANGED, f"{what} in Sent: {[str(copy.path) for copy in sent]}")


def _recipient(
    claim: Claim,
    address: str,
    copies: list[Copy],
    states: Mapping[str, str],
    *,
    accepted: bool,
    gone: bool,
    restored: bool,
) -> Iterator[Wrong]:
    """What is wrong on a recipient's side, and of what the sender is told of it."""
    what = f"{claim.message_id} of {claim.sender} to {address} ({claim.size} bytes, {claim.answered})"
    state = states.get(address)
    if not copies and not gone and accepted:
        yield Wrong(Finding.LOST, f"{what}, {state}")
    if copies and not accepted and not restored:
        yield Wrong(Finding.UNTRUE, f"{what} arrived")
    if any(claim.digest not in copy.digests for copy in copies):
        yield Wrong(Finding.CHANGED, f"{what}: {[str(copy.path) for copy in copies]}")
    if state is not None and (copies or gone) and state != "collected":
        yield Wrong(Finding.UNTRUE, f"{what} arrived and is {state}")


def _eyes(user: Whereabouts, copies: list[Copy], listed: list[str]) -> Iterator[Wrong]:
    """What one user sees twice, or is told of otherwise than it is."""
    counted = Counter((copy.message_id, copy.folder == "Sent") for copy in copies if copy.message_id)
    for (message_id, in_sent), count in counted.items():
        if count > 1:
            places = [f"{copy.folder}/{copy.path.parent.name}" for copy in copies if copy.message_id == message_id]
            where = "Sent" if in_sent else "folders"
            yield Wrong(Finding.DOUBLED, f"{message_id} is {count} times in the {where} of {user.address}: {places}")
    lacking = Counter(copy.message_id for copy in copies if copy.message_id and copy.folder != "quarantine")
    lacking.subtract(Counter(listed))
    for message_id, count in lacking.items():
        if message_id and count:
            yield Wrong(Finding.UNTRUE, f"{user.address} has {message_id}, and lists it {-count:+d} times")
