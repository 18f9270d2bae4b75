"""What the classes that extend kademlia's and rpcudp's inherit: each name works with its meaning, or says what to use.

The names are found by introspection, so that one which a new version of a library adds fails here until it is decided.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kademlia.network import Server
from kademlia.node import Node as LibraryNode
from kademlia.protocol import KademliaProtocol
from kademlia.routing import KBucket, RoutingTable
from rpcudp.protocol import RPCProtocol

from overlay.errors import NotSupported, Unsupported
from overlay.identity.contact import Contact
from overlay.kademlia.routing import BUCKET, Table
from overlay.node.node import Node
from overlay.protocol import OverlayProtocol
from overlay.protocol_limits import HOUR
from overlay.wire.rpc import SealedRPC
from tests.overlay.local_network import LOOPBACK, NETWORK, local_network, new_node, run

OWN = bytes(20)
REFUSED: dict[type, set[str]] = {
    Node: {
        "storage", "refresh_loop", "save_state_loop", "get", "set", "set_digest", "refresh_table", "load_state",
        "save_state_regularly",
    },
    SealedRPC: set(),
    OverlayProtocol: {
        "source_node", "storage", "get_refresh_ids", "welcome_if_new", "handle_call_response", "call_ping",
        "call_find_node", "call_find_value", "call_store", "rpc_stun", "rpc_ping", "rpc_store", "rpc_find_node",
        "rpc_find_value",
    },
    Table: {"node", "protocol", "split_bucket", "add_contact"},
    Contact: set(),
}  # fmt: skip
"""The inherited names that raise NotSupported."""
SUPPORTED: dict[type, set[str]] = {
    Node: {
        "protocol_class", "ksize", "alpha", "node", "transport", "protocol", "stop", "listen", "save_state",
        "bootstrappable_neighbors", "bootstrap", "bootstrap_node",
    },
    SealedRPC: {
        "transport", "connection_made", "connection_lost", "datagram_received", "error_received", "pause_writing",
        "resume_writing",
    },
    OverlayProtocol: {
        "router", "transport", "connection_made", "connection_lost", "datagram_received", "error_received",
        "pause_writing", "resume_writing",
    },
    Table: {
        "buckets", "ksize", "flush", "find_neighbors", "get_bucket_for", "is_new_node", "remove_contact",
        "lonely_buckets",
    },
    Contact: {"id", "ip", "port", "long_id", "same_home_as", "distance_to"},
}  # fmt: skip
"""The inherited names that work on this overlay with the meaning that the library gives them."""
UNCHANGED = {"pause_writing", "resume_writing", "same_home_as", "distance_to"}
"""Of those, the methods that are the library's own: what a socket's buffer holds is asked of the transport instead."""

CONSTRUCTED: dict[type, tuple[Any, ...]] = {
    Server: (),
    RPCProtocol: (),
    KademliaProtocol: (Contact(bytes(32), "192.0.2.1", 1), None, 20),
    RoutingTable: (None, 20, Contact(bytes(32), "192.0.2.1", 1)),
    KBucket: (0, 1, 20),
    LibraryNode: (OWN, "192.0.2.1", 1),
}
"""The libraries' classes that may be extended, and arguments with which each can be made."""


def inherited(of: type) -> set[str]:
    """Every public name that `of` has from a class outside this project: methods, class attributes, attributes that
    its constructor sets."""
    names: set[str] = set()
    for base in of.__mro__:
        if base is not object and base.__module__.partition(".")[0] != "overlay":
            names |= {*vars(base), *_attributes(base)}
    return {name for name in names if not name.startswith("_")}


def _attributes(base: Any) -> set[str]:
    """The attributes that an instance of a library's class begins with."""
    arguments = CONSTRUCTED.get(base)
    if arguments is None:
        assert "__init__" not in vars(base) or base.__module__.startswith("asyncio.")
        return set()
    return set(vars(base(*arguments)))


def extending(base: Any) -> set[type]:
    """The overlay's classes that extend this one directly."""
    return {one for one in base.__subclasses__() if one.__module__.partition(".")[0] == "overlay"}


def test_every_class_that_extends_a_library_is_listed() -> None:
    assert set.union(*map(extending, CONSTRUCTED)) == set(REFUSED) == set(SUPPORTED)


