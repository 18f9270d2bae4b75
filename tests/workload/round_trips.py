"""Round trips over the workload: what is sealed, cut, coded and told comes back byte for byte, however it is cut.

    python -m tests.workload.round_trips [--cases N] [--first N] [--workers N]

A case is a message of the workload: sealed from a file that gives any number of bytes a call, opened from pieces of
any lengths; one in four has its segments coded into shares and made again from any m of them; one in eight is told in
a notification, and goes through the formats of the HTTP door. Sizes are log-uniform up to 300 KB, in one case of fifty
up to 4 MB; one in seven is within 40 bytes of an edge. All of a case follows from its number.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from multidict import CIMultiDict

from mail.mime.message import read_message
from mail.sealed.body import FRAME_SIZE, Opener, seal_body, sealed_length
from mail.sealed.erasure_shares import BodyCoding, CodingPlan, GatheredShares, make_shares
from mail.sealed.keys import generate_pair
from mail.sealed.notification import Notification, open_notification, seal_notification
from mail.sealed.segments import SEGMENT_SIZE, Segment
from mail.send.rules import segment_key
from overlay.http import headers as http_format
from overlay.identity.certificates import TrustStore
from overlay.ids import Kind
from storage.store_request import StoreRequest
from tests.overlay.issuing import NOW, Issuer
from tests.workload.cutting import Stuttering, chunks
from tests.workload.shapes import draw

USUAL, LARGE = 300_000, 4_000_000
"""Bytes of the largest body, of nearly all cases and of one in LARGE_EVERY."""
LARGE_EVERY, SHARES_EVERY, TOLD_EVERY = 50, 4, 8
GROUP = 250
"""Cases that a worker is given at once."""
TOLD_AFTER = 10_000
"""Cases after which progress is told."""

ISSUER = Issuer()
TRUST = TrustStore([ISSUER.der])
ALICE = ISSUER.person("alice@workload.example", 100, serial=7)
BOB = "bob@workload.example"
PAIR = generate_pair(NOW, random.Random(1).randbytes)


class RoundTripFailed(AssertionError):
    """Something didn't come back as it went; the message says what."""


