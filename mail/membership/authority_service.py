"""`authority serve`: an authority that answers those who join with an invite, or renew (design section 5).
 Reads its own inbox as anybody reads mail, and leaves each answer where the asker looks for it. Who gets what is
decided by mail/membership/authority.py, what travels is mail/membership/messages.py's. It needs no port and may be
away for a while: an answer is durable at nodes before its request is acknowledged, and a request that comes twice is
answered alike."""

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
"""Seconds between two looks into the inbox: somebody sits before a screen and waits."""

ANSWER_LIFE = INVITE_LIFE
"""Seconds that an answer lies in the overlay: as long as an invite is good."""

REQUESTS = 200
"""Requests looked at in one go; the rest waits for the next one, a poll later."""

REFUSALS = 20
"""Refusals told in one go. Anybody can ask with made-up codes, and each answer is k copies for the nodes to keep: what
is over that is dropped. Who has a good code is always answered."""


class _Fate(Enum):
    """What became of a notification in the authority's inbox; all but KEPT are acknowledged."""

    ANSWERED = 1
    DROPPED = 2
    KEPT = 3


@dataclass(frozen=True, slots=True)
class _Running:
    """What there is between `start` and `stop`."""

    authority: Authority
    identity: Identity
    node: Node
    overlay: Overlay
    directory: Directory


class AuthorityService:
    """The authority in `folder` at work. `tell` gets a line for a person whenever there is something to tell."""

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
        """The network that it answers for, once started."""
        return self._running.overlay.network

    async def start(self) -> None:
        """Open the authority, join its network, publish card and revocation list as far as anybody answers.

        The places of `join` are remembered for invites when somebody answers. Raises AuthorityError (WrongPassphrase),
        KeyringError, NetworkFileError, ProfileBusy (it is served already), ValueError (`join`), OSError.
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
            self._say(str(error))

    async def stop(self) -> None:
        """Stop in good order. A request that was not answered stays in the inbox."""
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.node.stop()
        self._stack.close()

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Answer until cancelled. What fails is told and tried again."""
        while True:
            try:
                await self.run_once()
            except (OverlayError, AuthorityError, OSError) as error:
                self._say(str(error))
            await pause(POLL)

    async def run_once(self) -> int:
        """Publish what is due, answer what waits; how many were answered. Raises OverlayError, AuthorityError."""
        parts = self._running
        await self._keep_published()
        key = inbox_key(parts.identity.address)
        readings = await parts.overlay.read_inbox(key, parts.identity.owner)
        waiting = list(dict.fromkeys(data for reading in readings for data in reading.notifications))[:REQUESTS]
        fates: dict[bytes, _Fate] = {}
        refused = 0
        try:
            for data in waiting:
                answer = await self._judge(data)
                if isinstance(answer, tuple):
                    refused += isinstance(answer[1], Declined)
                    dropped = isinstance(answer[1], Declined) and refused > REFUSALS
                    fates[data] = _Fate.DROPPED if dropped else await self._deliver(*answer)
                else:
                    fates[data] = answer
        finally:
            for reading in readings:
                done = [data for data in reading.notifications if fates.get(data, _Fate.KEPT) is not _Fate.KEPT]
                if done:
                    hashes = [sha256(data).digest() for data in done]
                    await parts.overlay.acknowledge_inbox(key, reading, parts.identity.owner, hashes)
        return sum(fate is _Fate.ANSWERED for fate in fates.values())

    async def _judge(self, data: bytes) -> tuple[Request, Answer] | _Fate:
        """What to answer to these bytes from the inbox. Raises AuthorityError when the authority itself fails."""
        parts = self._running
        try:
            request = open_request(data, parts.identity.pairs(), parts.authority.fingerprint)
        except BadRequest as error:
            log.info("dropped something that is no request: %s", error)
            return _Fate.DROPPED
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

    async def _deliver(self, request: Request, answer: Answer) -> _Fate:
        """Put the answer where the asker looks for it."""
        parts = self._running
        sealed = seal_answer(answer, request, parts.identity.owner, int(self._now() * 1000))
        life = RETENTION if request.renewal else ANSWER_LIFE  # nobody sits and waits: she may look once a month
        outcome = await parts.overlay.store(Kind.ENROLMENT, request.key, sealed, ttl=life)
        if not outcome.have:
            self._say(f"No node took the answer for {request.address} ({'; '.join(outcome.refusals)}); trying again.")
            return _Fate.KEPT
        match answer:
            case Granted():
                self._tell(f"{request.address} {'was renewed' if request.renewal else 'has joined'}.")
            case Declined():
                self._tell(f"A request for {request.address} was refused: {answer.reason}")
        return _Fate.ANSWERED

    async def _keep_published(self) -> None:
        """Card and revocation list: once a day, and at once when somebody was revoked. Raises OverlayError."""
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
            self._say(f"No node took the authority's card and revocation list ({reasons}); trying again.")
            return
        self._published = self._now()

    @property
    def _running(self) -> _Running:
        if self._parts is None:
            raise RuntimeError("the service isn't started")
        return self._parts

    def _say(self, words: str) -> None:
        """Tell of a trouble once, though it is met at every poll."""
        if words != self._told:
            self._told = words
            self._tell(words)


def open_identity(
    profile: Profile, authority: Authority, passphrase: str | None, *, now: Callable[[], float], random: Random
) -> Identity:
    """The keys with which the authority reads its inbox and signs answers, in its folder, under the same passphrase.

    They are made at the first start. Raises KeyringError, AuthorityError, OSError.
    """
    path = profile.keyring_file
    passphrase = passphrase if is_protected(profile.root) else None
    keyring = Keyring.open(path, passphrase) if path.exists() else Keyring.create(path, passphrase, random)
    certify(keyring, authority, random)
    identity = Identity(keyring)
    identity.rotate(now())
    return identity


def certify(keyring: Keyring, authority: Authority, random: Random) -> None:
    """See to it that the authority's own keys are there, with a certificate that is good for some time yet."""
    address = authority_address(authority.fingerprint)
    key = keyring.identity.private_key if keyring.identity is not None else random(32)
    try:
        certificate = authority.issue(address, _public_key(key))
    except (AddressTaken, KeyRevoked):  # the keys were lost once, or their keeper has revoked them
        with suppress(AuthorityError):
            authority.revoke(address)
        key = random(32)
        certificate = authority.issue(address, _public_key(key))
    if keyring.identity is None or keyring.identity.certificate != certificate.der:
        keyring.set_identity(Certified(address, key, certificate.der))


def _public_key(key: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