@pytest.mark.parametrize("of", REFUSED, ids=lambda of: of.__name__)
def test_every_inherited_name_is_decided(of: type) -> None:
    assert not REFUSED[of] & SUPPORTED[of]
    assert inherited(of) == REFUSED[of] | SUPPORTED[of]


@pytest.mark.parametrize("of", REFUSED, ids=lambda of: of.__name__)
def test_only_what_is_listed_is_left_to_the_library(of: type) -> None:
    for base in of.__mro__:
        for name in inherited(of) - UNCHANGED:
            if callable(vars(base).get(name)):
                owner = next(one for one in of.__mro__ if name in vars(one))
                assert owner.__module__.partition(".")[0] == "overlay", f"{of.__name__}.{name}"


@pytest.mark.parametrize(("of", "name"), [(of, name) for of, names in REFUSED.items() for name in sorted(names)])
def test_what_is_not_supported_says_what_to_use_instead(of: type, name: str) -> None:
    refusal = vars(of)[name]
    assert isinstance(refusal, Unsupported)
    with pytest.raises(NotSupported, match=rf"^{of.__name__}\.{name} isn't supported on this overlay; use \w.+\.$"):
        getattr(object.__new__(of), name)
    with pytest.raises(NotSupported):
        getattr(of, name)("called", "of", the="class")


def test_a_name_that_nobody_has_is_no_remote_call(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 1) as place:
            with pytest.raises(AttributeError):
                getattr(place.client.protocol, "find_nothing")  # noqa: B009 - mypy knows that it has none

    run(story)


def test_a_node_bootstraps_as_the_library_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 3) as place:
            new = new_node(2000, None)
            try:
                await new.listen(0, LOOPBACK)
                first, *others = place.nodes
                assert {node.id for node in await new.bootstrap([(LOOPBACK, first.port)])} == {
                    node.id for node in place.nodes
                }
                assert sorted(new.bootstrappable_neighbors()) == sorted((LOOPBACK, node.port) for node in place.nodes)
                assert (new.ksize, new.alpha, new.protocol_class) == (NETWORK.k, 3, OverlayProtocol)
                assert new.node == Contact(new.sealer.public, LOOPBACK, new.port)
                new.protocol.router.flush()
                again = await new.bootstrap([(LOOPBACK, others[0].port)])
                assert others[0].node in again
                assert await new.bootstrap_node((LOOPBACK, first.port)) == first.node
            finally:
                await new.stop()

    run(story)


def test_bootstrapping_at_a_silent_place_finds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        node, silent = new_node(1, None), new_node(2, None)
        try:
            await node.listen(0, LOOPBACK)
            await silent.listen(0, LOOPBACK)
            monkeypatch.setattr(silent.protocol, "_receive_in_the_clear", lambda *_: None)
            assert await node.bootstrap_node((LOOPBACK, silent.port)) is None
        finally:
            await asyncio.gather(node.stop(), silent.stop())

    run(story)


def test_the_table_answers_to_the_names_of_the_library() -> None:
    clock = [0.0]
    table = Table(OWN, lambda: clock[0], private_addresses=True)
    contact = Contact(bytes(32), "10.0.0.1", 1)
    assert table.ksize == BUCKET
    assert table.is_new_node(contact)
    table.answered(contact)
    assert not table.is_new_node(contact)
    assert table.buckets[table.get_bucket_for(contact)] is table.bucket_of(contact.id)
    assert table.find_neighbors(Contact(b"\1" * 32, "10.0.0.2", 1)) == [contact]
    assert table.lonely_buckets() == []
    clock[0] = HOUR
    assert table.bucket_of(contact.id) in table.lonely_buckets()
    table.remove_contact(contact)
    assert table.is_new_node(contact)
    table.remove_contact(contact)


def test_a_contact_is_a_node_of_the_library() -> None:
    one, other = Contact(bytes(32), "192.0.2.1", 1), Contact(b"\1" * 32, "192.0.2.1", 1)
    as_library: Any = one
    assert as_library.same_home_as(other)
    assert as_library.distance_to(other) == one.long_id ^ other.long_id
    assert tuple(one) == (one.id, "192.0.2.1", 1)
    assert str(one) == "192.0.2.1:1"
