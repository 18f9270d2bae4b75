"""`authority serve`: answers requests to join with an invite and to renew a certificate (design section 5).

The service reads the authority's inbox like any recipient, and stores each answer under the key where the requester
looks for it. mail/membership/authority.py decides the answers; mail/membership/messages.py has their format. The
service needs no open port and may stop at any time: nodes hold an answer before its request is acknowledged, and a
repeated request gets the same answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.directory import PUBLISH_EVERY, Directory
from mail.identity import Identity
from mail.membership.authority import (
    INVITE_LIFE,
    AddressTaken,
    Authority,
    AuthorityError,
    InviteRefused,
    KeyRevoked,
    NothingToRenew,
    Random,
)
from mail.membership.create_network import is_protected, open_authority, remember_places
from mail.membership.messages import Answer, BadRequest, Declined, Granted, Request, open_request, seal_answer
from mail.profile_node import open_client
from overlay.client import Overlay
from overlay.errors import OverlayError
from overlay.identity.certificates import TrustStore
from overlay.identity.enrolment_answer import authority_address
from overlay.identity.network import Network
from overlay.ids import Kind, inbox_key, revocations_key
from overlay.node.node import Node
from overlay.protocol_limits import RETENTION
from storage.user.keyring import IdentityKey as Certified
from storage.user.keyring import Keyring
from storage.user.profile import Profile

log = logging.getLogger(__name__)

POLL = 5.0
"""Seconds between two reads of the inbox. Short, because a user who joins is waiting."""

ANSWER_LIFE = INVITE_LIFE
"""Seconds for which nodes keep an answer: as long as an invite is valid."""

REQUESTS = 200
"""Most requests handled in one round; the rest wait for the next round."""

REFUSALS = 20
"""Most refusals answered in one round. Anybody can send made-up codes, and each answer costs the nodes k copies, so
further refusals are dropped. A request with a valid code is always answered."""


class _Handled(Enum):
    """What was done with a notification in the authority's inbox. All but KEPT are acknowledged."""

    ANSWERED = 1
    DROPPED = 2
    KEPT = 3


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists between `start` and `stop`."""

    authority: Authority
    identity: Identity
    node: Node
    overlay: Overlay
    directory: Directory


class AuthorityService:
    """Answers for the authority in `folder`. `tell` gets a line for the operator for each event."""

    def __init__(
        self,
        folder: Path,
        passphrase: str | None = None,
        *,
        join: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        random: Random = os.urandom,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        self._folder = folder
        self._passphrase = passphrase
        self._join = tuple(join)
        self._now = now
        self._random = random
        self._tell = tell
        self._told = ""
        self._stack = ExitStack()
        self._parts: _Running | None = None
        self._published = float("-inf")
        self._revocations = b""

    @property
    def network(self) -> Network:
        """The authority's network. Only after `start`."""
        return self._running.overlay.network

    async def start(self) -> None:
        """Open the authority, join its network, and publish its card and revocation list if nodes answer.

        If nodes answer, the places of `join` are stored for future invites. Raises AuthorityError
        (WrongAuthorityPassphrase), KeyringError, NetworkFileError, ProfileBusy (another `serve` runs), ValueError
        (`join`), OSError.
        """
        profile = Profile(self._folder, environ={})
        with ExitStack() as stack:
            authority, network = await asyncio.to_thread(
                open_authority, self._folder, self._passphrase, now=self._now, random=self._random
            )
            stack.callback(authority.close)
            stack.enter_context(profile.lock("authority"))
            identity = await asyncio.to_thread(
                open_identity, profile, authority, self._passphrase, now=self._now, random=self._random
            )
            node = await open_client(profile, network, join=self._join, now=self._now)
            overlay = Overlay(node)
            trust = node.trust or TrustStore(network.authorities)
            self._parts = _Running(authority, identity, node, overlay, Directory(overlay, trust, self._now))
            self._stack = stack.pop_all()
        if len(node.protocol.router):
            await asyncio.to_thread(remember_places, self._folder, network, self._join)
        try:
            await self._keep_published()
        except OverlayError as error:
            self._report(str(error))

    async def stop(self) -> None:
        """Stop. Unanswered requests stay in the inbox."""
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.node.stop()
        self._stack.close()

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Answer until cancelled. Report failures and try again."""
        while True:
            try:
                await self.run_once()
            except (OverlayError, AuthorityError, OSError) as error:
                self._report(str(error))
            await pause(POLL)

    async def run_once(self) -> int:
        """Publish what is due and answer waiting requests. Returns how many. Raises OverlayError, AuthorityError."""
        parts = self._running
        await self._keep_published()
        key = inbox_key(parts.identity.address)
        readings = await parts.overlay.read_inbox(key, parts.identity.owner)
        waiting = list(dict.fromkeys(data for reading in readings for data in reading.notifications))[:REQUESTS]
        handled: dict[bytes, _Handled] = {}
        refused = 0
        try:
            for data in waiting:
                answer = await self._decide(data)
                if isinstance(answer, tuple):
                    refused += isinstance(answer[1], Declined)
                    dropped = isinstance(answer[1], Declined) and refused > REFUSALS
                    handled[data] = _Handled.DROPPED if dropped else await self._store_answer(*answer)
                else:
                    handled[data] = answer
        finally:
            for reading in readings:
                done = [data for data in reading.notifications if handled.get(data, _Handled.KEPT) is not _Handled.KEPT]
                if done:
                    hashes = [sha256(data).digest() for data in done]
                    await parts.overlay.acknowledge_inbox(key, reading, parts.identity.owner, hashes)
        return sum(one is _Handled.ANSWERED for one in handled.values())

    async def _decide(self, data: bytes) -> tuple[Request, Answer] | _Handled:
        """Decide on a notification from the inbox. Raises AuthorityError if the authority itself fails."""
        parts = self._running
        try:
            request = open_request(data, parts.identity.pairs(), parts.authority.fingerprint)
        except BadRequest as error:
            log.info("dropped something that is no request: %s", error)
            return _Handled.DROPPED
        try:
            if request.renewal:
                certificate = await asyncio.to_thread(parts.authority.renew, request.address, request.public_key)
            else:
                certificate = await asyncio.to_thread(
                    parts.authority.redeem, request.address, request.public_key, request.code
                )
        except (InviteRefused, NothingToRenew, AddressTaken, KeyRevoked) as error:
            return request, Declined(str(error))
        return request, Granted(certificate.der, self._revocations)

    async def _store_answer(self, request: Request, answer: Answer) -> _Handled:
        """Store the answer where the requester looks for it."""
        parts = self._running
        sealed = seal_answer(answer, request, parts.identity.owner, int(self._now() * 1000))
        life = RETENTION if request.renewal else ANSWER_LIFE  # a renewing user may come online once a month
        outcome = await parts.overlay.store(Kind.ENROLMENT, request.key, sealed, ttl=life)
        if not outcome.have:
            self._report(
                f"No node took the answer for {request.address} ({'; '.join(outcome.refusals)}); trying again."
            )
            return _Handled.KEPT
        match answer:
            case Granted():
                self._tell(f"{request.address} {'was renewed' if request.renewal else 'has joined'}.")
            case Declined():
                self._tell(f"A request for {request.address} was refused: {answer.reason}")
        return _Handled.ANSWERED

    async def _keep_published(self) -> None:
        """Publish card and revocation list daily, and at once after a revocation. Raises OverlayError."""
        parts = self._running
        revocations = await asyncio.to_thread(parts.authority.revocations)
        if revocations == self._revocations and 0 <= self._now() - self._published < PUBLISH_EVERY:
            return
        await asyncio.to_thread(certify, parts.identity.keyring, parts.authority, self._random)
        await asyncio.to_thread(parts.identity.rotate, self._now())
        key = revocations_key(parts.authority.fingerprint)
        self._revocations = revocations
        self._published = float("-inf")
        list_at = await parts.overlay.store(Kind.REVOCATIONS, key, revocations, ttl=RETENTION)
        card_at = await parts.directory.publish_next(parts.identity.address, parts.identity.card)
        if not list_at.have or not card_at.have:
            reasons = "; ".join(dict.fromkeys(list_at.refusals + card_at.refusals))
            self._report(f"No node took the authority's card and revocation list ({reasons}); trying again.")
            return
        self._published = self._now()

    @property
    def _running(self) -> _Running:
        if self._parts is None:
            raise RuntimeError("the service isn't started")
        return self._parts

    def _report(self, words: str) -> None:
        """Report a problem once, not at every round."""
        if words != self._told:
            self._told = words
            self._tell(words)


def open_identity(
    profile: Profile, authority: Authority, passphrase: str | None, *, now: Callable[[], float], random: Random
) -> Identity:
    """The keys with which the authority reads its inbox and signs answers.

    They lie in its folder under the same passphrase, and are made at the first start. Raises KeyringError,
    AuthorityError, OSError.
    """
    path = profile.keyring_file
    passphrase = passphrase if is_protected(profile.root) else None
    keyring = Keyring.open(path, passphrase) if path.exists() else Keyring.create(path, passphrase, random)
    certify(keyring, authority, random)
    identity = Identity(keyring)
    identity.rotate(now())
    return identity


def certify(keyring: Keyring, authority: Authority, random: Random) -> None:
    """Make sure that the authority's own keys exist and have a certificate that isn't about to end."""
    address = authority_address(authority.fingerprint)
    key = keyring.identity.private_key if keyring.identity is not None else random(32)
    try:
        certificate = authority.issue(address, _public_key(key))
    except (AddressTaken, KeyRevoked):  # the keys were lost, or the operator has revoked them
        with suppress(AuthorityError):
            authority.revoke(address)
        key = random(32)
        certificate = authority.issue(address, _public_key(key))
    if keyring.identity is None or keyring.identity.certificate != certificate.der:
        keyring.set_identity(Certified(address, key, certificate.der))


def _public_key(key: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
