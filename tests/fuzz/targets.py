"""Every decoder of bytes that others made, as something to be fuzzed: only its own errors may come out of it.

`TARGETS` maps a name to a function of bytes that returns when the decoder keeps its promise. The corpus in
tests/fuzz/corpus/NAME/ is replayed by the suite (test_corpus.py); tests/fuzz/run.py looks for more with atheris.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mail.membership.invite import InviteError, read_invite
from mail.mime.html import as_text
from mail.mime.message import read_message, summarise
from mail.sealed.body import Opener, SealingError
from mail.sealed.erasure_shares import CodingPlan, GatheredShares
from mail.sealed.keys import KeyMaterialError, generate_pair
from mail.sealed.notification import NotificationError, open_notification
from overlay.errors import Malformed
from overlay.http import headers, relay_frames
from overlay.identity.address import AddressError, normalise_address
from overlay.identity.card import open_card
from overlay.identity.certificates import CertificateError, TrustStore, parse_certificate
from overlay.identity.contact import Contact, WireContact, parse_join
from overlay.identity.enrolment_answer import open_answer
from overlay.identity.network import NetworkFileError, read_network
from overlay.identity.ownership import decode_delete_proof
from overlay.wire import fragments, messages
from overlay.wire.sealed_datagram import Sealer
from tests.overlay.issuing import NOW, Issuer
from tests.overlay.local_network import key_of

ISSUER = Issuer(1)
SEALER = Sealer(key_of(7), "fuzz")
PAIR = generate_pair(NOW)
KEY = bytes(20)


def _trust() -> TrustStore:
    return TrustStore([ISSUER.der])


def request(data: bytes) -> None:
    with suppress(Malformed):
        found = messages.decode_request(data)
        assert messages.decode_request(messages.encode(found)) == found


def answer(data: bytes) -> None:
    with suppress(Malformed):
        found = messages.decode_answer(data)
        assert messages.decode_answer(messages.encode(found)) == found
        for wire in found.contacts if isinstance(found, messages.Found) else ():
            contact(wire)


def contact(wire: WireContact) -> None:
    with suppress(Malformed):
        Contact.received(wire, private_addresses=False, puzzle=0)


def datagram(data: bytes) -> None:
    for read in (SEALER.open, SEALER.tell_key, SEALER.told_key):
        with suppress(Malformed):
            read(data)


def fragment(data: bytes) -> None:
    """Pieces of `data`, as payloads of one peer."""
    whole = fragments.Reassembly()
    for start in range(0, len(data), 40):
        with suppress(Malformed):
            whole.add(b"peer", fragments.read(data[start : start + 40]), 0.0)


def proof(data: bytes) -> None:
    with suppress(Malformed):
        decode_delete_proof(data)


def certificate(data: bytes) -> None:
    with suppress(CertificateError):
        parse_certificate(data)
    with suppress(CertificateError):
        _trust().verify(data, NOW)


def revocations(data: bytes) -> None:
    with suppress(CertificateError):
        _trust().accept_revocations(data, NOW)


def card(data: bytes) -> None:
    with suppress(CertificateError, AddressError):
        open_card(data, _trust(), NOW)


def enrolment(data: bytes) -> None:
    with suppress(CertificateError):
        open_answer(data, KEY, _trust(), NOW)


def network(data: bytes) -> None:
    with suppress(NetworkFileError):
        read_network(data)


def invite(data: bytes) -> None:
    with suppress(InviteError):
        read_invite(data.decode("utf-8", "replace"))


def address(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with suppress(AddressError):
        assert normalise_address(normalise_address(text)) == normalise_address(text)
    with suppress(ValueError):
        parse_join(text)


def notification(data: bytes) -> None:
    with suppress(NotificationError, KeyMaterialError):
        open_notification(data, {PAIR.key_id: PAIR}, "alice@village.example", _trust(), NOW)


def body(data: bytes) -> None:
    opener = Opener(bytes(32), 1000, io.BytesIO())
    with suppress(SealingError):
        opener.feed(data)
        opener.finish()


def share(data: bytes) -> None:
    gathered = GatheredShares(CodingPlan(2, 3, bytes(32)).coding, KEY, 100)
    assert not gathered.take(data)


def bulk(data: bytes) -> None:
    for read in (headers.decode_notifications, headers.decode_hashes, headers.decode_closest):
        with suppress(Malformed):
            read(data)
    with suppress(Malformed):
        headers.parse_path(data.decode("latin-1"))


def relay(data: bytes) -> None:
    for read in (relay_frames.decode_welcome, relay_frames.decode_outward, relay_frames.decode_inward):
        with suppress(Malformed):
            found = read(data)
            assert read(relay_frames.encode(found)) == found
    with suppress(Malformed):
        ip, port, fingerprint = relay_frames.parse_to(data.decode("latin-1"))
        assert relay_frames.parse_to(relay_frames.to_value(ip, port, fingerprint))[1:] == (port, fingerprint)


def mail(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".eml") as file:
        file.write(data)
        file.flush()
        read_message(Path(file.name))
        summarise(Path(file.name))


def html(data: bytes) -> None:
    as_text(data.decode("utf-8", "replace"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        request, answer, datagram, fragment, proof, certificate, revocations, card, enrolment, network, invite, address,
        notification, body, share, bulk, relay, mail, html,
    )
}  # fmt: skip
