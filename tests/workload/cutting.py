"""Bytes in pieces of any length, as files and sockets give them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import cycle


def chunks(data: bytes, lengths: Sequence[int], most: int = 500) -> Iterator[bytes]:
    """`data` in pieces of these lengths, over and over; after `most` pieces the rest at once, which keeps it fast."""
    position = 0
    for count, length in enumerate(cycle(lengths)):
        if position >= len(data):
            return
        end = len(data) if count >= most else position + length
        yield data[position:end]
        position = end


class Stuttering(io.BytesIO):
    """A file whose reads give as many bytes as they like, at least one."""

    def __init__(self, data: bytes, lengths: Sequence[int]) -> None:
        super().__init__(data)
        self._lengths = cycle(lengths)

    def read(self, size: int | None = -1, /) -> bytes:
        most = next(self._lengths)
        return super().read(most if size is None or size < 0 else min(size, most))
