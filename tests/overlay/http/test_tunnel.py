"""A node that gets no answer doesn't use itself as its relay."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from overlay.http.client import HTTPClient
from overlay.http.tunnel import Tunnel, TunnelSession
from overlay.protocol import OverlayProtocol


async def test_a_node_does_not_go_by_way_of_itself() -> None:
    closed = []

    async def close() -> None:
        closed.append(True)

    protocol: Any = SimpleNamespace(own_id=b"i" * 20, tunnel_send=None)
    link: Any = SimpleNamespace(contact=SimpleNamespace(id=b"i" * 20), close=close)
    tunnel = Tunnel(cast(OverlayProtocol, protocol), cast(HTTPClient, SimpleNamespace(via=None)))
    assert not await tunnel._use(cast(TunnelSession, link))
    assert (closed, tunnel.is_open, protocol.tunnel_send) == ([True], False, None)
