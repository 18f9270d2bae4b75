"""Join a network with an invite: the joiner's side of enrolment (design section 5).

This file does the I/O. The messages are in mail/membership/messages.py, and what the keyring keeps between attempts is
in mail/membership/pending.py.

Theory of operation
-------------------
A profile is in one of three states. The keyring on disk holds the state, so it survives a crash:

    new        no certificate and no pending join
    pending    keys, the invite and perhaps a sealed request are stored; the authority's answer is missing
    joined     the keyring holds a certificate for the address

What moves a profile from one state to the next:

    new -> pending       `join` stores new keys with the invite before anything is sent
    pending -> pending   a request is appended to the authority's inbox, and again after an hour without an answer;
                         a newer invite to the same address replaces the old one and keeps the keys
    pending -> joined    the authority granted a certificate
    pending -> new       the authority declined (JoinRefused); a profile with an older certificate keeps that one
    joined -> pending    the certificate is about to end or has ended (the same key asks again), or was revoked (a new
                         key asks, because the authority would refuse the old one)

One attempt (`_Attempt`) repeats these steps every POLL seconds until there is an answer or its time is over:

    1. Find the authority. Fetch its certificate from any node and compare it with the invite's fingerprint.
    2. Look for an answer under the key that follows from the invite's code and our public key.
    3. If there is none and a request is due, seal a request to the authority's card and append it to its inbox.

Invariants:

- Each step is on disk before the next begins. `join` and `resume` continue where the last attempt stopped.
- At most one process of a profile joins or renews: it holds the lock "join".
- Nothing that a node sends is believed unless the invite's fingerprint or the authority's signature proves it.
- A granted answer is stored in this order: network.toml with the authority, then the certificate, which ends the
  pending state. A crash between the two leaves a pending join, and the next attempt reads the same answer again.
- A failure to publish the card doesn't undo a join: the agent publishes it later.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from enum import Enum

from mail.directory import Directory, UnknownAddress
from mail.identity import Identity
from mail.membership.authority import RENEWAL
from mail.membership.certificate_status import remember_certificate
from mail.membership.invite import Invite, read_invite
from mail.membership.messages import (
    Answer,
    BadAnswer,
    Declined,
    EnrolmentError,
    Granted,
    best_answer,
    check_root,
    read_answer,
    seal_request,
)
from mail.membership.pending import Pending, asked, begin, give_up, open_keyring, pending_join
from mail.profile_node import NoNetwork, open_client, read_network_file
from overlay.client import Overlay
from overlay.errors import NotFound, OverlayError, Unreachable
from overlay.identity.certificates import CertificateError, Revoked, TrustStore
from overlay.identity.contact import host_port, key_text
from overlay.identity.enrolment_answer import authority_address
from overlay.identity.network import NetworkFileError, write_network
from overlay.ids import Kind, inbox_key, root_key
from overlay.node.node import Node
from overlay.protocol_limits import RETENTION
from storage import durable
from storage.errors import PERMISSION, TEMPORARY, UNAVAILABLE
from storage.user.keyring import IdentityKey as Certified
from storage.user.keyring import Keyring
from storage.user.profile import Profile, ProfileBusy

log = logging.getLogger(__name__)

POLL = 2.0
"""Seconds between two attempts to fetch the answer."""

BUSY_LOOKS = 15
"""Attempts to take the lock "join", POLL seconds apart. A running agent holds it for some seconds to renew."""

KNOWN_PLACES = 5
"""Nodes met while joining that network.toml keeps as further places to join at, in case the invite's are gone."""


class AwaitingAuthority(EnrolmentError):
    """The authority hasn't answered yet. Keys and request are kept; resuming continues with them."""

    exit_code = TEMPORARY


class NobodyAnswers(AwaitingAuthority):
    """No node of the network answered. The keys are kept; resuming starts again with them."""

    exit_code = UNAVAILABLE


class JoinRefused(EnrolmentError):
    """The authority declined; the message quotes its reason."""

    exit_code = PERMISSION


class AlreadyJoined(EnrolmentError):
    """This profile already belongs to another address. Nothing was changed."""

    exit_code = PERMISSION


async def join(
    profile: Profile,
    invite_text: str,
    passphrase: str | None,
    *,
    wait: float,
    now: Callable[[], float] = time.time,
    tell: Callable[[str], None] = log.info,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    random: Callable[[int], bytes] = os.urandom,
) -> str:
    """Join with a pasted invite. Returns the address once its certificate is stored and its card published.

    Waits about `wait` seconds for the authority. With the same invite again it continues where the last attempt
    stopped; if the profile has joined already, it does nothing. Raises InviteError, AlreadyJoined, JoinRefused,
    AwaitingAuthority (NobodyAnswers), KeyringError (WrongPassphrase), ProfileError (ProfileBusy), OSError.
    """
    invite = read_invite(invite_text)
    await asyncio.to_thread(profile.create)
    async with _alone(profile, pause):
        keyring = await asyncio.to_thread(open_keyring, profile, passphrase, random)
        renewed = keyring.identity
        if renewed is not None:
            match await _certificate_state(profile, renewed, invite, now):
                case _CertificateState.GOOD:
                    tell(f"This profile has joined as {invite.address} already.")
                    return invite.address
                case _CertificateState.OVER:
                    await asyncio.to_thread(give_up, keyring, renewed)
                    renewed = None
        await asyncio.to_thread(begin, keyring, invite_text, now(), random, renewed=renewed)
        return await _resumed(profile, keyring, now, tell).run(wait, pause)


