"""Certified admission: only nodes with a member's proof come into routing tables and count in lookups."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from mail.profile_node import NotAdmitted, open_system_node, renew_admission, write_admission
from overlay.identity.admission import GOOD_FOR, NODES_OF_CERTIFICATE, Admission, Proof, sign
from overlay.identity.certificates import TrustStore
from overlay.identity.network import NetworkFileError, read_network, write_network
from overlay.identity.ownership import Owner
from overlay.node.config import NodeConfig
from overlay.node.node import Node
from storage.node.store import open_node_store
from storage.user.profile import Profile
from tests.overlay.issuing import NOW, Issuer
from tests.overlay.local_network import ISSUER, LOOPBACK, NETWORK, key_of, run

CERTIFIED = replace(NETWORK, admission="certified")
PERSON = ISSUER.person("alice@village.example", 100)
ALICE = Owner(PERSON.certificate, PERSON.sign)
STRANGER = Issuer(2).person("alice@village.example", 101)
KEY = bytes(range(32))


def admission(now: float = NOW, trust: TrustStore | None = None) -> Admission:
    return Admission("test", trust or TrustStore([ISSUER.der]), lambda: now)


def test_a_members_node_is_admitted_for_an_hour() -> None:
    now = NOW
    known = Admission("test", TrustStore([ISSUER.der]), lambda: now)
    assert not known.admitted(KEY)
    assert known.show(KEY, sign(ALICE, "test", KEY))
    assert known.admitted(KEY)
    now += GOOD_FOR
    assert not known.admitted(KEY)


@pytest.mark.parametrize(
    "proof",
    [
        Proof(PERSON.certificate, bytes(64)),
        Proof(b"", bytes(64)),
        sign(Owner(STRANGER.certificate, STRANGER.sign), "test", KEY),
        sign(ALICE, "another network", KEY),
        sign(ALICE, "test", bytes(32)),
        Proof(ISSUER.person("bob@village.example", 102).certificate, sign(ALICE, "test", KEY).signature),
    ],
    ids=["unsigned", "nothing", "another authority", "another network", "another node", "another's certificate"],
)
def test_attack_a_proof_that_is_forged_foreign_or_replayed_admits_nobody(proof: Proof) -> None:
    known = admission()
    assert not known.show(KEY, proof)
    assert not known.admitted(KEY)


def test_one_certificate_buys_so_many_nodes_and_no_more() -> None:
    known = admission()
    keys = [bytes([number]) * 32 for number in range(NODES_OF_CERTIFICATE + 3)]
    assert [known.show(key, sign(ALICE, "test", key)) for key in keys] == [True] * NODES_OF_CERTIFICATE + [False] * 3
    assert known.show(keys[0], sign(ALICE, "test", keys[0]))  # the same again


def test_an_expired_certificate_admits_no_node() -> None:
    late = ISSUER.person("alice@village.example", 100, end=NOW - 1)
    assert not admission().show(KEY, sign(Owner(late.certificate, late.sign), "test", KEY))


def test_nodes_that_show_nothing_get_into_no_table_and_dont_count(tmp_path: Path) -> None:
    async def story() -> None:
        nodes = []
        for number in range(1, 7):
            key = key_of(number)
            certified = number % 2 == 1
            member = _member(number)
            proof = sign(member, "test", key.public_key().public_bytes_raw()) if certified else None
            folder = tmp_path / str(number)
            folder.mkdir()
            store = open_node_store(folder, quota=1 << 26, now=lambda: NOW)
            node = Node(NodeConfig(CERTIFIED, key, store=store, now=lambda: NOW, proof=proof))
            nodes.append(node)
            await node.listen(0, LOOPBACK)
            await node.join([nodes[0].place] if number > 1 else [])
        certified_ids = {node.id for node in nodes[::2]}
        client = Node(NodeConfig(CERTIFIED, key_of(1000), now=lambda: NOW))
        await client.listen(0, LOOPBACK)
        await client.join([node.place for node in nodes])
        found = await client.closest(bytes(20), 6)
        assert {at.contact.id for at in found} == certified_ids
        for node in [client, *nodes]:
            assert {entry.contact.id for entry in node.protocol.router} <= certified_ids
        await asyncio.gather(*(node.stop() for node in [client, *nodes]))

    run(story)


def _member(number: int) -> Owner:
    person = ISSUER.person(f"member{number}@village.example", 200 + number, serial=number)
    return Owner(person.certificate, person.sign)


def test_the_network_file_says_who_is_admitted() -> None:
    assert read_network(write_network(CERTIFIED)) == CERTIFIED
    assert read_network(write_network(NETWORK)).admission == "open"
    with pytest.raises(NetworkFileError, match="admission"):
        read_network(write_network(NETWORK).replace(b'"open"', b'"anybody"'))


async def test_a_node_without_a_member_is_told_what_to_do_and_one_with_runs_without_its_keys(tmp_path: Path) -> None:
    profile = Profile(tmp_path, environ={})
    profile.create()
    with pytest.raises(NotAdmitted, match="members"):
        await open_system_node(profile, CERTIFIED, listen="127.0.0.1:0", now=lambda: NOW)
    write_admission(profile, CERTIFIED, ALICE)
    node = await open_system_node(profile, CERTIFIED, listen="127.0.0.1:0", now=lambda: NOW)
    try:
        assert node.protocol.proof is not None
        known = Admission(CERTIFIED.name, TrustStore([ISSUER.der]), lambda: NOW)
        assert known.show(node.sealer.public, node.protocol.proof)
    finally:
        await node.stop()


async def test_a_running_node_shows_its_owners_certificate_when_that_is_renewed(tmp_path: Path) -> None:
    profile = Profile(tmp_path, environ={})
    write_admission(profile, CERTIFIED, ALICE)
    node = await open_system_node(profile, CERTIFIED, listen="127.0.0.1:0", now=lambda: NOW)
    try:
        person = ISSUER.person("alice@village.example", 100, serial=8, end=NOW + 700 * 86_400)
        renew_admission(profile, node, Owner(person.certificate, person.sign))
        proof = node.protocol.proof
        assert proof is not None and proof.certificate == person.certificate
        later = Admission(CERTIFIED.name, TrustStore([ISSUER.der]), lambda: NOW + 500 * 86_400)
        assert later.show(node.sealer.public, proof)
    finally:
        await node.stop()
    again = await open_system_node(profile, CERTIFIED, listen="127.0.0.1:0", now=lambda: NOW)
    await again.stop()
    assert again.protocol.proof == proof
