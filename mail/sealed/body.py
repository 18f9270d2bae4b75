"""The body as nodes keep it: compressed, padded, sealed with AES-256-GCM in frames (design section 5).

What lives here turns a message into segments and back, as streams: memory stays the same for any size. The session
key travels in the notification (mail/sealed/notification.py); where segments go is not known here.

Format: 32 bytes of salt, then frames of 64 KiB, the last one shorter or as long. A frame is AES-256-GCM under
HKDF-SHA256(session key, salt); its nonce is an 11-byte counter and a byte that is 1 in the last frame only (STREAM:
Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015), so frames can't be dropped, added or put in another order. Inside
is one zlib stream (RFC 1950), then zeros up to the Padmé length.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mail.sealed.padding import padded_length
from mail.sealed.segments import MAX_SEGMENTS, SEGMENT_SIZE, Segment, describe
from storage.errors import DATA, P2PMailError
from storage.user.outbox_entry import SESSION_KEY_SIZE

SALT_SIZE = 32
TAG_SIZE = 16
FRAME_SIZE = 1 << 16
"""Bytes of a sealed frame: sixteen are a segment."""

FRAME_CONTENT = FRAME_SIZE - TAG_SIZE

LEVEL = 6
"""zlib's own default. Part of what makes the same message the same bytes again."""

SEALED_LIMIT = MAX_SEGMENTS * SEGMENT_SIZE
"""Bytes of the largest sealed body, 1 GiB."""

ORIGINAL_LIMIT = 960 << 20
"""Bytes of the largest message: one that can't be compressed still fits, padded, into SEALED_LIMIT."""

REVISION = 2
"""Goes up with each change of what can be opened: what an earlier revision couldn't open is tried again at once."""

_CHUNK = 1 << 16
_INFO = b"p2pmail body 1"


class SealingError(P2PMailError):
    """A body can't be sealed or opened; the message says why."""

    exit_code = DATA


class TooLarge(SealingError):
    """The message is larger than one message may be."""


class BodyDamaged(SealingError):
    """The body is not what its sender sealed: cut off, changed, or not for this session key."""


class BodyTooLong(BodyDamaged):
    """The body unpacks to more than its notification stated; unpacking was stopped there."""


class Sink(Protocol):
    """Where opened bytes go; a binary file is one."""

    def write(self, data: bytes, /) -> object: ...


