"""How a message ends: collected only when its recipient has signed so, expired or failed only when that is true."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import msgspec
import pytest

from mail.send.rules import BACK_OFF, back_off, proves_collected
from overlay.identity.ownership import DELETE, DeleteProof, Owner, encode_delete_proof, statement
from overlay.ids import Kind, deleter_hash
from overlay.protocol_limits import RETENTION
from storage.user.outbox import State
from tests.mail.fakes import FailAt, nothing
from tests.mail.user_agents import UserAgent, UserAgentNetwork, body_at
from tests.overlay.issuing import Issuer

DAY = 86400.0
HOUR = 3600.0


async def test_a_message_is_collected_when_its_recipient_has_deleted_it(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    await bob.collect()
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED
    calls = len(world.overlay.calls)
    await alice.send()
    assert len(world.overlay.calls) == calls


async def test_what_is_not_collected_in_time_is_expired_when_the_nodes_have_let_it_go_and_the_sender_is_told(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.clock.now += RETENTION - 1
    world.forget_mail()
    world.overlay.before = FailAt("held")
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    world.clock.now += 1
    await alice.send()
    assert alice.copy(bob).state is State.STORED  # nobody could be asked what is left
    world.overlay.before = nothing
    await alice.send()
    assert alice.copy(bob).state is State.STORED  # those that have it may be away just now
    since = alice.copy(bob).gone_since
    assert since == world.clock()
    await alice.send_for(2 * HOUR - 1.0)
    assert (alice.copy(bob).state, alice.copy(bob).gone_since) == (State.STORED, since)
    assert alice.troubles == []
    await alice.send_for(HOUR)
    assert alice.copy(bob).state is State.EXPIRED
    assert "bob@example.org expired" in alice.troubles[0]
    assert "no proof came" in alice.troubles[0]


async def test_a_sender_who_was_away_learns_that_it_was_collected_before_it_would_have_expired(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    await bob.collect()
    world.clock.now += 31 * DAY
    world.set_down()
    await alice.send()
    assert alice.copy(bob).state is State.STORED  # nobody could be asked
    world.set_down(down=False)
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED
    assert alice.troubles == []


async def test_what_could_not_be_sent_for_thirty_days_has_failed_and_the_sender_is_told(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    for node in world.nodes:
        node.refuses = "no space"
    world.clock.now += RETENTION
    for _ in range(9):
        await alice.send()
        assert alice.copy(bob).state is State.QUEUED, "the clock alone fails nothing"
    await alice.send()
    assert alice.copy(bob).state is State.FAILED
    assert "couldn't be sent for 30 days. no space" in alice.troubles[0]
    for node in world.nodes:
        node.refuses = ""
    assert alice.outbox.retry("letter@example.org", world.clock())
    await alice.send()
    assert alice.copy(bob).state is State.STORED


NODE = bytes(20)
SALT = b"s" * 16


def signed_delete(owner: Owner, key: bytes, salt: bytes, operation: bytes = DELETE) -> DeleteProof:
    """What a node has of a recipient who deleted."""
    signature = owner.sign(statement(operation, key, NODE, b"token", [salt]))
    return DeleteProof(key, NODE, b"token", salt, owner.certificate, signature)


Forge = Callable[[DeleteProof, Owner, Owner], bytes]

FORGERIES: dict[str, Forge] = {
    "another person's certificate and signature": lambda good, bob, mallory: encode_delete_proof(
        signed_delete(mallory, good.key, good.salt)
    ),
    "her certificate, another person's signature": lambda good, bob, mallory: encode_delete_proof(
        signed_delete(Owner(bob.certificate, mallory.sign), good.key, good.salt)
    ),
    "another message's key": lambda good, bob, mallory: encode_delete_proof(
        signed_delete(bob, body_at("another@example.org"), good.salt)
    ),
    "another message's key, with ours put in": lambda good, bob, mallory: encode_delete_proof(
        msgspec.structs.replace(signed_delete(bob, body_at("another@example.org"), good.salt), key=good.key)
    ),
    "another salt": lambda good, bob, mallory: encode_delete_proof(signed_delete(bob, good.key, b"x" * 16)),
    "another salt, with ours put in": lambda good, bob, mallory: encode_delete_proof(
        msgspec.structs.replace(signed_delete(bob, good.key, b"x" * 16), salt=good.salt)
    ),
    "another operation": lambda good, bob, mallory: encode_delete_proof(
        signed_delete(bob, good.key, good.salt, b"read-inbox")
    ),
    "another node": lambda good, bob, mallory: encode_delete_proof(msgspec.structs.replace(good, node_id=b"n" * 20)),
    "a certificate that is none": lambda good, bob, mallory: encode_delete_proof(
        msgspec.structs.replace(good, certificate=b"none")
    ),
    "random bytes": lambda good, bob, mallory: b"\x93\x01\x02\x03",
    "nothing": lambda good, bob, mallory: b"",
    "too much": lambda good, bob, mallory: encode_delete_proof(good) + bytes(5000),
}


@pytest.fixture
def owners() -> tuple[Owner, Owner]:
    """Bob and Mallory."""
    issuer = Issuer()
    bob, mallory = issuer.person("bob@example.org", 1), issuer.person("mallory@example.org", 2)
    return Owner(bob.certificate, bob.sign), Owner(mallory.certificate, mallory.sign)


def test_a_recipients_own_signed_delete_proves_that_she_has_the_message(owners: tuple[Owner, Owner]) -> None:
    bob, _ = owners
    key = body_at()
    proof = encode_delete_proof(signed_delete(bob, key, SALT))
    assert proves_collected(proof, key, deleter_hash(key, SALT, bob.certificate), "bob@example.org")
    assert not proves_collected(proof, key, deleter_hash(key, SALT, bob.certificate), "carol@example.org")


@pytest.mark.parametrize("forged", FORGERIES)
def test_a_forged_proof_of_collection_proves_nothing(owners: tuple[Owner, Owner], forged: str) -> None:
    bob, mallory = owners
    key = body_at()
    deleter = deleter_hash(key, SALT, bob.certificate)
    data = FORGERIES[forged](signed_delete(bob, key, SALT), bob, mallory)
    assert not proves_collected(data, key, deleter, "bob@example.org")


def test_mallorys_own_delete_of_her_own_copy_is_no_proof_for_bob(owners: tuple[Owner, Owner]) -> None:
    _, mallory = owners
    key = body_at()
    proof = encode_delete_proof(signed_delete(mallory, key, SALT))
    assert not proves_collected(proof, key, deleter_hash(key, SALT, mallory.certificate), "bob@example.org")


async def test_nodes_that_hand_out_forged_proofs_do_not_make_a_message_collected(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    mallory = await world.user_agent("mallory")
    alice.write(bob)
    await alice.send()
    copy = alice.copy(bob)
    assert copy.salt is not None
    assert copy.certificate is not None
    deleter = deleter_hash(body_at(), copy.salt, copy.certificate)
    good = signed_delete(bob.owner, body_at(), copy.salt)
    for node, forge in zip(world.nodes, FORGERIES.values(), strict=False):
        node.tombstones[Kind.BODY, body_at(), deleter] = forge(good, bob.owner, mallory.owner)
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    world.nodes[-1].tombstones[Kind.BODY, body_at(), deleter] = encode_delete_proof(good)
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def test_one_recipients_proof_says_nothing_of_another_one(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    alice.write(bob, carol)
    await alice.send()
    await bob.collect()
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED
    assert alice.copy(carol).state is State.STORED
    assert [len(deleters) for deleters in world.overlay.bodies(Kind.BODY, body_at())] == [1, 1, 1]
    await carol.collect()
    assert world.overlay.bodies(Kind.BODY, body_at()) == []
    await alice.send()
    assert alice.entry().settled


def test_pauses_between_attempts_grow_and_stop_growing() -> None:
    pauses = [back_off(attempts) for attempts in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pauses[1] == BACK_OFF[0]
    assert pauses[-1] == BACK_OFF[-1]


async def test_a_restored_backup_of_the_outbox_sends_the_same_message_again(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    original = alice.write(bob, carol).file.read_bytes()
    backup = alice.profile.root.with_name("backup")
    shutil.copytree(alice.profile.root, backup)
    await alice.send()
    assert await bob.collect() == 1
    alice.close()
    shutil.rmtree(alice.profile.root)
    backup.rename(alice.profile.root)
    alice.restart()
    assert alice.copy(bob).state is State.QUEUED, "the backup knows of nothing"
    await alice.send()
    assert (await bob.collect(), await carol.collect()) == (0, 1)
    assert bob.folder("Inbox") == carol.folder("Inbox") == [original]
    await alice.send()
    assert [r.state for r in alice.entry().recipients] == [State.COLLECTED, State.COLLECTED]
