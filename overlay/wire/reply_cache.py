"""The reply cache: answers kept for repeated requests, so that no request is carried out twice.

Bounded in all and for each peer. Decisions only.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

KEPT = 2048
BYTES = 4 * 1024 * 1024
"""Replies kept in all, by number and in bytes."""
KEPT_OF_PEER = 128
BYTES_OF_PEER = 256 * 1024
"""Replies kept for one peer: a peer that sends more requests pushes out only its own replies."""

Name = tuple[bytes, str, bytes]
"""What identifies a request: the sender's key, its IP address and the message id. Without the address, a peer that got
a large answer once could have it sent to a victim, by small repeats from the victim's forged address."""


class ReplyCache:
    """The datagrams of each reply, by the name of its request; an empty list while the request is being worked on."""

    def __init__(self) -> None:
        self._replies: OrderedDict[Name, list[bytes]] = OrderedDict()
        self._of_peer: dict[bytes, OrderedDict[Name, None]] = {}
        self._bytes_of_peer: Counter[bytes] = Counter()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._replies)

    def __contains__(self, name: Name) -> bool:
        return name in self._replies

    def get(self, name: Name) -> list[bytes] | None:
        """The reply to this request, or None when the request is new."""
        return self._replies.get(name)

    def keep(self, name: Name, datagrams: list[bytes]) -> None:
        """Keep a reply, or an empty list for a request in progress; drop the oldest replies beyond the bounds."""
        self._forget(name)
        peer, size = name[0], sum(map(len, datagrams))
        self._replies[name] = datagrams
        own = self._of_peer.setdefault(peer, OrderedDict())
        own[name] = None
        self._bytes_of_peer[peer] += size
        self._bytes += size
        while len(own) > KEPT_OF_PEER or (self._bytes_of_peer[peer] > BYTES_OF_PEER and len(own) > 1):
            self._forget(next(iter(own)))
        while len(self._replies) > KEPT or self._bytes > BYTES:
            self._forget(next(iter(self._replies)))

    def _forget(self, name: Name) -> None:
        datagrams = self._replies.pop(name, None)
        if datagrams is None:
            return
        peer, size = name[0], sum(map(len, datagrams))
        self._bytes -= size
        self._bytes_of_peer[peer] -= size
        own = self._of_peer[peer]
        del own[name]
        if not own:
            del self._of_peer[peer], self._bytes_of_peer[peer]
