"""The test vectors of docs/protocol.md, read out of it: what is written there is what this program does.

Some of them (a sealed datagram, a notification, shares, a stamp) are also read with nothing but the primitives that
the document names, so that it is enough to build another implementation from.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import struct
from pathlib import Path

import msgspec
import pytest
import zfec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from mail.membership.invite import read_invite
from mail.membership.messages import Request, open_request
from mail.sealed.body import Opener
from mail.sealed.erasure_shares import CodingPlan, make_shares
from mail.sealed.keys import pair_from_secret
from mail.sealed.notification import open_notification
from mail.sealed.padding import padded_length
from mail.send.rules import proves_collected, segment_key
from overlay import ids
from overlay.identity.address import normalise_address
from overlay.identity.card import make_card, open_card
from overlay.identity.certificates import TrustStore
from overlay.identity.contact import WireContact, key_text, node_id, puzzle_bits
from overlay.identity.enrolment_answer import authority_address
from overlay.identity.ownership import (
    ACKNOWLEDGE_INBOX,
    DELETE,
    READ_INBOX,
    DeleteProof,
    Owner,
    decode_delete_proof,
    encode_delete_proof,
    statement,
)
from overlay.limits import stamps
from overlay.protocol_limits import RETENTION
from overlay.wire import fragments, messages
from overlay.wire.sealed_datagram import Sealer

DOCUMENT = Path(__file__).parent.parent / "docs" / "protocol.md"

Lines = list[str]


class NodeVector(msgspec.Struct):
    private: str
    public: str
    text: str
    id: str
    puzzle_bits: int


class Certificates(msgspec.Struct):
    at: float
    root: Lines
    fingerprint: str
    alice: Lines
    alice_private: str = msgspec.field(name="alice private")


class RenewalVector(msgspec.Struct):
    code: str
    request: Lines


class CardVector(msgspec.Struct):
    secret: str
    sequence: int
    card: Lines
    key_id: str = msgspec.field(name="key id")


class Body(msgspec.Struct):
    message: str
    digest: str
    sealed: Lines
    session_key: str = msgspec.field(name="session key")


class Share(msgspec.Struct):
    m: int
    n: int
    seed: str
    segment: str
    shares: Lines
    public_key: str = msgspec.field(name="public key")


class Vectors(msgspec.Struct):
    addresses: list[tuple[str, str]]
    keys: dict[str, tuple[str, str]]
    node: NodeVector
    datagram: dict[str, str | Lines]
    certificates: Certificates
    renewal: RenewalVector
    deleter: dict[str, str]
    statements: dict[str, str]
    messages: dict[str, str]
    card: CardVector
    body: Body
    padding: list[tuple[int, int]]
    share: Share
    notification: Lines
    stamp: dict[str, str | int]
    invite: str
    delete_proof: Lines = msgspec.field(name="delete proof")


def read_vectors() -> Vectors:
    blocks = re.findall(r"^```json\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return msgspec.convert(json.loads(blocks[-1]), Vectors)


V = read_vectors()
ALICE = V.keys["inbox"][0]
MESSAGE_ID = V.keys["body"][0]


def h(text: str | Lines) -> bytes:
    assert isinstance(text, str)
    return bytes.fromhex(text)


def b(lines: str | Lines) -> bytes:
    return base64.b64decode("".join(lines), validate=True)


ROOT, CERTIFICATE = b(V.certificates.root), b(V.certificates.alice)
SIGN = Ed25519PrivateKey.from_private_bytes(h(V.certificates.alice_private)).sign
TRUST = TrustStore([ROOT])
SALT = h(V.deleter["salt"])
TOKEN, NODE = h(V.statements["token"]), h(V.statements["node"])
PAIR = pair_from_secret(h(V.card.secret), V.certificates.at)


@pytest.mark.parametrize(("typed", "normal"), V.addresses)
def test_addresses(typed: str, normal: str) -> None:
    assert normalise_address(typed) == normal


def test_keys() -> None:
    name, random = V.keys["probe"][0].split()
    code, public_key = map(h, V.keys["enrolment"][0].split())
    fingerprint = V.keys["root"][0]
    made = {
        "inbox": ids.inbox_key(ALICE).hex(),
        "certificate": ids.certificate_key(ALICE).hex(),
        "body": ids.body_key(MESSAGE_ID).hex(),
        "segment 3": ids.body_key(MESSAGE_ID + "#3").hex(),
        "segment 3 of a group": segment_key(MESSAGE_ID, 3, True, bytes(range(16))).hex(),
        "root": ids.root_key(fingerprint).hex(),
        "revocations": ids.revocations_key(fingerprint).hex(),
        "probe": ids.probe_key(name, h(random)).hex(),
        "enrolment": ids.enrolment_key(code, public_key).hex(),
        "authority": authority_address(fingerprint),
    }
    assert {name: key for name, (_, key) in V.keys.items()} == made


def test_a_key_by_the_document_alone() -> None:
    assert hashlib.sha256(b"inbox\0" + ALICE.encode()).hexdigest()[:40] == V.keys["inbox"][1]
    assert hashlib.sha256(f"certificate\0{ALICE}-certificate".encode()).hexdigest()[:40] == V.keys["certificate"][1]


def test_a_node() -> None:
    public = X25519PrivateKey.from_private_bytes(h(V.node.private)).public_key().public_bytes_raw()
    identifier = node_id(public)
    assert (public.hex(), identifier.hex()) == (V.node.public, V.node.id)
    assert (key_text(public), puzzle_bits(identifier)) == (V.node.text, V.node.puzzle_bits)


def test_a_sealed_datagram() -> None:
    d = V.datagram
    receiver = h(d["receiver public"])
    before = (int.from_bytes(h(d["nonce"]), "big") - 1).to_bytes(12, "big")  # the nonce counts up from a random start
    sender = Sealer(X25519PrivateKey.from_private_bytes(h(d["sender private"])), str(d["network"]), lambda _: before)
    request = messages.Find(ids.inbox_key(ALICE), 2, messages.find_padding(2))
    assert messages.encode(request) == h(d["request"])
    assert fragments.cut(fragments.SERVER_MODE, h(d["message id"]), h(d["request"])) == [h(d["payload"])]
    assert sender.seal(receiver, h(d["payload"])) == b(d["datagram"])
    opener = Sealer(X25519PrivateKey.from_private_bytes(h(d["receiver private"])), str(d["network"]))
    assert opener.open(b(d["datagram"])) == (sender.public, h(d["payload"]))


def test_a_sealed_datagram_by_the_document_alone() -> None:
    d = V.datagram
    sealed = b(d["datagram"])
    version, sender, nonce, ciphertext = sealed[0], sealed[1:33], sealed[33:45], sealed[45:]
    secret = X25519PrivateKey.from_private_bytes(h(d["receiver private"])).exchange(
        X25519PublicKey.from_public_bytes(sender)
    )
    info = b"p2pmail datagram 1\0" + str(d["network"]).encode() + b"\0" + sender + h(d["receiver public"])
    key = HKDF(SHA256(), 32, None, info).derive(secret)
    assert (version, secret, key, nonce) == (1, h(d["shared secret"]), h(d["key"]), h(d["nonce"]))
    assert AESGCM(key).decrypt(nonce, ciphertext, None) == h(d["payload"])


def test_asking_for_a_key() -> None:
    sealer = Sealer(X25519PrivateKey.from_private_bytes(h(V.node.private)), str(V.datagram["network"]))
    asked = sealer.ask_key(h(V.datagram["ask key"])[9:])
    assert asked == h(V.datagram["ask key"]).ljust(128, b"\0")
    assert sealer.tell_key(asked) == h(V.datagram["tell key"])


def test_messages() -> None:
    key = h(V.deleter["key"])
    deleter = h(V.deleter["hash"])
    inbox = ids.inbox_key(ALICE)
    contact = WireContact(h(V.datagram["receiver public"]), bytes([192, 0, 2, 7]), 4600)
    digest, certificate, signature = hashlib.sha256(b"x").digest(), bytes(3), bytes(range(64))
    sent: dict[str, messages.Request | messages.Answer] = {
        "Ping": messages.Ping(),
        "Store": messages.Store(TOKEN, ids.Kind.BODY, key, b"hello", [deleter], RETENTION),
        "Fetch": messages.Fetch(TOKEN, ids.Kind.BODY, key),
        "Delete": messages.Delete(TOKEN, ids.Kind.BODY, key, SALT, certificate, signature),
        "AppendInbox": messages.AppendInbox(TOKEN, inbox, b"hello", 60.0),
        "ReadInbox": messages.ReadInbox(TOKEN, inbox, certificate, signature),
        "AcknowledgeInbox": messages.AcknowledgeInbox(TOKEN, inbox, [digest], certificate, signature),
        "AskTombstones": messages.AskTombstones(TOKEN, ids.Kind.BODY, key, [deleter, digest]),
        "HandTombstone": messages.HandTombstone(TOKEN, ids.Kind.BODY, key, b"proof", 60.0),
        "Have": messages.Have(TOKEN, ids.Kind.BODY, key, known=digest),
        "HaveNotifications": messages.HaveNotifications(TOKEN, inbox, [digest]),
        "Recheck": messages.Recheck(TOKEN, 0, inbox),
        "DialBack": messages.DialBack(TOKEN, digest),
        "Pong": messages.Pong(bytes([192, 0, 2, 7]), 4600),
        "Found": messages.Found([contact], TOKEN, 4600, digest),
        "Done": messages.Done(1),
        "Object": messages.Object(b"hello", 5),
        "Notifications": messages.Notifications([b"hello"], False),
        "Tombstones": messages.Tombstones([b"proof", b""]),
        "Refusal": messages.Refusal(messages.Code.NO_SPACE),
        "Held": messages.Held([digest], [messages.WireTombstone(b"proof", 60.0)], False),
        "Known": messages.Known([True, False]),
        "Admitted": messages.Admitted(certificate, signature),
        "Dialled": messages.Dialled(True, False),
    }
    assert {name: messages.encode(message).hex() for name, message in sent.items()} == V.messages


def test_certificates() -> None:
    assert TRUST.fingerprint == V.certificates.fingerprint
    assert TRUST.verify(CERTIFICATE, V.certificates.at).address == ALICE


def test_a_deleter_hash() -> None:
    key = h(V.deleter["key"])
    assert ids.deleter_hash(key, SALT, CERTIFICATE).hex() == V.deleter["hash"]
    assert hashlib.sha256(key + SALT + CERTIFICATE).hexdigest() == V.deleter["hash"]


def test_statements_and_the_proof_of_a_delete() -> None:
    key, inbox = h(V.deleter["key"]), ids.inbox_key(ALICE)
    signed = statement(DELETE, key, NODE, TOKEN, [SALT])
    assert signed.hex() == V.statements["delete"]
    assert SIGN(signed).hex() == V.statements["delete signature"]
    assert statement(READ_INBOX, inbox, NODE, TOKEN).hex() == V.statements["read-inbox"]
    hashes = [hashlib.sha256(b"x").digest()]
    assert statement(ACKNOWLEDGE_INBOX, inbox, NODE, TOKEN, hashes).hex() == V.statements["acknowledge-inbox"]
    proof = DeleteProof(key, NODE, TOKEN, SALT, CERTIFICATE, SIGN(signed))
    assert encode_delete_proof(proof) == b(V.delete_proof)
    assert decode_delete_proof(b(V.delete_proof)) == proof
    assert proves_collected(b(V.delete_proof), key, h(V.deleter["hash"]), ALICE)


def test_a_request_to_renew_is_opened() -> None:
    pair = pair_from_secret(h(V.card.secret), 0.0)
    request = open_request(b(V.renewal.request), {pair.key_id: pair}, V.certificates.fingerprint)
    key = Ed25519PrivateKey.from_private_bytes(h(V.certificates.alice_private)).public_key().public_bytes_raw()
    assert request == Request("alice@village.example", h(V.renewal.code), key, pair.public, renewal=True)


def test_a_card() -> None:
    card = open_card(b(V.card.card), TRUST, V.certificates.at)
    assert (card.certificate.der, card.sequence, card.key_id.hex()) == (CERTIFICATE, V.card.sequence, V.card.key_id)
    assert card.encryption_key == PAIR.public
    assert make_card(Owner(CERTIFICATE, SIGN), PAIR.public, V.card.sequence) == b(V.card.card)


def test_a_body_is_opened() -> None:
    sealed = b(V.body.sealed)
    assert hashlib.sha256(sealed).hexdigest() == V.body.digest
    target = io.BytesIO()
    opener = Opener(h(V.body.session_key), len(V.body.message.encode()), target)
    opener.feed(sealed)
    opener.finish()
    assert target.getvalue() == V.body.message.encode()


@pytest.mark.parametrize(("length", "padded"), V.padding)
def test_padding(length: int, padded: int) -> None:
    assert padded_length(length) == padded


def test_shares() -> None:
    key, plan = h(V.deleter["key"]), CodingPlan(V.share.m, V.share.n, h(V.share.seed))
    assert [share.hex() for share in make_shares(h(V.share.segment), key, plan)] == V.share.shares
    assert plan.coding.public_key.hex() == V.share.public_key


def test_shares_by_the_document_alone() -> None:
    key, segment, m = h(V.deleter["key"]), h(V.share.segment), V.share.m
    blocks = []
    for number, share in enumerate(map(h, V.share.shares)):
        assert share[:8] == bytes([1, number, m, V.share.n]) + len(segment).to_bytes(4, "big")
        signed = b"p2pmail share 1\0" + key + share[:8] + hashlib.sha256(share[72:]).digest()
        Ed25519PublicKey.from_public_bytes(h(V.share.public_key)).verify(share[8:72], signed)
        blocks.append(share[72:])
    assert b"".join(blocks[:m]) == segment + bytes(-len(segment) % m)
    assert b"".join(zfec.Decoder(m, V.share.n).decode([blocks[2], blocks[1]], [2, 1])) == b"".join(blocks[:m])


def test_a_stamp() -> None:
    key, stamp, bits = ids.inbox_key(ALICE), bytes.fromhex(str(V.stamp["stamp"])), V.stamp["bits"]
    digest = hashlib.sha256(b(V.notification)).digest()
    assert V.stamp["inbox"] == key.hex()
    assert stamps.bits_of(stamp, key, digest, V.certificates.at) == bits
    tried = hashlib.pbkdf2_hmac("sha256", stamp[4:], b"p2pmail stamp 2\0" + key + digest + stamp[:4], 128, 8)
    assert 64 - int.from_bytes(tried, "big").bit_length() + 8 == bits


def test_a_notification_is_opened() -> None:
    told, sender = open_notification(b(V.notification), {PAIR.key_id: PAIR}, ALICE, TRUST, V.certificates.at)
    assert (told.message_id, told.recipient, told.sender, told.subject) == (MESSAGE_ID, ALICE, ALICE, "hello")
    assert (told.session_key, told.deleter_salt) == (h(V.body.session_key), SALT)
    assert [segment.digest.hex() for segment in told.segments] == [V.body.digest]
    assert sender.der == CERTIFICATE


def test_a_notification_is_opened_by_the_document_alone() -> None:
    data = b(V.notification)
    info = b"p2pmail notification 1\0"
    key_id, enc, ciphertext = data[:8], data[8 : 8 + 1120], data[8 + 1120 :]
    secret = h(V.card.secret)
    mlkem, x25519 = MLKEM768PrivateKey.from_seed_bytes(secret[:64]), X25519PrivateKey.from_private_bytes(secret[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    assert key_id == hashlib.sha256(public).digest()[:8]

    # X-Wing, then RFC 9180's key schedule for base mode.
    classic = x25519.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
    shared = hashlib.sha3_256(
        mlkem.decapsulate(enc[:1088]) + classic + enc[1088:] + public[1184:] + bytes.fromhex("5c2e2f2f5e5c")
    ).digest()
    suite = b"HPKE" + struct.pack(">HHH", 0x647A, 0x0001, 0x0002)

    def extract(salt: bytes, label: bytes, value: bytes) -> bytes:
        return HKDF.extract(SHA256(), salt or bytes(32), b"HPKE-v1" + suite + label + value)

    def expand(prk: bytes, label: bytes, value: bytes, length: int) -> bytes:
        labelled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + value
        return HKDFExpand(SHA256(), length, labelled).derive(prk)

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    prk = extract(shared, b"secret", b"")
    key, nonce = expand(prk, b"key", context, 32), expand(prk, b"base_nonce", context, 12)
    content = AESGCM(key).decrypt(nonce, ciphertext, None)

    end = 4 + int.from_bytes(content[:4], "big")
    assert not any(content[end:])
    payload, signature = msgspec.msgpack.decode(content[4:end], type=tuple[bytes, bytes])
    TRUST.verify(CERTIFICATE, V.certificates.at).public_key.verify(signature, info + payload)
    fields = msgspec.msgpack.decode(payload, type=list[object])
    assert (len(fields), fields[0], fields[1], fields[5], fields[14]) == (17, 1, ALICE, MESSAGE_ID, "hello")


def test_an_invite() -> None:
    invite = read_invite(V.invite)
    assert (invite.network.name, invite.address, invite.fingerprint) == ("village", ALICE, V.certificates.fingerprint)
    assert invite.network.join == ("mail.example.org:4600/" + key_text(h(V.datagram["receiver public"])),)
