"""The status of the user's own certificate (valid, ending, ended, revoked), with words for the user.

Nothing here uses the network. mail/membership/renewal.py renews the certificate.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256

from mail.identity import Identity
from mail.membership.authority import GRACE
from mail.profile_node import NoNetwork, read_network_file
from overlay.identity.certificates import CertificateError, CertificateExpired, Revoked, TrustStore, parse_certificate
from overlay.identity.network import NetworkFileError
from overlay.protocol_limits import DAY
from storage.database import DatabaseError
from storage.user.profile import Profile
from storage.user.state import UserState

log = logging.getLogger(__name__)

WARNINGS = (30 * DAY, 7 * DAY)
"""Seconds before the certificate's end at which the user is warned. Renewal has been tried for weeks by then."""

REVOCATIONS_EVERY = 3600.0
"""Seconds between two fetches of the revocation list: a revoked member is refused within an hour."""

REVOCATIONS_FACT = "revocations"
"""The newest revocation list (DER) in the profile's state."""
CERTIFICATE_FACT = "certificate"
"""The user's certificate (DER) in the profile's state, for commands that run without the passphrase."""
WARNED_FACT = "certificate-warned"


class CertificateState(StrEnum):
    """What can be said of a certificate at a moment."""

    VALID = "valid"
    ENDING = "ending"
    """It ends within 30 days."""
    ENDED = "ended"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """A certificate's status at a moment. `ends`: epoch seconds; `words`: for the user, empty while it is valid."""

    state: CertificateState
    ends: float
    words: str
    threshold: str
    """Identifies the warning, so that the user is told of it once."""

    @property
    def document(self) -> tuple[str, str]:
        """What `p2pmail status` prints: the state and the end (ISO 8601, UTC)."""
        return self.state.value, datetime.fromtimestamp(int(self.ends), UTC).isoformat()


def certificate_status(certificate: bytes, trust: TrustStore, now: float) -> CertificateStatus:
    """The status of our certificate (DER) at `now` (epoch seconds). Raises CertificateError if it can't be read."""
    parsed = parse_certificate(certificate)
    ends, day = parsed.not_after, _day(parsed.not_after)
    name = sha256(certificate).hexdigest()[:16]
    whose = f"The certificate of {parsed.address}"
    with suppress(CertificateExpired):
        try:
            trust.verify(certificate, now)
        except Revoked:
            return CertificateStatus(
                CertificateState.REVOKED,
                ends,
                f"{whose} was revoked: nobody takes mail from you any more, and you get none. Ask the person who"
                " runs the authority for a new invite, and paste it with `p2pmail join`.",
                f"{name} revoked",
            )
    if now > ends:
        return CertificateStatus(
            CertificateState.ENDED,
            ends,
            f"{whose} ended on {day}: you can't send or collect mail until it is renewed. p2pmail asks the authority"
            f" for that by itself until {_day(ends + GRACE)}; the person who runs it has to have `p2pmail authority"
            " serve` running. An invite pasted with `p2pmail join` renews it too.",
            f"{name} ended",
        )
    due = [step for step in WARNINGS if ends - now <= step]
    if not due:
        return CertificateStatus(CertificateState.VALID, ends, "", "")
    days = int((ends - now) // DAY)
    left = "today" if days < 1 else f"in {days} day{'s' if days > 1 else ''}, on {day}"
    return CertificateStatus(
        CertificateState.ENDING,
        ends,
        f"{whose} ends {left}, and the authority hasn't answered the requests to renew it. Ask the person who runs it"
        " to start `p2pmail authority serve`, or for an invite. After that day you can't send or collect mail.",
        f"{name} {min(due) / DAY:.0f}",
    )


def is_news(state: UserState, certificate: bytes, status: CertificateStatus) -> bool:
    """Whether the user must be told something new about our certificate. Notes that it was told.

    Also stores the certificate for commands that run without the passphrase. Raises DatabaseError.
    """
    if state.fact(CERTIFICATE_FACT) != certificate:
        state.keep_fact(CERTIFICATE_FACT, certificate)
    told = status.threshold.encode()
    if not told or state.fact(WARNED_FACT) == told:
        return False
    state.keep_fact(WARNED_FACT, told)
    return True


def check_may_send(identity: Identity, trust: TrustStore, now: float) -> None:
    """Raises CertificateExpired or Revoked if no recipient would accept mail from the user; NotJoined."""
    status = certificate_status(identity.owner.certificate, trust, now)
    if status.state is CertificateState.REVOKED:
        raise Revoked(status.words)
    if status.state is CertificateState.ENDED:
        raise CertificateExpired(status.words)


def known_trust(profile: Profile, now: float) -> TrustStore | None:
    """The profile's trusted authorities with the newest revocation list on disk; None before it has a network.

    Raises DatabaseError.
    """
    try:
        trust = TrustStore(read_network_file(profile.network_file).authorities)
    except (NoNetwork, NetworkFileError, CertificateError):
        return None
    if profile.state_file.exists():
        state = UserState(profile.state_file)
        try:
            kept = state.fact(REVOCATIONS_FACT)
        finally:
            state.close()
        with suppress(CertificateError):
            trust.accept_revocations(kept or b"", now)
    return trust


def remember_certificate(profile: Profile, certificate: bytes) -> None:
    """Store our new certificate for commands that run without the passphrase. Raises DatabaseError."""
    state = UserState(profile.state_file)
    try:
        state.keep_fact(CERTIFICATE_FACT, certificate)
    finally:
        state.close()


def stored_certificate_status(profile: Profile, now: float) -> tuple[str, str] | tuple[None, None]:
    """The state and end of our certificate as far as the disk tells without a passphrase. Never raises."""
    try:
        trust = known_trust(profile, now)
        if trust is None or not profile.state_file.exists():
            return None, None
        state = UserState(profile.state_file)
        try:
            certificate = state.fact(CERTIFICATE_FACT)
        finally:
            state.close()
        return (None, None) if certificate is None else certificate_status(certificate, trust, now).document
    except (DatabaseError, CertificateError) as error:
        log.info("the certificate's status isn't known: %s", error)
        return None, None


def check_may_accept(profile: Profile, identity: Identity, now: float) -> None:
    """Check before a message is accepted that it could be sent, judging by what is on disk.

    Raises CertificateExpired or Revoked if it couldn't, DatabaseError.
    """
    trust = known_trust(profile, now)
    if trust is not None and not identity.waiting:
        try:
            check_may_send(identity, trust, now)
        except (CertificateExpired, Revoked) as error:
            raise type(error)(f"{error} Nothing was accepted.") from error


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
