"""Chooses how a node reaches the others: by UDP, or through a tunnel over HTTPS (overlay/http/tunnel.py).

Theory of operation
-------------------
Two states: **UDP**, the normal one, and **tunnel**, in which one node, the relay, forwards all datagrams and requests
over HTTPS. A node behind a tunnel can't be reached by others, so it is in client mode as long as the tunnel is in use.

UDP to tunnel   `_go_by_https`, after a join or rejoin that found no contact: if no node answers by UDP and some node
                answers over HTTPS, the tunnel through it is used. Not when the node is alone in its network; and a node
                in server mode that had answers in this run waits until there have been none for PATIENCE seconds,
                because others look for copies at it.
tunnel to UDP   `try_udp`, about once a minute: up to STRAIGHT contacts are pinged by UDP although the tunnel is in use,
                and if most of them answer the tunnel is closed. Also whenever the tunnel ends and no other relay is
                found.
relay to relay  `restore`: the session with the relay ended. UDP is tried first, then other relays.
                `rejoin`: no contact but the relay answers through it (`Tunnel.forwards_nothing`).
                `change_relay`, about once an hour: a relay that withholds some of the traffic can't do so for long.

Independently of the state, `check_presence` finds out whether any node answers: after some seconds without an answer
(`Presence.doubtful`) the nearest contacts are pinged, and if all stay silent the node counts as offline.

Invariants: `protocol.server_mode` is False while the tunnel is in use, and is set back to what is wanted whenever it is
closed. The methods are called one after the other by overlay/node/maintenance.py, each by its own timer; each checks
the state itself. Which contacts to ping is up to overlay/node/membership.py, and whether any answers is kept in
overlay/reachability/presence.py.
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
"""Seconds without any answer after which a node in server mode that had answers uses the tunnel."""
STRAIGHT = 3
"""Contacts pinged by UDP while the tunnel is in use; most of them must answer."""

log = logging.getLogger(__name__)


class Connection:
    """How one node reaches the others. `saved`: contacts of an earlier run; `server_mode`: whether it is wanted.

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
        """Whether the tunnel is in use."""
        return self._tunnel.is_open

    async def join(self, places: Sequence[str]) -> int:
        """Join the overlay; contacts known then. Raises ValueError for a malformed address."""
        found = await self._membership.join(places, self._saved())
        if not found:
            await self._go_by_https()
            found = len(self._protocol.router)
        if not found and not self._lone():
            self._protocol.presence.nobody()
        return found

    async def close(self) -> None:
        """Close the tunnel."""
        await self._tunnel.close()

    async def check_presence(self) -> None:
        """When no node has answered for a while, find out whether any does."""
        presence = self._protocol.presence
        if presence.doubtful and not self._lone():
            before = presence.silence
            contacts = self._protocol.router.closest(self._protocol.own_id, ENOUGH)
            await asyncio.gather(*(self._protocol.ping(contact) for contact in contacts))
            if presence.silence >= before:
                presence.nobody()

    async def rejoin(self) -> None:
        """When out of touch, join again, through the tunnel if need be; replace a relay that is of no use."""
        if not self._membership.in_touch:  # otherwise the saved contacts needn't be read
            await self._membership.rejoin(self._saved())
        if self._tunnel.forwards_nothing():
            await self._replace(self._relay_candidates())
        await self._go_by_https()

    async def restore(self) -> None:
        """When the session with the relay has ended: use UDP if it works now, else another relay."""
        if self._tunnel.lost:
            await self._by_udp()
            before = await self._membership.begin_again(self._saved())
            await self._go_by_https(before)

    async def change_relay(self) -> None:
        """Use another relay, so that one which withholds some of the traffic can't do so for long."""
        if self._tunnel.is_open:
            await self._replace(sorted(self._relay_candidates(), key=lambda _: self._random(8)))

    async def try_udp(self) -> None:
        """Go back to UDP when it works: the network or its firewall may have changed."""
        if not self._tunnel.is_open:
            return
        router = self._protocol.router
        contacts = router.closest(self._random(len(self._protocol.own_id)), STRAIGHT, healthy=True)
        if not contacts and self._tunnel.relay is not None:  # no table has a relay that uses a tunnel itself
            contacts = [self._tunnel.relay]
        answers = await asyncio.gather(*(self._protocol.answers_by_udp(contact) for contact in contacts))
        if answers.count(True) * 2 > len(answers):
            log.info("nodes answer by UDP again")
            await self._by_udp()
            await self._membership.settle()

    async def _replace(self, relays: Sequence[RelayAddress]) -> None:
        await self._tunnel.replace(relays)
        if not self._tunnel.is_open:
            await self._by_udp()

    async def _by_udp(self) -> None:
        await self._tunnel.close()
        self._protocol.server_mode = self._wants_server_mode()

    async def _go_by_https(self, before: Sequence[Contact] = ()) -> None:
        """If no node answers by UDP, try to reach one over HTTPS."""
        if self._tunnel.is_open or self._membership.in_touch or self._lone():
            return
        presence = self._protocol.presence
        if self._protocol.server_mode and presence.answered and presence.silence < PATIENCE:
            return
        if await self._tunnel.open(self._relay_candidates(before)):
            self._protocol.server_mode = False
            await self._membership.settle()

    def _relay_candidates(self, before: Sequence[Contact] = ()) -> list[RelayAddress]:
        own = self._protocol.sealer.public
        known = [*before, *self._protocol.router.closest(self._protocol.own_id, SAVED_CONTACTS), *self._saved()]
        relays = [RelayAddress(*place) for place in self._membership.places]
        relays += [RelayAddress(contact.ip, contact.port, contact.key) for contact in known]
        return [relay for relay in relays if relay.key != own]
