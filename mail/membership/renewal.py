"""Renew the user's certificate automatically, from 60 days before its end until 60 days after.

Theory of operation
-------------------
The certified key itself asks; no invite is needed. Request and answer have the formats of a join
(mail/membership/messages.py). A renewal is in one of these states:

    idle       the certificate is valid for more than 60 days, or can't be renewed (revoked, or ended too long ago)
    due        the certificate can be renewed and no request was sent in the last day
    asked      a request lies in the authority's inbox; for the first 10 minutes it is "fresh"

What moves it from one state to the next:

    idle -> due      time passes
    due -> asked     a request is appended to the authority's inbox
    asked -> due     a day passes without an answer
    asked -> idle    the authority granted a certificate that ends later than the current one
    asked -> asked   the authority declined: the user is told once for each reason, and the request is repeated daily

The agent calls `run` and then waits for `pause` seconds: 30 while the request is fresh, because a running authority
answers within that time, otherwise an hour.

Invariants:

- The key under which the answer lies follows from the certificate and its private key. Only the time of the last
  request is stored, so any process of the profile finds the answer, also after a crash, and nobody else can tell where
  it lies.
- A new certificate replaces the old one only if the keyring still holds the certificate for which it was requested.
- `run` holds the lock "join", so it never works beside a `join` in another process.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.directory import Directory
from mail.events import Event, Trouble
from mail.identity import Identity
from mail.membership.authority import GRACE, RENEWAL
from mail.membership.messages import (
    Answer,
    BadAnswer,
    Declined,
    Granted,
    Request,
    best_answer,
    read_answer,
    seal_request,
)
from mail.sealed.key_rotation import in_use
from overlay.client import Overlay
from overlay.errors import NotFound, OverlayError, Unreachable
from overlay.identity.certificates import CertificateError, TrustStore, parse_certificate
from overlay.identity.enrolment_answer import authority_address
from overlay.ids import Kind, inbox_key
from overlay.protocol_limits import RETENTION
from storage.user.keyring import Contents
from storage.user.keyring import IdentityKey as Certified
from storage.user.keyring_contents import with_identity
from storage.user.profile import Profile, ProfileBusy
from storage.user.state import UserState

log = logging.getLogger(__name__)

ASK_AGAIN = 86_400.0
"""Seconds after which the request is sent again."""
SOON = 30.0
"""Seconds between two attempts to fetch the answer while the request is fresh."""
FRESH = 600.0
"""Seconds for which a request is fresh: a running authority has answered by then."""
LOOK_EVERY = 3600.0
"""Seconds between two runs otherwise."""

ASKED_FACT = "renewal-asked"
REFUSED_FACT = "renewal-refused"
_NONCE = 16


class Renewal:
    """Renews the certificate of one profile."""

    def __init__(
        self,
        profile: Profile,
        identity: Identity,
        overlay: Overlay,
        trust: TrustStore,
        state: UserState,
        *,
        tell: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._profile = profile
        self._identity = identity
        self._overlay = overlay
        self._trust = trust
        self._state = state
        self._tell = tell
        self._now = now

    def due(self) -> bool:
        """Whether the certificate should and can be renewed: within 60 days of its end, and not revoked."""
        if self._identity.waiting:
            return False
        certificate = self._identity.owner.certificate
        ends = parse_certificate(certificate).not_after
        if not ends - RENEWAL <= self._now() <= ends + GRACE:
            return False
        try:
            self._trust.verify(certificate, self._now(), lapsed=GRACE)
        except CertificateError:
            return False
        return True

    async def run(self) -> bool:
        """Store the authority's answer if there is one, else send a request if one is due. Returns whether renewed.

        Does nothing while another process joins. Raises OverlayError, KeyringError, OSError, DatabaseError.
        """
        if not self.due():
            return False
        try:
            with self._profile.lock("join"):
                return await self._renew(self._identity.certified)
        except ProfileBusy:
            return False

    @property
    def fresh(self) -> bool:
        """Whether a request was sent so recently that an answer may come at any moment."""
        return self.due() and 0 <= self._now() - self._asked() < FRESH

    def pause(self) -> float:
        """Seconds until the next run."""
        return SOON if self.fresh else LOOK_EVERY

    async def _renew(self, who: Certified) -> bool:
        request = request_for(self._identity)
        answer = await self._look(request)
        if isinstance(answer, Granted) and _end(answer.certificate) > _end(who.certificate):
            await asyncio.to_thread(self._store, who, answer.certificate)
            log.info("the certificate of %s was renewed", who.address)
            return True
        if isinstance(answer, Declined):
            await self._report(answer.reason)
        if not 0 <= self._now() - self._asked() < ASK_AGAIN:
            await self._ask(request)
        return False

    async def _look(self, request: Request) -> Answer | None:
        try:
            found = await self._overlay.fetch_variants(Kind.ENROLMENT, request.key)
        except NotFound:
            return None
        answers = []
        for data in found:
            for pair in self._identity.pairs().values():  # sealed to the key that was in use when the request was sent
                try:
                    answers.append(read_answer(data, request, pair, self._trust, self._now()))
                except BadAnswer as error:
                    log.info("%s", error)
        return best_answer(answers)

    async def _ask(self, request: Request) -> None:
        who = self._identity.certified
        address = authority_address(self._trust.fingerprint)
        card = await Directory(self._overlay, self._trust, self._now).card(address)
        sign = Ed25519PrivateKey.from_private_bytes(who.private_key).sign
        sealed = seal_request(request, sign, self._trust.fingerprint, card.encryption_key)
        outcome = await self._overlay.append_inbox(inbox_key(address), sealed, ttl=RETENTION)
        if not outcome.have:
            raise Unreachable(f"No node took the request to renew the certificate: {'; '.join(outcome.refusals)}")
        log.info("the authority was asked to renew the certificate of %s", who.address)
        await asyncio.to_thread(self._state.keep_fact, ASKED_FACT, repr(self._now()).encode())

    def _store(self, who: Certified, certificate: bytes) -> None:
        def take(before: Contents) -> Contents:
            if before.identity != who:  # another process has replaced it meanwhile
                return before
            return with_identity(before, replace(who, certificate=certificate))

        self._identity.keyring.change(take)

    async def _report(self, reason: str) -> None:
        """Tell the user of a refusal, once for each reason."""
        if self._state.fact(REFUSED_FACT) != reason.encode():
            await asyncio.to_thread(self._state.keep_fact, REFUSED_FACT, reason.encode())
            self._tell(Trouble(f"The authority doesn't renew your certificate: {reason}", lasting=True))

    def _asked(self) -> float:
        try:
            return float(self._state.fact(ASKED_FACT) or b"-inf")
        except ValueError:
            return float("-inf")


def request_for(identity: Identity) -> Request:
    """The request to renew the newest certificate. Only the key's holder can compute where its answer lies.

    Raises NotJoined, and OverlayError if there is no encryption key.
    """
    who = identity.certified
    current = in_use(identity.keyring.contents)
    if current is None:
        raise OverlayError("There is no encryption key for the authority's answer yet.")
    nonce = hmac.digest(who.private_key, b"p2pmail renewal\0" + who.certificate, "sha256")[:_NONCE]
    public_key = Ed25519PrivateKey.from_private_bytes(who.private_key).public_key().public_bytes_raw()
    return Request(who.address, nonce, public_key, identity.pairs()[current.key_id].public, renewal=True)


def _end(certificate: bytes) -> float:
    return parse_certificate(certificate).not_after
