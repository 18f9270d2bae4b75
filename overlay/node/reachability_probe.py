"""Asks other nodes at intervals whether they can reach this node, and changes between server and client mode.

What a round of answers means is decided in overlay/reachability/verdict.py. The nodes that are asked connect back in
overlay/reachability/dial_back.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from overlay.errors import NoAnswer, Refused
from overlay.identity.contact import Contact
from overlay.node.membership import about
from overlay.protocol import OverlayProtocol
from overlay.protocol_limits import KEY_BYTES
from overlay.reachability.verdict import ASKED, Reachability, choose
from overlay.replication.node_client import NodeClient

FIRST = 5.0
"""Seconds after joining until the first round."""

log = logging.getLogger(__name__)


class ReachabilityProbe:
    """Keeps `reach` true for the node behind `protocol`; `changed` is awaited when it begins or stops to serve."""

    def __init__(
        self,
        protocol: OverlayProtocol,
        node_client: NodeClient,
        reachability: Reachability,
        random: Callable[[int], bytes],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._protocol = protocol
        self._node_client = node_client
        self._reachability = reachability
        self._random = random
        self._changed = changed

    async def watch(self) -> None:
        """Round after round, until cancelled."""
        pause = FIRST
        while True:
            await asyncio.sleep(about(pause, self._random))
            try:
                await self.ask()
            except Exception:
                log.exception("dial-back failed; it will be tried again")
            pause = self._reachability.pause

    async def ask(self) -> None:
        """One round, and the change of mode that follows from it."""
        if self._protocol.tunnel_send is not None:
            return  # through a tunnel: the others would dial the relay
        known = self._protocol.router.closest(self._random(KEY_BYTES), 4 * ASKED, healthy=True)
        answers = await asyncio.gather(*(self._vote(contact) for contact in choose(known)))
        before = self._reachability.reachable
        changes = self._reachability.heard([vote for vote in answers if vote is not None])
        if self._reachability.reachable is False and before is not False:
            log.warning("others can't reach this computer: its UDP and TCP port must be open to them")
        if changes:
            self._protocol.server_mode = self._reachability.server_mode
            log.info("this is a %s from now on", "node" if self._reachability.server_mode else "client")
            await self._changed()

    async def _vote(self, contact: Contact) -> bool | None:
        try:
            return await self._node_client.dial_back(contact, self._protocol.fingerprint)
        except (NoAnswer, Refused):
            return None
