"""Renewing the user's certificate by itself, in its last 60 days and 60 days after: the key that is certified asks.
 The request and the answer travel as those of a join (mail/membership/messages.py), without an invite. What is asked
follows from the certificate alone, so nothing is kept but when it was asked: whoever comes next finds the same answer.
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
"""Seconds after which the request is left once more."""
SOON = 30.0
"""Seconds after which the answer is looked for while the request is fresh."""
FRESH = 600.0
"""Seconds for which a request is fresh: an authority that is at work has answered by then."""
LOOK_EVERY = 3600.0

ASKED_FACT = "renewal-asked"
REFUSED_FACT = "renewal-refused"
_NONCE = 16


class Renewal:
    """Renews the certificate of one profile's user."""

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
        """Whether the certificate is to be renewed, and can be: near its end, or not long after, and not revoked."""
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
        """Take the authority's answer when it is there, else leave the request where that is due; whether renewed.

        A `join` that is at work in another process is not disturbed. Raises OverlayError, KeyringError, OSError,
        DatabaseError.
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
        """Whether an authority that is at work is about to answer."""
        return self.due() and 0 <= self._now() - self._asked() < FRESH

    def pause(self) -> float:
        """Seconds until it is worth another run."""
        return SOON if self.fresh else LOOK_EVERY

    async def _renew(self, who: Certified) -> bool:
        request = request_for(self._identity)
        answer = await self._look(request)
        if isinstance(answer, Granted) and _end(answer.certificate) > _end(who.certificate):
            await asyncio.to_thread(self._take, who, answer.certificate)
            log.info("the certificate of %s was renewed", who.address)
            return True
        if isinstance(answer, Declined):
            await self._say(answer.reason)
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
            for pair in self._identity.pairs().values():  # it was sealed to the one in use when it was asked for
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

    def _take(self, who: Certified, certificate: bytes) -> None:
        def take(before: Contents) -> Contents:
            if before.identity != who:  # another process was faster
                return before
            return with_identity(before, replace(who, certificate=certificate))

        self._identity.keyring.change(take)

    async def _say(self, reason: str) -> None:
        """Tell the user of a refusal once."""
        if self._state.fact(REFUSED_FACT) != reason.encode():
            await asyncio.to_thread(self._state.keep_fact, REFUSED_FACT, reason.encode())
            self._tell(Trouble(f"The authority doesn't renew your certificate: {reason}", lasting=True))

    def _asked(self) -> float:
        try:
            return float(self._state.fact(ASKED_FACT) or b"-inf")
        except ValueError:
            return float("-inf")


def request_for(identity: Identity) -> Request:
    """What is asked to renew the newest certificate. Where the answer lies can be known by the key's holder alone.

    Raises NotJoined.
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
