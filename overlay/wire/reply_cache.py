"""Answers kept for repeated requests, so that what was done once isn't done again: bounded in all and for each peer."""

from __future__ import annotations

from collections import Counter, OrderedDict

KEPT = 2048
BYTES = 4 * 1024 * 1024
"""Answers kept for repeated requests, by number and in bytes."""
KEPT_OF_PEER = 128
BYTES_OF_PEER = 256 * 1024
"""Of one peer: whoever asks more forgets its own answers, and nobody else's."""

Name = tuple[bytes, str, bytes]
"""What makes a request a repeat: the same key, IP address and message id. Without the address, whoever got a large
answer once could have it sent to anybody, with small repeats under a forged address."""


class ReplyCache:
    """The datagrams of answers by the request's name; an empty list while it is worked on."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Name, list[bytes]] = OrderedDict()
        self._of_peer: dict[bytes, OrderedDict[Name, None]] = {}
        self._bytes_of_peer: Counter[bytes] = Counter()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, name: Name) -> bool:
        return name in self._answers

    def get(self, name: Name) -> list[bytes] | None:
        """What was answered, or None to a request that is new."""
        return self._answers.get(name)

    def keep(self, name: Name, datagrams: list[bytes]) -> None:
        """Keep an answer, or that one is worked on, and forget older ones beyond the bounds."""
        self._forget(name)
        peer, size = name[0], sum(map(len, datagrams))
        self._answers[name] = datagrams
        own = self._of_peer.setdefault(peer, OrderedDict())
        own[name] = None
        self._bytes_of_peer[peer] += size
        self._bytes += size
        while len(own) > KEPT_OF_PEER or (self._bytes_of_peer[peer] > BYTES_OF_PEER and len(own) > 1):
            self._forget(next(iter(own)))
        while len(self._answers) > KEPT or self._bytes > BYTES:
            self._forget(next(iter(self._answers)))

    def _forget(self, name: Name) -> None:
        datagrams = self._answers.pop(name, None)
        if datagrams is None:
            return
        peer, size = name[0], sum(map(len, datagrams))
        self._bytes -= size
        self._bytes_of_peer[peer] -= size
        own = self._of_peer[peer]
        del own[name]
        if not own:
            del self._of_peer[peer], self._bytes_of_peer[peer]