def seal_and_open(
    message: bytes, session_key: bytes, reads: Sequence[int], pieces: Callable[[bytes], Iterable[bytes]]
) -> list[tuple[Segment, bytes]]:
    """Seal a message, open it again from `pieces` of the sealed body, compare; the segments. Raises Failed."""
    segments = list(seal_body(Stuttering(message, reads), session_key))
    sealed = b"".join(data for _, data in segments)
    for number, (segment, data) in enumerate(segments):
        size = SEGMENT_SIZE if number < len(segments) - 1 else len(sealed) - number * SEGMENT_SIZE
        if segment != Segment(number, size, hashlib.sha256(data).digest()) or len(data) != size:
            raise RoundTripFailed(f"segment {number} isn't what its description says")
    opened = io.BytesIO()
    opener = Opener(session_key, len(message), opened)
    for piece in pieces(sealed):
        opener.feed(piece)
    if opener.finish() != len(message) or opened.getvalue() != message:
        raise RoundTripFailed("what was opened isn't what was sealed")
    if len(sealed) > sealed_length(len(message) + len(message) // 1000 + 64):
        raise RoundTripFailed("the sealed body is longer than an incompressible message's")
    return segments


def share(segment: bytes, key: bytes, plan: CodingPlan, chance: random.Random) -> None:
    """Code a segment, make it again from any m of its n shares in any order. Raises Failed."""
    shares = make_shares(segment, key, plan)
    gathered = GatheredShares(plan.coding, key, len(segment))
    for number in chance.sample(range(plan.n), plan.m):
        if not gathered.missing or not gathered.take(shares[number]):
            raise RoundTripFailed(f"share {number} of {plan.m} of {plan.n} isn't taken")
    if gathered.missing or gathered.segment() != segment:
        raise RoundTripFailed(f"{plan.m} of {plan.n} shares don't make the segment")


def tell(message: bytes, segments: Sequence[Segment], coding: BodyCoding | None, chance: random.Random) -> None:
    """Seal a notification of the message, carry it in the answer to a read-inbox, open it, compare. Raises Failed."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(message[: 64 * 1024])
        file.flush()
        read = read_message(Path(file.name))
    told = Notification(
        session_key=chance.randbytes(32),
        message_id=read.message_id,
        segments=tuple(segments),
        original_size=len(message),
        sender="alice@workload.example",
        sender_name=read.sender.name,
        recipient=BOB,
        to=tuple(map(str, read.to)),
        cc=tuple(map(str, read.cc)),
        left_out=0,
        subject=read.subject,
        date=read.date or 0.0,
        references=read.references,
        deleter_salt=chance.randbytes(16),
        coding=coding,
    )
    sealed = seal_notification(told, ALICE, PAIR.public)
    (carried,) = http_format.decode_notifications(http_format.encode_notifications([sealed]))
    opened, _ = open_notification(carried, {PAIR.key_id: PAIR}, BOB, TRUST, NOW)
    for name in ("session_key", "message_id", "segments", "original_size", "date", "deleter_salt", "coding"):
        if getattr(opened, name) != getattr(told, name):
            raise RoundTripFailed(f"the notification's {name} isn't what was told")
    for name in ("subject", "sender_name"):
        was, now = getattr(told, name), getattr(opened, name)
        if len(now.encode()) > 256 or (now != was and not _shortened(was, now)):
            raise RoundTripFailed(f"the notification's {name} isn't what was told")
    if len(opened.to) + opened.left_out < len(told.to):
        raise RoundTripFailed("recipients are neither told nor counted as left out")


def _shortened(was: str, now: str) -> bool:
    """Whether a text is another one only by what is left out: control characters, spaces, the end."""
    letters = iter("".join(character for character in was if character.isprintable() and character != " "))
    return all(character in letters for character in now.removesuffix("…") if character != " ")


def store_headers(data: bytes, deleters: Sequence[bytes], ttl: float) -> None:
    """The headers of a store as the other side reads them. Raises Failed."""
    digest = hashlib.sha256(data).digest()
    headers = CIMultiDict(http_format.store_headers(StoreRequest(Kind.SHARE, bytes(20), data, digest, ttl, deleters)))
    read = (
        http_format.kind_of(headers), http_format.content_digest_of(headers), http_format.deleters_of(headers),
    )  # fmt: skip
    if read != (Kind.SHARE, digest, list(deleters)) or abs(http_format.ttl_of(headers) - ttl) > 0.001:
        raise RoundTripFailed("the headers of a store aren't read as they were written")


def play(number: int) -> int:
    """Case `number`; the bytes of its message. Raises Failed, and whatever the program raises."""
    chance = random.Random(f"round trip {number}")
    shape = draw(chance, largest=LARGE if number % LARGE_EVERY == 0 else USUAL, most_recipients=1000)
    message = shape.message()
    reads = [_length(chance) for _ in range(5)]
    feeds = [_length(chance) for _ in range(chance.randint(1, 7))]
    segments = seal_and_open(message, chance.randbytes(32), reads, lambda sealed: chunks(sealed, feeds))
    coding = None
    if number % SHARES_EVERY == 0:
        m = chance.randint(2, 30)
        plan = CodingPlan(m, chance.randint(m, 60), chance.randbytes(32))
        coding = plan.coding
        for segment, data in segments[-2:]:
            share(data, segment_key(shape.message_id(), segment.index, len(segments) > 1), plan, chance)
    if number % TOLD_EVERY == 0:
        tell(message, [segment for segment, _ in segments], coding, chance)
        deleters = [chance.randbytes(32) for _ in range(shape.recipients)]
        store_headers(segments[0][1], deleters, chance.uniform(1, 30 * 86_400))
    return len(message)


def _length(chance: random.Random) -> int:
    """Bytes of a piece: log-uniform to 2 MB, or within some of a frame's."""
    if chance.random() < 0.3:
        return chance.choice((1, 2, 3)) * FRAME_SIZE + chance.randint(-40, 40)
    return int(10 ** chance.uniform(0, 6.3))


def play_some(numbers: range) -> tuple[int, list[str]]:
    """These cases; the bytes of their messages, and what failed, in words."""
    total, failed = 0, []
    for number in numbers:
        try:
            total += play(number)
        except Exception as error:  # whatever it is, the other cases are played too
            failed.append(f"case {number}: {type(error).__name__}: {error}")
    return total, failed


def main(arguments: list[str] | None = None) -> int:
    """Play them; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.workload.round_trips")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    end = options.first + options.cases
    groups = [range(at, min(at + GROUP, end)) for at in range(options.first, end, GROUP)]
    begun, played, total, failures = time.monotonic(), 0, 0, 0
    with ProcessPoolExecutor(options.workers) as pool:
        for group, (size, failed) in zip(groups, pool.map(play_some, groups), strict=True):
            played, total, failures = played + len(group), total + size, failures + len(failed)
            for words in failed:
                print(words, flush=True)
            if group.stop % TOLD_AFTER == 0:
                print(f"{group.stop:,} of {end:,}", flush=True)
    seconds = time.monotonic() - begun
    print(f"{played:,} round trips of {total / 1e9:.2f} GB in {seconds:,.0f} s: {failures} failed")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
