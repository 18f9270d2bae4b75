"""Certified admission: a network may require a proof of the member that runs each node (design, section 3).

It applies where network.toml has `admission = "certified"`. A node shows a member's certificate, and that member's
signature over the network's name and the node's key. A node without it comes into no routing table, and lookups ignore
its answers. Decisions only: overlay/protocol.py asks for the proofs.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from overlay.identity.certificates import CertificateError, TrustStore
from overlay.identity.ownership import Owner, valid

NODES_OF_CERTIFICATE = 4
"""Nodes that one member may run, so that a certificate doesn't buy unlimited ids."""
GOOD_FOR = 3600.0
"""Seconds after which the proof is asked for again: the certificate may have been revoked."""
KEPT = 8192
"""Admitted nodes remembered; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A member's certificate (DER), and its signature for one node."""

    certificate: bytes
    signature: bytes = field(repr=False)


def statement(network: str, node_key: bytes) -> bytes:
    """The bytes that a member signs for its node, member X25519 public key this is."""
    return b"p2pmail node\0" + network.encode() + b"\0" + node_key


def sign(owner: Owner, network: str, node_key: bytes) -> Proof:
    """The proof that a node belongs to `owner`."""
    return Proof(owner.certificate, owner.sign(statement(network, node_key)))


class Admission:
    """The nodes that have proved to belong to a member of `network`. `now` gives seconds since the epoch."""

    def __init__(self, network: str, trust: TrustStore, now: Callable[[], float]) -> None:
        self._network = network
        self._trust = trust
        self._now = now
        self._admitted: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._nodes: Counter[bytes] = Counter()

    def admitted(self, key: bytes) -> bool:
        """Whether the node with this key has shown a valid proof in the last GOOD_FOR seconds."""
        until, _ = self._admitted.get(key, (0.0, b""))
        return until > self._now()

    def show(self, key: bytes, proof: Proof) -> bool:
        """Check a proof of the node with this key; True when it is admitted."""
        try:
            verified = self._trust.verify(proof.certificate, self._now())
        except CertificateError:
            return False
        if not valid(verified.public_key, proof.signature, statement(self._network, key)):
            return False
        member = sha256(proof.certificate).digest()
        self._forget(key)
        if self._nodes[member] >= NODES_OF_CERTIFICATE:
            return False
        self._admitted[key] = self._now() + GOOD_FOR, member
        self._nodes[member] += 1
        if len(self._admitted) > KEPT:
            self._forget(next(iter(self._admitted)))
        return True

    def _forget(self, key: bytes) -> None:
        known = self._admitted.pop(key, None)
        if known is not None:
            self._nodes[known[1]] -= 1
            if not self._nodes[known[1]]:
                del self._nodes[known[1]]
