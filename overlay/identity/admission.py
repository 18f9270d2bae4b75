"""Certified admission: a network may want to know whose each node is (design, section 3: `admission = "certified"`).
 A node shows the certificate of a member and that member's signature over the network's name and the node's key.
Whoever shows none gets into no table, and its answers to lookups don't count. Decisions only:
overlay/protocol.py asks."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from overlay.identity.certificates import CertificateError, TrustStore
from overlay.identity.ownership import Owner, valid

NODES_OF_CERTIFICATE = 4
"""Nodes that one member may have: so many ids are what one certificate buys."""
GOOD_FOR = 3600.0
"""Seconds after which it is asked for again: a certificate may have been revoked."""
KEPT = 8192


@dataclass(frozen=True, slots=True)
class Proof:
    """A member's certificate (DER), and her signature for one node."""

    certificate: bytes
    signature: bytes = field(repr=False)


def statement(network: str, node_key: bytes) -> bytes:
    """What a member signs for her node, whose X25519 public key this is."""
    return b"p2pmail node\0" + network.encode() + b"\0" + node_key


def sign(owner: Owner, network: str, node_key: bytes) -> Proof:
    """The proof that `owner` answers for a node."""
    return Proof(owner.certificate, owner.sign(statement(network, node_key)))


class Admission:
    """Which nodes have shown that they belong to a member of `network`. `now` gives seconds since the epoch."""

    def __init__(self, network: str, trust: TrustStore, now: Callable[[], float]) -> None:
        self._network = network
        self._trust = trust
        self._now = now
        self._admitted: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._nodes: Counter[bytes] = Counter()

    def admitted(self, key: bytes) -> bool:
        """Whether the node with this key has shown it lately."""
        until, _ = self._admitted.get(key, (0.0, b""))
        return until > self._now()

    def show(self, key: bytes, proof: Proof) -> bool:
        """Whether `proof` admits the node with this key."""
        try:
            verified = self._trust.verify(proof.certificate, self._now())
        except CertificateError:
            return False
        if not valid(verified.public_key, proof.signature, statement(self._network, key)):
            return False
        whose = sha256(proof.certificate).digest()
        self._forget(key)
        if self._nodes[whose] >= NODES_OF_CERTIFICATE:
            return False
        self._admitted[key] = self._now() + GOOD_FOR, whose
        self._nodes[whose] += 1
        if len(self._admitted) > KEPT:
            self._forget(next(iter(self._admitted)))
        return True

    def _forget(self, key: bytes) -> None:
        known = self._admitted.pop(key, None)
        if known is not None:
            self._nodes[known[1]] -= 1
            if not self._nodes[known[1]]:
                del self._nodes[known[1]]