async def resume(
    profile: Profile,
    keyring: Keyring,
    *,
    wait: float,
    now: Callable[[], float] = time.time,
    tell: Callable[[str], None] = log.info,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> str:
    """Continue a pending join. Returns the address; `keyring` then holds its certificate.

    Raises what `join` raises, and EnrolmentError if no join is pending.
    """
    async with _alone(profile, pause):
        return await _resumed(profile, keyring, now, tell).run(wait, pause)


@asynccontextmanager
async def _alone(profile: Profile, pause: Callable[[float], Awaitable[None]]) -> AsyncIterator[None]:
    """Hold the profile's lock "join". Raises ProfileBusy if another process keeps it."""
    with ExitStack() as lock:
        for left in reversed(range(BUSY_LOOKS)):
            try:
                lock.enter_context(profile.lock("join"))
                break
            except ProfileBusy:
                if not left:
                    raise
                await pause(POLL)
        yield


class _Attempt:
    """One attempt to get from a stored request to a certificate; see the theory of operation."""

    def __init__(
        self,
        profile: Profile,
        keyring: Keyring,
        pending: Pending,
        now: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._profile = profile
        self._keyring = keyring
        self._pending = pending
        self._invite = pending.invite
        self._request = pending.request
        self._now = now
        self._tell = tell
        self._told = False
        self._root = b""
        self._trust: TrustStore | None = None

    async def run(self, wait: float, pause: Callable[[float], Awaitable[None]]) -> str:
        """Repeat the steps until there is an answer or `wait` seconds are over."""
        deadline = self._now() + wait
        # The invite has only the fingerprint of the authority's certificate; the certificate is fetched from nodes.
        node = await open_client(self._profile, self._invite.network, now=self._now)
        try:
            overlay = Overlay(node)
            while True:
                trouble: OverlayError | None = None
                answer: Answer | None = None
                try:
                    answer = await self._step(overlay)
                except OverlayError as error:
                    log.info("joining: %s", error)
                    trouble = error
                if answer is not None:
                    return await self._settle(overlay, answer)
                if self._now() >= deadline:
                    raise self._waiting(trouble) from trouble
                await pause(POLL)
        finally:
            await node.stop()

    async def _step(self, overlay: Overlay) -> Answer | None:
        """Find the authority, look for its answer, and send a request if one is due. Raises OverlayError."""
        if self._trust is None:
            self._trust = await self._find_authority(overlay)
        answer = await self._look(overlay, self._trust)
        if answer is None and self._pending.must_ask(self._now()):
            await self._ask(overlay, self._trust)
        return answer

    async def _find_authority(self, overlay: Overlay) -> TrustStore:
        fingerprint = self._invite.fingerprint
        if not self._told:
            self._told = True
            self._tell(f"Looking for the network {self._invite.network.name}.")
        root = await overlay.fetch(Kind.BODY, root_key(fingerprint), digest=bytes.fromhex(fingerprint))
        self._root = check_root(root, fingerprint)
        overlay.node.trust = trust = TrustStore([self._root])
        await overlay.refresh_revocations()
        return trust

    async def _look(self, overlay: Overlay, trust: TrustStore) -> Answer | None:
        """The authority's answer, if a node has it. Answers that it didn't sign are ignored."""
        try:
            found = await overlay.fetch_variants(Kind.ENROLMENT, self._request.key)
        except NotFound:
            return None
        answers = []
        for data in found:
            try:
                answers.append(read_answer(data, self._request, self._pending.pair, trust, self._now()))
            except BadAnswer as error:
                log.info("%s", error)
        return best_answer(answers)

    async def _ask(self, overlay: Overlay, trust: TrustStore) -> None:
        """Append the request to the authority's inbox. Raises OverlayError."""
        address = authority_address(self._invite.fingerprint)
        card = await Directory(overlay, trust, self._now).card(address)
        sealed = seal_request(self._request, self._pending.key.sign, self._invite.fingerprint, card.encryption_key)
        outcome = await overlay.append_inbox(inbox_key(address), sealed, ttl=RETENTION)
        if not outcome.have:
            raise Unreachable(f"No node took the request: {'; '.join(outcome.refusals)}.")
        self._pending = await asyncio.to_thread(asked, self._keyring, self._pending, sealed, self._now())
        self._tell(
            f"The request for {self._request.address} lies at {_nodes(outcome.have)}; waiting for the authority."
        )

    async def _settle(self, overlay: Overlay, answer: Answer) -> str:
        """Store the answer: first the authority's network, then the certificate, which ends the pending state."""
        if isinstance(answer, Declined):
            await asyncio.to_thread(self._keyring.set_pending, None)
            raise JoinRefused(f"The network's authority refused: {answer.reason}")
        assert self._trust is not None
        self._accept_revocations(self._trust, answer)
        places = (*self._invite.network.join, *_met(overlay.node))
        network = replace(self._invite.network, authorities=(self._root,), join=tuple(dict.fromkeys(places)))
        await asyncio.to_thread(durable.write, self._profile.network_file, write_network(network), 0o644)
        kept = self._pending.kept
        await asyncio.to_thread(
            self._keyring.set_identity, Certified(kept.address, kept.private_key, answer.certificate)
        )
        await asyncio.to_thread(remember_certificate, self._profile, answer.certificate)
        await self._publish(overlay, self._trust)
        return self._request.address

    def _accept_revocations(self, trust: TrustStore, answer: Granted) -> None:
        try:
            if answer.revocations:
                trust.accept_revocations(answer.revocations, self._now())
        except CertificateError as error:  # signed by the authority but unusable: wait for the next list
            log.warning("%s", error)

    async def _publish(self, overlay: Overlay, trust: TrustStore) -> None:
        identity = Identity(self._keyring)
        await asyncio.to_thread(identity.rotate, self._now())
        try:
            outcome = await Directory(overlay, trust, self._now).publish(identity.card(self._now()))
            self._tell(f"The card of {identity.address} lies at {_nodes(outcome.have)}: others can write now.")
        except OverlayError as error:
            self._tell(f"{identity.address} has its certificate; its card will be published later ({error})")

    def _waiting(self, trouble: OverlayError | None) -> AwaitingAuthority:
        """The error that says why there is no answer, and what to do."""
        later = "Your keys are kept; run `p2pmail join` with the invite again, or just start the reader, to go on."
        if self._trust is None:
            return NobodyAnswers(f"{trouble or 'No node of the network answers.'} {later}")
        if self._pending.asked:
            return AwaitingAuthority(
                f"The authority of {self._invite.network.name} hasn't answered yet. The request is left with the"
                f" network. {later}"
            )
        if isinstance(trouble, UnknownAddress):
            return AwaitingAuthority(
                f"The authority of {self._invite.network.name} hasn't been at work in this network yet: the person who"
                f" invited you has to run `p2pmail authority serve`. {later}"
            )
        return AwaitingAuthority(f"{trouble} {later}")


def _resumed(profile: Profile, keyring: Keyring, now: Callable[[], float], tell: Callable[[str], None]) -> _Attempt:
    pending = pending_join(keyring)
    if pending is None:
        raise EnrolmentError("This profile waits for no answer: paste an invite with `p2pmail join`.")
    return _Attempt(profile, keyring, pending, now, tell)


class _CertificateState(Enum):
    """The state of the certificate that a profile has already."""

    GOOD = 1
    ENDING = 2
    OVER = 3


async def _certificate_state(
    profile: Profile, has: Certified, invite: Invite, now: Callable[[], float]
) -> _CertificateState:
    """The state of the profile's certificate, for an invite to the same address.

    Raises AlreadyJoined if the invite is for another address, NobodyAnswers if no node has the revocation list.
    """
    try:
        network = await asyncio.to_thread(read_network_file, profile.network_file)
        trust = TrustStore(network.authorities)
    except (NoNetwork, NetworkFileError, CertificateError):
        return _CertificateState.ENDING  # network.toml is missing or damaged: joining again restores it
    if has.address != invite.address or trust.fingerprint != invite.fingerprint:
        raise AlreadyJoined(
            f"This profile belongs to {has.address} in the network {network.name}; choose another folder for"
            f" {invite.address} with --profile. Nothing was changed."
        )
    node = await open_client(profile, network, join=invite.network.join, now=now)
    try:
        heard = await Overlay(node).refresh_revocations()
        assert node.trust is not None
        certificate = node.trust.verify(has.certificate, now())
    except Revoked:
        return _CertificateState.OVER  # the authority would refuse this key
    except CertificateError:  # ended, or the clock is wrong: keep the key, which can still delete mail sent to it
        return _CertificateState.ENDING
    finally:
        await node.stop()
    if certificate.not_after - now() <= RENEWAL:
        return _CertificateState.ENDING
    if not heard:
        raise NobodyAnswers(
            f"No node of the network answers: whether {has.address} was revoked isn't known. Nothing was changed; try"
            " again when the network is back."
        )
    return _CertificateState.GOOD


def _met(node: Node) -> list[str]:
    """Some nodes that answered, as HOST:PORT/KEY."""
    contacts = node.protocol.router.closest(node.id, KNOWN_PLACES, healthy=True)
    return [f"{host_port(contact.ip, contact.port)}/{key_text(contact.key)}" for contact in contacts]


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
