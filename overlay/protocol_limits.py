"""The limits that the overlay's protocol fixes; each stands here and nowhere else, with its reason.

All nodes and user agents of a network must agree on them, so no setting changes one. What one module alone keeps to
(its caches, its time-outs) is in that module. Those that a node's store must know are in storage/limits.py, and are
imported from here. docs/protocol.md, section 13, lists them all; tests/test_limits.py holds the code to that table.
"""

from __future__ import annotations

from storage.limits import DAY, DIGEST_BYTES, HOUR, INBOX, KEY_BYTES, MAX_INBOX_NOTIFICATIONS, MAX_PROOF, RETENTION

__all__ = (
    "CLOCK_MARGIN",
    "DAY",
    "DEFAULT_K",
    "DIGEST_BYTES",
    "ENCRYPTION_KEY_SIZE",
    "HOUR",
    "INBOX",
    "KEY_BYTES",
    "LEASE",
    "MAX_CARD",
    "MAX_CERTIFICATE",
    "MAX_COPIES",
    "MAX_DATAGRAM",
    "MAX_DATAGRAM_OBJECT",
    "MAX_DATAGRAM_READ",
    "MAX_DELETERS",
    "MAX_ENROLMENT_ANSWER",
    "MAX_HASHES",
    "MAX_HTTP_HASHES",
    "MAX_HTTP_READ",
    "MAX_K",
    "MAX_NOTIFICATION",
    "MAX_OBJECT",
    "MAX_PROOF",
    "MAX_SIGNED_OBJECT",
    "MAX_WIDTH",
    "MIN_RATE",
    "PUBLIC_KEY_BYTES",
    "RATE_WINDOW",
    "RETENTION",
    "SALT_BYTES",
    "SIGNATURE_BYTES",
    "TOKEN_BYTES",
)

# Sizes of values

PUBLIC_KEY_BYTES = 32
"""A node's X25519 key (RFC 7748)."""
SIGNATURE_BYTES = 64
"""An Ed25519 signature (RFC 8032)."""
SALT_BYTES = 16
"""A deleter salt: 128 random bits."""
TOKEN_BYTES = 16
"""A write token: 128 bits of a keyed hash."""
ENCRYPTION_KEY_SIZE = 1184 + 32
"""A public key of MLKEM768-X25519: ML-KEM-768's (FIPS 203), then X25519's."""

# Replication

DEFAULT_K = 10
"""Copies of each object unless network.toml says otherwise (paper, section 2.3)."""
MAX_COPIES = 20
"""Copies that network.toml may ask for: Kademlia's own k."""
MAX_K = 2 * MAX_COPIES
"""Contacts that one Find may ask for: twice the most copies that are ever made."""
MAX_WIDTH = 64
"""The closest nodes that one call looks up at the most, and among which the shares of one key lie."""

# Datagrams

MAX_DATAGRAM = 1200
"""Bytes of a UDP payload: IPv6's least MTU of 1,280 (RFC 8200, section 5) less headers, as QUIC does (RFC 9000, 14)."""
MAX_DATAGRAM_OBJECT = 8192
"""Bytes of an object that travels by datagram; a larger one goes over HTTP."""
MAX_DATAGRAM_READ = 8192
"""Bytes of notifications in one answer by datagram."""
MAX_HASHES = 200
"""Hashes in one message: 6,400 bytes, so that the message stays within nine fragments."""

# Objects

MAX_OBJECT = 64 * 1024 * 1024
"""Bytes of one object. User agents cut bodies into segments of 1 MiB; the rest is room for other implementations."""
MAX_SIGNED_OBJECT = 1 << 20
"""Bytes of an object that a node opens and checks itself; a revocation list of this size has about 25,000 entries."""
MAX_CARD = 8192
"""Bytes of a card: ours have about 1,800."""
MAX_ENROLMENT_ANSWER = 8192
"""Bytes of an authority's answer to a joiner, so that it fits into a message by datagram."""
MAX_CERTIFICATE = 2048
"""Bytes of a certificate (DER): ours have about 450, with the longest address 800."""
MAX_DELETERS = 1000
"""Deleter hashes of one store request: 32 kB. A message to more recipients is stored once for each group of them."""

# Inboxes

MAX_NOTIFICATION = 64 * 1024
"""Bytes of a notification: room for 1,024 digests; an ordinary one has 3 or 4 KiB and goes by datagram."""
LEASE = 60.0
"""Seconds that notifications handed out wait for their acknowledgement before another reader gets them."""
MAX_HTTP_READ = 4 * 1024 * 1024
"""Bytes of notifications in one answer to read-inbox over HTTP."""
MAX_HTTP_HASHES = MAX_INBOX_NOTIFICATIONS
"""Notifications acknowledged in one request over HTTP: as many as an inbox holds."""

# Times and rates

CLOCK_MARGIN = DAY
"""Seconds that another's clock may be ahead of ours before what it dated is refused."""
RATE_WINDOW = 30.0
"""Seconds in which a body over HTTP must come at MIN_RATE on average, or the connection ends."""
MIN_RATE = 1024
"""Bytes a second of a body over HTTP; Apache's mod_reqtimeout asks for 500."""
