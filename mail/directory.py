"""The directory: fetches, verifies and publishes cards in the overlay (paper, section 3.1, step 1).

Chooses the newest valid card among the answers of several nodes, and caches cards in memory for a while.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256

from overlay.client import Outcome, Overlay
from overlay.errors import NotFound, OverlayError, Unreachable
from overlay.identity.card import Card, open_card
from overlay.identity.certificates import CertificateError, TrustStore
from overlay.ids import Kind, certificate_key
from overlay.protocol_limits import DAY, RETENTION

PUBLISH_EVERY = DAY
"""Seconds after which a card or a revocation list is published again, for nodes that have joined since."""
FRESH = 600.0
"""Seconds for which a fetched card is used again without asking the overlay."""
CARDS = 10_000
"""Most cards in the cache."""
ASKED = 3
"""Replicas asked for a card: a replica with an old card is overruled by any that has a newer one."""


class UnknownAddress(OverlayError):
    """The network has no valid card for this address."""


class NobodyElse(Unreachable):
    """The address isn't known, and this node is the only one so far: its owner may still join."""


class Directory:
    """Cards by address. `now` gives seconds since the epoch."""

    def __init__(self, overlay: Overlay, trust: TrustStore, now: Callable[[], float] = time.time) -> None:
        self._overlay = overlay
        self._trust = trust
        self._now = now
        self._cards: OrderedDict[str, tuple[float, Card]] = OrderedDict()
        self._own: tuple[bytes, bytes] | None = None

    async def card(self, address: str) -> Card:
        """Fetch the newest valid card of a normalised address. Raises UnknownAddress, Unreachable, NobodyElse."""
        kept = self._cards.get(address)
        if kept is not None and 0 <= self._now() - kept[0] < FRESH:  # not if the clock was set back meanwhile
            return kept[1]
        try:
            found = await self._overlay.fetch_variants(Kind.CERTIFICATE, certificate_key(address), max_ops=ASKED)
        except NotFound as error:
            if self._overlay.alone:
                raise NobodyElse("Nobody else is in this network yet.") from error
            raise UnknownAddress(f"{address} isn't known in this network.") from error
        newest: Card | None = None
        for data in found:
            card = self._checked(data, address)
            if card is not None and (newest is None or card.sequence > newest.sequence):
                newest = card
        if newest is None:
            raise UnknownAddress(
                f"The card of {address} isn't valid: it has expired, was revoked, or belongs to somebody else."
            )
        self._remember(address, newest)
        return newest

    def good(self, certificate: bytes) -> bool:
        """Whether a certificate (DER) is valid now, judging by the revocations known here."""
        try:
            self._trust.verify(certificate, self._now())
        except CertificateError:
            return False
        return True

    async def publish(self, card: bytes) -> Outcome:
        """Store our own card at the k closest nodes. Raises Unreachable, CertificateError if it isn't valid."""
        opened = open_card(card, self._trust, self._now())
        self._remember(opened.certificate.address, opened)
        key = certificate_key(opened.certificate.address)
        self._own = key, sha256(card).digest()
        return await self._overlay.store(Kind.CERTIFICATE, key, card, ttl=RETENTION)

    async def publish_next(self, address: str, make: Callable[[float], bytes]) -> Outcome:
        """Publish our own card with a time (epoch seconds) later than that of every card that nodes hold.

        `make` gets that time and returns the card. The time is in the future if an earlier card was made while the
        clock was ahead: nodes would ignore a lower one. Raises what `publish` and `make` raise.
        """
        moment = self._now()
        with suppress(OverlayError):
            found = await self._overlay.fetch_variants(Kind.CERTIFICATE, certificate_key(address), max_ops=ASKED)
            cards = [card for card in (self._checked(data, address) for data in found) if card is not None]
            moment = max([moment, *((card.sequence + 1.5) / 1000 for card in cards)])
        return await self.publish(make(moment))

    async def kept(self) -> bool:
        """Whether all k closest nodes hold our card as last published. Raises Unreachable."""
        if self._own is None:
            return False
        outcome = await self._overlay.held(Kind.CERTIFICATE, *self._own)
        return outcome.have >= outcome.want

    def _checked(self, data: bytes, address: str) -> Card | None:
        try:
            card = open_card(data, self._trust, self._now())
        except CertificateError:
            return None
        return card if card.certificate.address == address else None

    def _remember(self, address: str, card: Card) -> None:
        self._cards[address] = (self._now(), card)
        self._cards.move_to_end(address)
        if len(self._cards) > CARDS:
            self._cards.popitem(last=False)
