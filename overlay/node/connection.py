"""Staying in touch with the others: by UDP where that works, else through one node by HTTPS (overlay/http/tunnel.py).

A node that goes by HTTPS can't be reached, so it serves nobody until it goes by UDP again. Whom to greet is
overlay/node/membership.py's, whether anybody answers overlay/reachability/presence.py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from overlay.http.tunnel import RelayAddress, Tunnel
from overlay.identity.contact import Contact
from overlay.node.membership import ENOUGH, SAVED_CONTACTS, Membership
from overlay.protocol import OverlayProtocol

PATIENCE = 60.0
"""Seconds without an answer after which a node that had some goes by HTTPS: others look for copies at it till then."""
STRAIGHT = 3
"""Contacts asked by UDP while everything goes by HTTPS; most of them must answer."""

log = logging.getLogger(__name__)


class Connection:
    """How one node reaches the others. `saved`: contacts of an earlier run; `serves`: whether it is to be a node.

    `lone`: whether there is nobody to be reached, as far as is known.
    """

    def __init__(
        self,
        protocol: OverlayProtocol,
        membership: Membership,
        tunnel: Tunnel,
        *,
        saved: Callable[[], list[Contact]],
        server_mode: Callable[[], bool],
        lone: Callable[[], bool],
        random: Callable[[int], bytes],
    ) -> None:
        self._protocol, self._membership, self._tunnel = protocol, membership, tunnel
        self._saved, self._wants_server_mode, self._lone, self._random = saved, server_mode, lone, random

    @property
    def https(self) -> bool:
        """Whether everything goes by HTTPS now."""
        return self._tunnel.taken

    async def join(self, places: Sequence[str]) -> int:
        """Find the overlay; contacts known then. Raises ValueError for a bad place."""
        found = await self._membership.join(places, self._saved())
        if not found:
            await self._go_by_https()
            found = len(self._protocol.router)
        if not found and not self._lone():
            self._protocol.presence.nobody()
        return found

    async def close(self) -> None:
        """End the session with a relay."""
        await self._tunnel.close()

    async def look(self) -> None:
        """When nobody has answered for a while, find out whether anybody does."""
        presence = self._protocol.presence
        if presence.doubtful and not self._lone():
            before = presence.silence
            contacts = self._protocol.router.closest(self._protocol.own_id, ENOUGH)
            await asyncio.gather(*(self._protocol.ping(contact) for contact in contacts))
            if presence.silence >= before:
                presence.nobody()

    async def rejoin(self) -> None:
        """When nobody is left, begin again; by HTTPS if need be, through another relay if this one is of no use."""
        if not self._membership.in_touch:  # else the file needn't be read
            await self._membership.rejoin(self._saved())
        if self._tunnel.blind():
            await self._replace(self._http_servers())
        await self._go_by_https()

    async def restore(self) -> None:
        """When the session with the relay has ended: by UDP if that works here now, else through another."""
        if self._tunnel.lost:
            await self._by_udp()
            before = await self._membership.begin_again(self._saved())
            await self._go_by_https(before)

    async def change_relay(self) -> None:
        """By another relay: who keeps some of what it is given to itself doesn't keep that from us for long."""
        if self._tunnel.taken:
            await self._replace(sorted(self._http_servers(), key=lambda _: self._random(8)))

    async def try_udp(self) -> None:
        """Go by UDP again when it works: the network or its firewall may have changed."""
        if not self._tunnel.taken:
            return
        router = self._protocol.router
        contacts = router.closest(self._random(len(self._protocol.own_id)), STRAIGHT, healthy=True)
        if not contacts and self._tunnel.relay is not None:  # it is in no table when it goes by HTTPS itself
            contacts = [self._tunnel.relay]
        answers = await asyncio.gather(*(self._protocol.answers_by_udp(contact) for contact in contacts))
        if answers.count(True) * 2 > len(answers):
            log.info("nodes answer by UDP again")
            await self._by_udp()
            await self._membership.settle()

    async def _replace(self, http_servers: Sequence[RelayAddress]) -> None:
        await self._tunnel.replace(http_servers)
        if not self._tunnel.taken:
            await self._by_udp()

    async def _by_udp(self) -> None:
        await self._tunnel.close()
        self._protocol.server_mode = self._wants_server_mode()

    async def _go_by_https(self, before: Sequence[Contact] = ()) -> None:
        """Where nobody answers by UDP, see whether a node is reached by HTTPS."""
        if self._tunnel.taken or self._membership.in_touch or self._lone():
            return
        presence = self._protocol.presence
        if self._protocol.server_mode and presence.answered and presence.silence < PATIENCE:
            return
        if await self._tunnel.find(self._http_servers(before)):
            self._protocol.server_mode = False
            await self._membership.settle()

    def _http_servers(self, before: Sequence[Contact] = ()) -> list[RelayAddress]:
        own = self._protocol.sealer.public
        known = [*before, *self._protocol.router.closest(self._protocol.own_id, SAVED_CONTACTS), *self._saved()]
        http_servers = [RelayAddress(*place) for place in self._membership.places]
        http_servers += [RelayAddress(contact.ip, contact.port, contact.key) for contact in known]
        return [http_server for http_server in http_servers if http_server.key != own]
