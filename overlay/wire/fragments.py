"""Messages of up to 8 KiB as datagrams of up to 1,200 bytes, and back.

    byte 0       flags: 1 answer (else request), 2 the sender is in server mode (else a client)
    bytes 1-8    message id, chosen by the sender of the request
    byte 9       index of this fragment
    byte 10      number of fragments
    bytes 11-    the fragment

Whole messages are sent again, not single fragments. Incomplete messages are bounded per peer and in total, and dropped
after PARTIAL_SECONDS. Decisions only: no socket, and the time is handed in.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import msgspec

from overlay.errors import Malformed
from overlay.wire.sealed_datagram import MAX_PAYLOAD

ANSWER = 1
SERVER_MODE = 2

HEADER = 11
FRAGMENT = MAX_PAYLOAD - HEADER
MAX_FRAGMENTS = 9
MAX_MESSAGE = FRAGMENT * MAX_FRAGMENTS
"""8 KiB of content and the message around it; anything larger goes over HTTP."""

PARTIAL_PER_PEER = 4
PARTIAL_IN_ALL = 1024
"""Incomplete messages of one peer and of all: at most 1,024 of about 10 KB, so 10 MB."""
PARTIAL_SECONDS = 5.0
"""Seconds after which an incomplete message is dropped."""


class Fragment(msgspec.Struct, frozen=True, gc=False):
    """One datagram's part of a message."""

    flags: int
    message_id: bytes
    index: int
    count: int
    content: bytes


def cut(flags: int, message_id: bytes, message: bytes) -> list[bytes]:
    """The payloads of a message's datagrams. Raises Malformed when it is over MAX_MESSAGE bytes."""
    if len(message) <= FRAGMENT:
        return [bytes((flags,)) + message_id + b"\x00\x01" + message]
    if len(message) > MAX_MESSAGE:
        raise Malformed(f"a message of {len(message)} bytes is too long for datagrams (at most {MAX_MESSAGE})")
    parts = [message[i : i + FRAGMENT] for i in range(0, len(message), FRAGMENT)]
    return [bytes((flags,)) + message_id + bytes((i, len(parts))) + part for i, part in enumerate(parts)]


def read(payload: bytes) -> Fragment:
    """Read the payload of one opened datagram. Raises Malformed."""
    if len(payload) < HEADER:
        raise Malformed("too short for a fragment")
    index, count = payload[9], payload[10]
    if not 1 <= count <= MAX_FRAGMENTS or index >= count:
        raise Malformed("the index or the number of fragments is out of range")
    return Fragment(payload[0], payload[1:9], index, count, payload[HEADER:])


@dataclass(slots=True)
class _Partial:
    count: int
    since: float
    parts: dict[int, bytes] = field(default_factory=dict)


class Reassembly:
    """Joins fragments to messages. `add` returns the message once its last missing fragment has come."""

    def __init__(self) -> None:
        self._partial: OrderedDict[tuple[bytes, int, bytes], _Partial] = OrderedDict()
        self._of_peer: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._partial)

    def add(self, peer: bytes, fragment: Fragment, now: float) -> bytes | None:
        """The message, or None while fragments of it are missing. Raises Malformed for a fragment that doesn't fit."""
        if fragment.count == 1:
            return fragment.content
        if fragment.index < fragment.count - 1 and len(fragment.content) != FRAGMENT:
            raise Malformed("a fragment in the middle must be full")
        name = (peer, fragment.flags & ANSWER, fragment.message_id)
        partial = self._partial.get(name)
        if partial is None:
            self._make_room(peer, now)
            partial = self._partial[name] = _Partial(fragment.count, now)
            self._of_peer[peer] += 1
        if partial.count != fragment.count:
            raise Malformed("fragments of one message disagree on their number")
        partial.parts[fragment.index] = fragment.content
        if len(partial.parts) < partial.count:
            return None
        self._forget(name)
        return b"".join(partial.parts[i] for i in range(partial.count))

    def _make_room(self, peer: bytes, now: float) -> None:
        while self._partial:
            oldest = next(iter(self._partial))
            if now - self._partial[oldest].since < PARTIAL_SECONDS and len(self._partial) < PARTIAL_IN_ALL:
                break
            self._forget(oldest)
        while self._of_peer[peer] >= PARTIAL_PER_PEER:
            self._forget(next(name for name in self._partial if name[0] == peer))

    def _forget(self, name: tuple[bytes, int, bytes]) -> None:
        del self._partial[name]
        self._of_peer[name[0]] -= 1
        if not self._of_peer[name[0]]:
            del self._of_peer[name[0]]
