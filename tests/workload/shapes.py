"""Shapes: what a message is like. Drawing one, and writing out the message that it stands for.

Sizes and numbers of recipients are log-uniform: as many messages of 1 to 10 KB as of 100 KB to 1 MB.
"""

from __future__ import annotations

import base64
import email.utils
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import BinaryIO

from mail.sealed.body import FRAME_CONTENT, FRAME_SIZE
from mail.sealed.segments import SEGMENT_SIZE
from tests.workload.texts import LANGUAGES, MEDIA, BodyKind, closing, pieces, words

LARGEST = 1_000_000_000
"""Bytes of the largest body."""
MOST_RECIPIENTS = 5000

_EMPTY = 0.04
"""Of all bodies that are empty."""
_AT_AN_EDGE = 0.15
"""Of all bodies whose size is within some bytes of an edge."""
_WIDTH = 40

EDGES = (
    255, 998, 1024, 1 << 12, 1 << 14, 1 << 15, 1 << 16, FRAME_CONTENT, FRAME_SIZE - 32, 2 * FRAME_CONTENT,
    16 * FRAME_CONTENT, SEGMENT_SIZE, SEGMENT_SIZE - 32, 32 * FRAME_CONTENT, 2 * SEGMENT_SIZE, 1 << 22, 1 << 26,
)  # fmt: skip
"""Sizes in bytes where something changes: a line's limit, the least padded length, zlib's window and its blocks, what
travels by datagram, a frame, a segment, and multiples."""


class Ending(Enum):
    """What ends the lines of a body."""

    CRLF = b"\r\n"
    LF = b"\n"
    CR = b"\r"


class Head(StrEnum):
    """What the header is like."""

    USUAL = "usual"
    LONG = "long"
    """Dozens of fields, folded, of some kilobytes."""
    ENCODED = "encoded words"
    RAW = "8-bit"
    """A subject and a name in UTF-8 as it is (RFC 6532)."""
    NO_SUBJECT = "no subject"
    ODD = "odd"
    """Names in any case, a field twice, an empty one, a tab, a subject of 2 KB."""
    THREAD = "thread"
    """An answer, with up to 300 References."""
    BARE = "bare"
    """Without From, Date and Message-ID: whoever accepts it adds them, so it doesn't arrive as it was written."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A message to be: `size` bytes of body of one kind. All that isn't given follows from `seed`."""

    seed: int
    kind: BodyKind
    size: int
    ending: Ending
    head: Head
    recipients: int

    @property
    def complete(self) -> bool:
        """Whether it arrives exactly as `write` wrote it, when it is handed to `p2pmail send`."""
        return self.head is not Head.BARE

    def message_id(self, domain: str = "workload.example") -> str:
        """Its Message-ID, without brackets: 1 in 20 is long, 1 in 20 has unusual characters. At most 512 bytes."""
        rng = random.Random(f"id {self.seed}")
        token, odd = f"{self.seed:x}.{rng.getrandbits(64):016x}", rng.random()
        if odd < 0.05:
            token += "." + "long" * 100
        elif odd < 0.1:
            token += "!#$%&'*+/=?^_`{|}~-#0"
        return f"{token}@{domain}"

    def write(
        self,
        out: BinaryIO,
        sender: str,
        recipients: Sequence[str],
        *,
        message_id: str | None = None,
        date: float = 1_772_450_000.0,
    ) -> int:
        """Write the whole message (RFC 5322) to `out` in pieces of some kilobytes; returns its bytes.

        `recipients` are addresses, told in To unless they are many (then nobody is); `date` in seconds since 1970.
        Header lines end in CRLF where the body's do, else in LF.
        """
        rng = random.Random(f"text {self.seed}")
        eol = b"\r\n" if self.ending is Ending.CRLF else b"\n"
        fields = _fields(
            self,
            rng,
            sender=sender,
            recipients=recipients,
            message_id=message_id or self.message_id(),
            date=date,
            eol=eol,
        )
        written = out.write(eol.join(fields) + eol * 2)
        left, end = self.size, closing(self.kind, self.ending.value)
        left -= len(end) if len(end) <= left else 0
        for piece in pieces(self.kind, rng, self.ending.value):
            if left <= 0:
                break
            written += out.write(piece[:left])
            left -= len(piece)
        return written + (out.write(end) if len(end) <= self.size else 0)

    def message(
        self,
        sender: str = "alice@workload.example",
        recipients: Sequence[str] = ("bob@workload.example",),
        *,
        message_id: str | None = None,
    ) -> bytes:
        """The whole message at once."""
        out = io.BytesIO()
        self.write(out, sender, recipients, message_id=message_id)
        return out.getvalue()


