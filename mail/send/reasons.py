"""Texts that tell the user what happened to a message, and why. Values in, texts out."""

from __future__ import annotations

from collections.abc import Sequence

from mail.directory import NobodyElse
from overlay.errors import Offline
from storage.user.outbox import Recipient, State

NAMED = 5
"""Addresses that a text names; for the rest it gives a number."""


def refusal_reason(refusals: tuple[str, ...]) -> str:
    """Why no node accepted it."""
    return "; ".join(refusals) or "None of the nodes that should keep it answered."


def failure_notices(subject: str, recipients: Sequence[Recipient]) -> list[str]:
    """What the user is told about recipients whose copy has failed or expired: one text for each outcome and reason."""
    together: dict[tuple[State, str], list[Recipient]] = {}
    for recipient in recipients:
        alike = recipient.state, recipient.reason.replace(recipient.address, "the address")
        together.setdefault(alike, []).append(recipient)
    return [
        f'"{subject or "(no subject)"}" to {_some([r.address for r in those])} {state}:'
        f" {those[0].reason if len(those) == 1 else reason} Your copy is in Sent."
        for (state, reason), those in together.items()
    ]


def _some(addresses: Sequence[str]) -> str:
    named = ", ".join(addresses[:NAMED])
    return named if len(addresses) <= NAMED else f"{named} and {len(addresses) - NAMED} more"


def error_reason(error: BaseException) -> str:
    """Why a message wasn't sent, and what happens next where that isn't obvious."""
    if isinstance(error, Offline):
        return f"{error} It will be sent when the network is back."
    if isinstance(error, NobodyElse):
        return f"{error} It will be sent when its recipient has joined."
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
