"""Hostile nodes: they join as others do, and then do everything that a node can do wrong, at random.

They answer lookups with each other, with nodes that don't exist, or with honest ids at wrong addresses. They confirm
stores, appends and deletes and do nothing. They return wrong bytes, old cards, empty inboxes and no tombstones, and
report that they hold nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from overlay.identity.contact import Contact
from overlay.ids import Kind, distance
from overlay.primitives.requests import FetchRequest
from overlay.primitives.service import StoredContent
from overlay.protocol import OverlayProtocol
from overlay.wire import messages
from overlay.wire.rpc import RemotePeer
from storage.store_request import StoreRequest
from tests.simulation.nodes import SimNode


class HostileNode(SimNode):
    """A hostile node. All of them share the list `gang`."""

    gang: list[Contact]

    def __init__(self, *arguments: Any, gang: list[Contact], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gang = gang
        self.chance = random.Random(f"hostile {self.place_ip}")
        self.old: dict[bytes, bytes] = {}
        """The first card that came under a key: the one that is handed out later."""
        self.lies = 0
        """Lookups answered with a lie."""

    def _create_protocol(self) -> OverlayProtocol:
        protocol = super()._create_protocol()
        honest_find = protocol._handlers[messages.Find]

        def find(sender: RemotePeer, request: messages.Find) -> messages.Found:
            honest = honest_find(sender, request)
            assert isinstance(honest, messages.Found)
            count = min(request.k, messages.affordable(sender.received))
            contacts = self._lie(protocol, request.key, count)
            return messages.Found([c.wire for c in contacts], honest.token, honest.bulk_port, honest.fingerprint)

        protocol._handlers[messages.Find] = find
        assert protocol.service is not None
        for name in ("store", "append_inbox", "delete", "fetch", "contents", "read_inbox", "have", "proofs"):
            setattr(protocol.service, name, getattr(self, f"_{name}"))
        self.gang.append(Contact(self.sealer.public, self.place_ip, 4000))
        return protocol

    def _lie(self, protocol: OverlayProtocol, key: bytes, count: int) -> Sequence[Contact]:
        self.lies += 1
        friends = sorted(self.gang, key=lambda contact: distance(contact.id, key))[:count]
        match self.chance.randrange(4):
            case 0:
                return [Contact(self.chance.randbytes(32), f"10.9.9.{n}", 4000) for n in range(1, count)]
            case 1:
                honest = protocol.router.closest(key, count)
                return [Contact(contact.key, f"10.8.8.{n}", 4000) for n, contact in enumerate(honest, 1)]
            case 2:
                return []
            case _:
                return friends

    async def _store(self, request: StoreRequest, *_: object) -> None:
        if isinstance(request.content, bytes):
            self.old.setdefault(request.key, request.content)

    async def _append_inbox(self, *_: object, **__: object) -> bool:
        return True

    async def _delete(self, *_: object) -> int:
        return 1

    async def _fetch(self, request: FetchRequest) -> StoredContent:
        content = await self._contents(request)
        return StoredContent(bytes(32), len(content), content)

    async def _contents(self, request: FetchRequest) -> bytes:
        if request.kind == Kind.CERTIFICATE and request.key in self.old:
            return self.old[request.key]
        return self.chance.randbytes(100)

    async def _read_inbox(self, *_: object) -> tuple[list[bytes], bool]:
        return [], False

    async def _have(self, *_: object) -> messages.Held:
        return messages.Held([], [], more=False)

    async def _proofs(self, kind: int, key: bytes, deleters: Sequence[bytes]) -> list[bytes]:
        return [b""] * len(deleters)
