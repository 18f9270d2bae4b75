"""Dial-back: tests for another node whether strangers can reach it, from a socket that it has never written to.

Only the address that asked is dialled, which its write token has proven: so no computer that didn't ask is contacted.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256

from overlay.errors import OverlayError
from overlay.identity.contact import Contact
from overlay.identity.tls import client_context
from overlay.limits.address_quota import AddressQuota
from overlay.primitives.service import refusal
from overlay.wire import messages
from overlay.wire.messages import Code
from overlay.wire.rpc import Handled, RemotePeer, SealedRPC
from overlay.wire.sealed_datagram import Sealer

AT_ONCE, AT_ONCE_EACH = 8, 1
UDP_PATIENCE = 3.0
TCP_PATIENCE = 5.0
ANSWERED_WITHIN = 8.0
"""Seconds in which the node that asked has the answer."""


class Dialler:
    """Dials back for the node that seals with `sealer` and listens at `interface`."""

    def __init__(self, sealer: Sealer, interface: str, *, loopback_free: bool) -> None:
        self._sealer = sealer
        self._interface = interface
        self._shares = AddressQuota(AT_ONCE, AT_ONCE_EACH, loopback_free=loopback_free)

    async def dial(self, asker: Contact, fingerprint: bytes) -> messages.Dialled:
        """Whether datagrams and TLS get to `asker`, at one port number. Raises Refused (BUSY)."""
        if not self._shares.take(asker.ip):
            raise refusal(Code.BUSY)
        try:
            udp, tcp = await asyncio.gather(self._udp(asker), _tcp(asker, fingerprint))
        finally:
            self._shares.give(asker.ip)
        return messages.Dialled(udp, tcp)

    async def _udp(self, asker: Contact) -> bool:
        loop = asyncio.get_running_loop()
        try:
            transport, stranger = await loop.create_datagram_endpoint(
                lambda: _Stranger(self._sealer, server_mode=False), local_addr=(self._interface, 0)
            )
        except OSError:
            return False
        try:
            await stranger.call(asker, messages.Ping(), patience=UDP_PATIENCE)
        except OverlayError:
            return False
        finally:
            transport.close()
        return True


class _Stranger(SealedRPC):
    """A socket that sends requests and answers none."""

    def handle(self, sender: RemotePeer, request: messages.Request) -> Handled:
        return messages.Refusal(Code.UNKNOWN_KIND)


async def _tcp(asker: Contact, fingerprint: bytes) -> bool:
    try:
        async with asyncio.timeout(TCP_PATIENCE):
            _, writer = await asyncio.open_connection(asker.ip, asker.port, ssl=client_context())
    except (OSError, TimeoutError):
        return False
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return sha256(certificate or b"").digest() == fingerprint
    finally:
        writer.transport.abort()