def draw(
    rng: random.Random,
    *,
    largest: int = LARGEST,
    most_recipients: int = MOST_RECIPIENTS,
    complete: bool = True,
    kinds: Sequence[BodyKind] = tuple(BodyKind),
) -> Shape:
    """A shape. `largest` in bytes of body; not `complete`: some lack what the accepting program has to add."""
    heads = list(Head)
    if complete:
        heads.remove(Head.BARE)
    return Shape(
        seed=rng.getrandbits(48),
        kind=rng.choice(kinds),
        size=_size(rng, largest),
        ending=rng.choices(list(Ending), (5, 4, 1))[0],
        head=rng.choices(heads, [4 if head is Head.USUAL else 1 for head in heads])[0],
        recipients=_log_uniform(rng, most_recipients),
    )


def _size(rng: random.Random, largest: int) -> int:
    which = rng.random()
    edges = [edge for edge in EDGES if edge <= largest]
    if which < _EMPTY or largest <= 0:
        return 0
    if which < _EMPTY + _AT_AN_EDGE and edges:
        return min(largest, rng.choice(edges) + rng.randint(-_WIDTH, _WIDTH))
    return _log_uniform(rng, largest)


def _log_uniform(rng: random.Random, most: int) -> int:
    return min(most, max(1, int(float(most + 1) ** rng.random())))


_ROOM_FOR_TO = 16_000
"""Bytes of addresses told in To. Past that the message goes to `undisclosed-recipients:;`."""


def _fields(
    shape: Shape,
    rng: random.Random,
    *,
    sender: str,
    recipients: Sequence[str],
    message_id: str,
    date: float,
    eol: bytes,
) -> list[bytes]:
    told = (b"," + eol + b" ").join(address.encode() for address in recipients)
    hidden = len(told) > _ROOM_FOR_TO or rng.random() < 0.05
    to = b"To: " + (b"undisclosed-recipients:;" if hidden else told)
    own = [
        b"From: " + sender.encode(),
        b"Date: " + email.utils.formatdate(date).encode(),
        b"Message-ID: <" + message_id.encode() + b">",
    ]
    media, encoding = MEDIA[shape.kind]
    subject = b"Subject: " + " ".join(rng.choices(words(BodyKind.PROSE), k=rng.randint(1, 9))).encode()
    mime = [b"MIME-Version: 1.0", b"Content-Type: " + media, b"Content-Transfer-Encoding: " + encoding]
    match shape.head:
        case Head.USUAL:
            return [*own, to, subject, *mime]
        case Head.LONG:
            fold = b";" + eol + b"\tby "
            hop = fold.join([b"Received: from relay.example"] + [b"mx%d.example" % rng.randrange(99) for _ in range(9)])
            return [hop] * rng.randint(1, 40) + [*own, to, subject, *mime, b"X-Spam: " + b"x" * rng.randrange(900)]
        case Head.ENCODED:
            text = " ".join(rng.choices(words(BodyKind.UTF_8), k=5)).encode()[:40]
            return [*own, to, b"Subject: =?utf-8?B?" + base64.b64encode(text) + b"?=", *mime]
        case Head.RAW:
            language = rng.choice(LANGUAGES)
            text = " ".join(rng.choices(words(language), k=5)).encode(language.value)
            return [*own, to, b"Subject: " + text, *mime]
        case Head.NO_SUBJECT:
            return [*own, to]
        case Head.ODD:
            long = b"SUBJECT:\t" + (eol + b" ").join([b"a very long subject"] * 100)
            return [b"x-Empty:", *own, to, long, b"X-Twice: 1", b"X-Twice: 2", b"received: by nobody", *mime]
        case Head.THREAD:
            earlier = [b"<%d.%d@workload.example>" % (rng.randrange(1 << 30), at) for at in range(rng.randint(1, 300))]
            references = b"References: " + (eol + b" ").join(earlier)
            return [*own, to, b"Subject: Re: " + subject[9:], b"In-Reply-To: " + earlier[-1], references, *mime]
        case Head.BARE:
            return [to, subject]
