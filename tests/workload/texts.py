"""What is in a message: endless streams of bytes, one for each kind of content. Cutting them is shapes.py's."""

from __future__ import annotations

import base64
import random
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache

PIECE = 1 << 14
"""Bytes, about, that are made at once: memory stays small for a message of 1 GB."""


class BodyKind(StrEnum):
    """What a body holds. The media type of each is in MEDIA."""

    PROSE = "prose"
    LOG = "log"
    HTML = "html"
    TABLE = "table"
    QUOTED = "quoted-printable"
    ATTACHMENT = "attachment"
    ATTACHMENTS = "attachments"
    FORWARDED = "forwarded"
    RUN = "run"
    COMPRESSED = "compressed"
    RANDOM = "random"
    ONE_LINE = "one line"
    UTF_8 = "utf-8"
    LATIN_1 = "latin-1"
    GB18030 = "gb18030"
    SHIFT_JIS = "shift_jis"
    KOI8_R = "koi8-r"


LANGUAGES = (BodyKind.UTF_8, BodyKind.LATIN_1, BodyKind.GB18030, BodyKind.SHIFT_JIS, BodyKind.KOI8_R)

_TEXT = b"text/plain; charset="
MEDIA: dict[BodyKind, tuple[bytes, bytes]] = {
    BodyKind.PROSE: (_TEXT + b"us-ascii", b"7bit"),
    BodyKind.LOG: (b"text/x-log; charset=us-ascii", b"7bit"),
    BodyKind.HTML: (b"text/html; charset=utf-8", b"8bit"),
    BodyKind.TABLE: (b"text/csv", b"7bit"),
    BodyKind.QUOTED: (_TEXT + b"utf-8", b"quoted-printable"),
    BodyKind.ATTACHMENT: (b"application/pdf", b"base64"),
    BodyKind.ATTACHMENTS: (b'multipart/mixed; boundary="=_part"', b"8bit"),
    BodyKind.FORWARDED: (b"message/rfc822", b"8bit"),
    BodyKind.RUN: (_TEXT + b"us-ascii", b"binary"),
    BodyKind.COMPRESSED: (b"application/gzip", b"binary"),
    BodyKind.RANDOM: (b"application/octet-stream", b"binary"),
    BodyKind.ONE_LINE: (_TEXT + b"us-ascii", b"binary"),
} | {kind: (_TEXT + kind.encode(), b"8bit") for kind in LANGUAGES}
"""Content-Type and Content-Transfer-Encoding."""

_ALPHABETS = {
    BodyKind.PROSE: "eeeeettttaaaooiinnsshhrrddlcumwfgypbvk",
    BodyKind.LATIN_1: "eeeennniiissrraatdhuläöüßéèàçñåøæêîôû",
    BodyKind.KOI8_R: "оооеееаааииннттссррввллккмдпуяыьгзбчйхжшюцщэф",
    BodyKind.SHIFT_JIS: "のにはをたがでてとしれさあいうカタナスト日本語東京都会社電話番号時間分秒年月",
    BodyKind.GB18030: "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能㐀㑇𠀀𠮷",
    BodyKind.UTF_8: "eaoinäößéñçаоенשלוםمرحباનમસ્તે안녕하세요日本的是😀👩\u200d🚀👍🏽e\u0301",
}
_VOCABULARY = 3000
_COMMON = 60