def sealed_length(compressed: int) -> int:
    """Bytes of the sealed body of a compressed message."""
    content = padded_length(compressed)
    return SALT_SIZE + content + -(-content // FRAME_CONTENT) * TAG_SIZE


def seal_body(source: BinaryIO, session_key: bytes) -> Iterator[tuple[Segment, bytes]]:
    """Seal the message in `source`, from its beginning: each segment's description and bytes, in order.

    The same message under the same key gives the same bytes, so that an interrupted sending goes on where it was.
    The file is read twice and must not change meanwhile. Memory: about two segments. Raises TooLarge, SealingError
    (also when the file changed), OSError.
    """
    if len(session_key) != SESSION_KEY_SIZE:
        raise SealingError("The session key has the wrong size.")
    digest = _digest(source)
    salt = _salt(session_key, digest)
    aead = _frame_key(session_key, salt)
    buffer, index = bytearray(salt), 0
    for number, (content, last) in enumerate(_frames(_padded(_compressed(source, digest)))):
        buffer += aead.encrypt(_nonce(number, last=last), content, None)
        while len(buffer) > SEGMENT_SIZE or (last and buffer):
            data = bytes(buffer[:SEGMENT_SIZE])
            del buffer[:SEGMENT_SIZE]
            yield describe(index, data), data
            index += 1


class Opener:
    """Opens a body from its segments, fed in order and cut anywhere; writes the message to `target` as it goes.

    What was written is the sender's, but not known to be whole before `finish` returns: on any error the caller drops
    it. Memory: a few frames.
    """

    def __init__(self, session_key: bytes, original_size: int, target: Sink) -> None:
        """`original_size`: bytes, as the notification states them. Raises SealingError."""
        if len(session_key) != SESSION_KEY_SIZE:
            raise SealingError("The session key has the wrong size.")
        if not 0 <= original_size <= ORIGINAL_LIMIT:
            raise SealingError("The stated size of the message is impossible.")
        self._session_key = session_key
        self._size = original_size
        self._target = target
        self._buffer = bytearray()
        self._aead: AESGCM | None = None
        self._number = 0
        self._content = 0
        self._written = 0
        self._inflate = zlib.decompressobj()
        self._compressed = 0

    @property
    def written(self) -> int:
        """Bytes of the message that are written, for a progress bar."""
        return self._written

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the sealed body. Raises BodyDamaged, BodyTooLong, and what `target` raises."""
        for start in range(0, len(data), FRAME_SIZE):
            self._buffer += data[start : start + FRAME_SIZE]
            if self._aead is None and len(self._buffer) >= SALT_SIZE:
                self._aead = _frame_key(self._session_key, bytes(self._buffer[:SALT_SIZE]))
                del self._buffer[:SALT_SIZE]
            # The last frame looks like the others until the end is known: one is always held back.
            if self._aead is not None and len(self._buffer) > FRAME_SIZE:
                self._frame(self._aead, last=False)

    def finish(self) -> int:
        """The sealed body is at its end: check that the message is too. Returns its size. Raises BodyDamaged."""
        if self._aead is None:
            raise BodyDamaged("The body is cut off.")
        self._frame(self._aead, last=True)
        if not self._inflate.eof:
            raise BodyDamaged("The body is cut off.")
        if self._content != padded_length(self._compressed):
            raise BodyDamaged("The body is not padded as it must be.")
        if self._written != self._size:
            raise BodyDamaged(f"The message has {self._written:,} bytes, not {self._size:,} as it was announced.")
        return self._written

    def _frame(self, aead: AESGCM, *, last: bool) -> None:
        sealed = bytes(self._buffer[:FRAME_SIZE])
        del self._buffer[:FRAME_SIZE]
        try:
            content = aead.decrypt(_nonce(self._number, last=last), sealed, None)
        except InvalidTag:
            raise BodyDamaged("The body is cut off, was changed, or has another key.") from None
        self._number += 1
        self._content += len(content)
        padding = self._unpack(content)
        if padding.count(0) != len(padding):
            raise BodyDamaged("The body has something after its end.")

    def _unpack(self, content: bytes) -> bytes:
        """Inflate and write; returns what comes after the end of the compressed message."""
        while not self._inflate.eof:
            # One byte more than is left: what is longer shows itself, and is never unpacked.
            room = min(_CHUNK, self._size - self._written + 1)
            try:
                data = self._inflate.decompress(content, room)
            except zlib.error:
                raise BodyDamaged("The body can't be decompressed.") from None
            # What is left is in `unconsumed_tail`; after the stream's end in `unused_data`, and perhaps in both.
            left = self._inflate.unused_data or self._inflate.unconsumed_tail
            self._compressed += len(content) - len(left)
            content = left
            self._written += len(data)
            if self._written > self._size:
                raise BodyTooLong(f"The message is longer than the {self._size:,} bytes that were announced.")
            if data:
                self._target.write(data)
            elif not content:
                break
        return content


def _digest(source: BinaryIO) -> bytes:
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(source):
        digest.update(chunk)
        size += len(chunk)
        if size > ORIGINAL_LIMIT:
            raise TooLarge(f"The message is too large: at most {ORIGINAL_LIMIT:,} bytes can be sent.")
    return digest.digest()


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    """The file in pieces of the same size whatever `read` returns: zlib sees the same calls every time."""
    source.seek(0)
    while chunk := source.read(_CHUNK):
        while len(chunk) < _CHUNK and (more := source.read(_CHUNK - len(chunk))):
            chunk += more
        yield chunk


def _salt(session_key: bytes, digest: bytes) -> bytes:
    """The salt depends on all that the sealed bytes depend on, so that a session key used for another message, or with
    another zlib, never meets the same nonces under the same frame key."""
    context = b"\0".join([_INFO, digest, zlib.ZLIB_RUNTIME_VERSION.encode(), str(LEVEL).encode()])
    return hmac.digest(session_key, context, "sha256")


def _frame_key(session_key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt, _INFO).derive(session_key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _compressed(source: BinaryIO, expected: bytes) -> Iterator[bytes]:
    deflate, digest = zlib.compressobj(LEVEL), hashlib.sha256()
    for chunk in _chunks(source):
        digest.update(chunk)
        yield deflate.compress(chunk)
    if digest.digest() != expected:
        raise SealingError("The message changed while it was read; it was not sealed.")
    yield deflate.flush()


def _padded(parts: Iterator[bytes]) -> Iterator[bytes]:
    length = 0
    for part in parts:
        length += len(part)
        yield part
    missing = padded_length(length) - length
    while missing:
        piece = min(missing, _CHUNK)
        yield bytes(piece)
        missing -= piece


def _frames(parts: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Cut a stream into frames' contents; the last one, never empty, is marked."""
    buffer = bytearray()
    for part in parts:
        buffer += part
        while len(buffer) > FRAME_CONTENT:
            yield bytes(buffer[:FRAME_CONTENT]), False
            del buffer[:FRAME_CONTENT]
    yield bytes(buffer), True
