"""What a node is configured with: fixed before it listens, and unchanged while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.identity.admission import Proof
from overlay.identity.certificates import TrustStore
from overlay.identity.network import Network
from overlay.identity.tls import TLSIdentity
from overlay.reachability.verdict import Reachability
from storage.node.store import NodeStore


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node's configuration.

    network     the network that it belongs to
    key         its X25519 key, whose hash is its node id
    store       what it keeps for others; None: it is a client, and nobody's routing table has it
    trust       the authorities and their revocations; by default the network's authorities
    tls         the certificate of its HTTP server; by default a new one at each start
    proof       whose node it is, where the network admits only nodes of members
    reachability    whether it starts in server mode, and may change that; by default a node with a store stays in
                    server mode for ever
    now         wall clock, seconds since the epoch
    random      random bytes, as os.urandom
    """

    network: Network
    key: X25519PrivateKey
    store: NodeStore | None = None
    trust: TrustStore | None = None
    tls: TLSIdentity | None = None
    proof: Proof | None = None
    reachability: Reachability | None = None
    now: Callable[[], float] = time.time
    random: Callable[[int], bytes] = os.urandom