@cache
def words(kind: BodyKind) -> tuple[str, ...]:
    """The words of a language, the common ones as often as Zipf's law has them."""
    rng, letters = random.Random(f"words {kind}"), _ALPHABETS[kind]
    shortest, longest = (1, 4) if kind in (BodyKind.SHIFT_JIS, BodyKind.GB18030) else (2, 9)
    found = ["".join(rng.choices(letters, k=rng.randint(shortest, longest))) for _ in range(_VOCABULARY)]
    return tuple(word for rank, word in enumerate(found) for _ in range(1 + _COMMON * 12 // (rank + 12)))


def pieces(kind: BodyKind, rng: random.Random, ending: bytes) -> Iterator[bytes]:
    """Content of this kind without end, in pieces of some kilobytes; its lines end in `ending`.

    ATTACHMENTS and FORWARDED have a beginning of their own; what closes them is `closing`.
    """
    maker = _MAKERS.get(kind)
    if maker is not None:
        yield from maker(rng, ending)
    else:
        yield from _language(kind, rng, ending)


def closing(kind: BodyKind, ending: bytes) -> bytes:
    """What a body of this kind ends with, whatever its length."""
    return ending + b"--=_part--" + ending if kind is BodyKind.ATTACHMENTS else b""


def _sentences(kind: BodyKind, rng: random.Random, count: int, between: str, per_line: int = 12) -> str:
    known = rng.choices(words(kind), k=count)
    return between.join(" ".join(known[at : at + per_line]) for at in range(0, count, per_line)) + between


def _language(kind: BodyKind, rng: random.Random, ending: bytes) -> Iterator[bytes]:
    charset = kind.value
    while True:
        text = _sentences(kind, rng, 1200, "\0", rng.randint(6, 14))
        # Line ends are put in as bytes: no charset here uses 0 within a character.
        yield text.encode(charset).replace(b"\0", ending)


def _prose(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    while True:
        quoted = rng.choice(("", "", "", "> ", "From ", "."))  # what an mbox and SMTP take for something else
        text = _sentences(BodyKind.PROSE, rng, rng.randint(200, 2000), f".\0{quoted}", rng.randint(8, 14))
        yield text.encode().replace(b"\0", ending) + ending


def _log(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    second, hosts = rng.randrange(86_400), ("mail", "db-1", "web03.example.org")
    verbs = ("connect from", "disconnect from", "job done", "timeout after", "GET /index.html")
    while True:
        lines = []
        for _ in range(200):
            second += rng.randrange(3)
            clock = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
            where = f"{rng.choice(hosts)} cron[{rng.randrange(30_000)}]"
            lines.append(f"2026-12-01 {clock} {where}: {rng.choice(verbs)} {rng.randrange(999)} ms".encode())
        yield ending.join(lines) + ending


def _table(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    row = 0
    while True:
        row += 200
        values = [rng.randrange(100_000) for _ in range(600)]
        lines = [f"{row + at};{values[at]};{values[at + 1] / 100};{values[at + 2]}" for at in range(0, 600, 3)]
        yield ending.join(line.encode() for line in lines) + ending


def _html(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    yield b'<!DOCTYPE html><html><head><meta charset="utf-8"><style>p{color:#333}</style></head><body>' + ending
    while True:
        rows = []
        for text in _sentences(BodyKind.UTF_8, rng, 400, "\0").split("\0"):
            colour = rng.randrange(1 << 24)
            rows.append(f'<td style="padding:0;color:#{colour:06x}"><p>{text}</p></td></tr><tr>'.encode())
        yield ending.join(rows) + ending


def _quoted(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    while True:
        data = _sentences(BodyKind.UTF_8, rng, 300, " ").encode()
        plain = "".join(chr(byte) if 32 <= byte < 127 and byte != 61 else f"={byte:02X}" for byte in data).encode()
        yield b"".join(plain[at : at + 72] + b"=" + ending for at in range(0, len(plain), 72))


def _base64(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    while True:
        lines = base64.encodebytes(rng.randbytes(57 * 200))
        yield lines if ending == b"\n" else lines.replace(b"\n", ending)


def _attachments(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    yield b"--=_part" + ending + b"Content-Type: text/plain" + ending * 2 + b"See what is attached." + ending
    while True:
        name = rng.choice(words(BodyKind.PROSE)).encode()
        fields = (
            b"--=_part",
            b'Content-Type: image/jpeg; name="' + name + b'.jpg"',
            b"Content-Transfer-Encoding: base64",
        )
        yield ending + ending.join(fields) + ending * 2
        lines = _base64(rng, ending)
        for _ in range(int(10 ** rng.uniform(0, 2))):  # 11 KB to 1 MB
            yield next(lines)


def _forwarded(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    fields = (b"From: someone@else.example", b"Subject: Fwd", b"Content-Type: text/plain")
    yield ending.join(fields) + ending * 2
    yield from _prose(rng, ending)


def _run(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    while True:
        one = bytes([rng.choice(b"\0 =-xA\xff")])
        yield from [one * PIECE] * int(10 ** rng.uniform(0, 2))
        yield one * rng.randrange(PIECE) + ending


def _compressed(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    deflate, text = zlib.compressobj(3, wbits=31), _prose(rng, ending)
    while True:
        if made := deflate.compress(next(text)):
            yield made


def _random(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    while True:
        yield rng.randbytes(PIECE)


def _one_line(rng: random.Random, ending: bytes) -> Iterator[bytes]:
    while True:
        yield _sentences(BodyKind.PROSE, rng, 1200, " ").encode()


_MAKERS: dict[BodyKind, Callable[[random.Random, bytes], Iterator[bytes]]] = {
    BodyKind.PROSE: _prose,
    BodyKind.LOG: _log,
    BodyKind.TABLE: _table,
    BodyKind.HTML: _html,
    BodyKind.QUOTED: _quoted,
    BodyKind.ATTACHMENT: _base64,
    BodyKind.ATTACHMENTS: _attachments,
    BodyKind.FORWARDED: _forwarded,
    BodyKind.RUN: _run,
    BodyKind.COMPRESSED: _compressed,
    BodyKind.RANDOM: _random,
    BodyKind.ONE_LINE: _one_line,
}
