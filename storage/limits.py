"""Sizes and limits that a node's store shares with the protocol; each stands here and nowhere else.

The store mustn't know the overlay, so what both must agree on is below both: overlay/protocol_limits.py hands these on
beside its own. A limit that one module alone keeps is in that module. docs/protocol.md, section 13, lists them all.
"""

from __future__ import annotations

KEY_BYTES = 20
"""A key is a point of the DHT's space: 160 bits (Kademlia, section 2.1; the kademlia package fixes it)."""

DIGEST_BYTES = 32
"""SHA-256: the digest of an object or a notification, a deleter hash."""

INBOX = 0
"""Stands for the kind of an inbox where keys of objects and of inboxes are named together; kinds begin at 1."""

HOUR = 3600.0
DAY = 24 * HOUR

RETENTION = 30 * DAY
"""Seconds that a node keeps anything at the most: six times as long as a mail server keeps trying (RFC 5321, section
4.5.4.1, asks for 4 to 5 days)."""

MAX_PROOF = 4 * 1024
"""Bytes of a delete proof: a certificate of about 600 bytes, a signature, and room for longer addresses."""

MAX_INBOX_NOTIFICATIONS = 1_000
"""Notifications of one inbox at one node, so that a flood of one recipient takes no room from the others."""
