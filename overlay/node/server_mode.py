"""What a node runs in server mode only: the HTTP server with its relay, repair, and the reachability probe."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from overlay.http.relay import Relay
from overlay.http.server import HTTPServer
from overlay.node.membership import every
from overlay.node.reachability_probe import ReachabilityProbe
from overlay.protocol import OverlayProtocol
from overlay.replication.repair import ROUND_EVERY, WORK_EVERY, Repair


@dataclass(frozen=True, slots=True)
class HTTPEndpoint:
    """A node's TCP side: the HTTP server, and the relay that it passes some requests to."""

    server: HTTPServer
    relay: Relay

    async def stop(self) -> None:
        """End the relay's sessions, then stop the server; requests under way may finish."""
        await self.relay.close()
        await self.server.stop()


@dataclass(frozen=True, slots=True)
class ServerMode:
    """The parts of a listening node that keeps objects for others. They exist from `listen` on.

    `http` and `probe` are None only where there is no TCP (tests/simulation). Whether the node is in server mode at
    the moment is `protocol.server_mode`: a node that others can't reach keeps these parts, and acts as a client.
    """

    protocol: OverlayProtocol
    repair: Repair
    http: HTTPEndpoint | None
    probe: ReachabilityProbe | None

    def tasks(self, random: Callable[[int], bytes]) -> list[Coroutine[None, None, None]]:
        """The regular work, to be run until it is cancelled."""
        repair = [every(WORK_EVERY, self.repair.work, random), every(ROUND_EVERY, self._round, random)]
        return [*repair, self.probe.watch()] if self.probe is not None else repair

    async def _round(self) -> None:
        if self.protocol.server_mode:
            await self.repair.run_round()
