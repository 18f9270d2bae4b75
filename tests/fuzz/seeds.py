"""The first bytes of each corpus: good ones, so that fuzzing begins behind the first check.

`python -m tests.fuzz.seeds` writes what is missing.
"""

from __future__ import annotations

import io
import sys

from mail.sealed.body import seal_body
from mail.sealed.erasure_shares import CodingPlan, make_shares
from mail.sealed.notification import seal_notification
from overlay.http import headers, relay_frames
from overlay.identity.card import make_card
from overlay.identity.contact import WireContact
from overlay.identity.network import Network, write_network
from overlay.identity.ownership import DeleteProof, Owner, encode_delete_proof
from overlay.protocol_limits import ENCRYPTION_KEY_SIZE
from overlay.wire import fragments, messages
from tests.fuzz.run import CORPUS, keep
from tests.fuzz.targets import ISSUER, KEY, PAIR, SEALER
from tests.mail.sealed.test_notification import MESSAGE
from tests.overlay.issuing import NOW
from tests.overlay.wire.test_messages import ANSWERS, REQUESTS

PERSON = ISSUER.person("alice@village.example", 100)
HTML = b"<html><body><p>Hello <a href='https://example.org/'>there</a><img src=x><table><tr><td>1</table>"
MAIL = (
    b"From: Alice <alice@example.org>\nTo: bob@example.org\nSubject: =?utf-8?q?h=C3=A9?=\nMIME-Version: 1.0\n"
    b'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/plain; charset=utf-8\n\nHello\n'
    b"--b\nContent-Disposition: attachment; filename=a.txt\nContent-Transfer-Encoding: base64\n\nSGVsbG8=\n--b--\n"
)


def seeds() -> dict[str, list[bytes]]:
    """Good bytes for each target."""
    parts = list(seal_body(io.BytesIO(b"a message\n"), bytes(32)))
    proof = DeleteProof(KEY, KEY, bytes(16), bytes(16), PERSON.certificate, bytes(64))
    return {
        "request": [messages.encode(request) for request in REQUESTS],
        "answer": [messages.encode(answer) for answer in ANSWERS],
        "datagram": [SEALER.seal(SEALER.public, b"hello"), SEALER.ask_key(bytes(16))],
        "fragment": [b"".join(p.ljust(40, b"\0") for p in fragments.cut(0, bytes(8), bytes(20)))],
        "proof": [encode_delete_proof(proof)],
        "certificate": [PERSON.certificate, ISSUER.der],
        "revocations": [ISSUER.der],
        "card": [make_card(PERSON, bytes(ENCRYPTION_KEY_SIZE), int(NOW * 1000))],
        "enrolment": [b"\x93\x01\xc4\x01x\xc4\x01y"],
        "network": [write_network(Network("fuzz", authorities=(ISSUER.der,), join=("mail.example.org:4600",)))],
        "invite": [b"p2pmail:AAAA"],
        "address": [b"Alice@Village.Example", b"[2001:db8::1]:4600"],
        "notification": [seal_notification(MESSAGE, Owner(PERSON.certificate, PERSON.sign), PAIR.public)],
        "body": [data for _, data in parts],
        "share": [make_shares(bytes(100), KEY, CodingPlan(2, 3, bytes(1) * 32))[0][:60]],
        "bulk": [headers.encode_notifications([b"one", b"two"]), bytes(64)],
        "relay": [
            relay_frames.encode(relay_frames.Welcome(bytes(32), bytes(4))),
            relay_frames.encode(relay_frames.Outward(WireContact(bytes(32), bytes(4), 4600), b"sealed")),
            relay_frames.encode(relay_frames.Inward(bytes(16), 4600, b"sealed")),
            relay_frames.to_value("2001:db8::1", 4600, bytes(32)).encode(),
        ],
        "mail": [MAIL],
        "html": [HTML],
    }


def main() -> int:
    """Write them where a corpus is empty."""
    for name, some in seeds().items():
        if not any((CORPUS / name).glob("*")):
            for data in some:
                keep(name, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
