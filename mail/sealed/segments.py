"""Segments: a sealed body as objects of at most 1 MiB, sent and fetched in parallel (design section 5).

What lives here names, counts and describes them; mail/sealed/body.py makes and opens their bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SEGMENT_SIZE = 1 << 20
"""Bytes of every segment but the last: what a node takes as one object."""

MAX_SEGMENTS = 1024
"""Segments of a body (1 GiB): their digests must fit into a notification of at most 64 KiB."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: its place, size in bytes and SHA-256, which is the object's digest."""

    index: int
    size: int
    digest: bytes


def describe(index: int, data: bytes) -> Segment:
    """The description of a segment's bytes."""
    return Segment(index, len(data), hashlib.sha256(data).digest())


def segment_count(sealed_size: int) -> int:
    """How many segments a sealed body of this size has."""
    return -(-sealed_size // SEGMENT_SIZE)


def segment_size(index: int, sealed_size: int) -> int:
    """Bytes of segment `index` of a sealed body of this size."""
    return min(SEGMENT_SIZE, sealed_size - index * SEGMENT_SIZE)


def segment_identifier(message_id: str, index: int, many: bool, group: bytes = b"") -> str:
    """The identifier of one object (overlay.ids.body_key makes its key).

    A body of one segment lies under the Message-ID itself (paper, Table 1), segment i of several under MESSAGE-ID#i.
    One that is stored several times, each for a `group` of its recipients, lies under MESSAGE-ID+GROUP (hexadecimal)
    instead.
    """
    name = f"{message_id}+{group.hex()}" if group else message_id
    return f"{name}#{index}" if many else name
