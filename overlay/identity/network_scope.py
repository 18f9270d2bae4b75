"""Decides whether a new network is private or public, from the addresses that its places to join resolve to.

A public network accepts global addresses only, and a node id costs a puzzle; a private one accepts loopback and private
ranges too. The decision is written to network.toml (overlay/identity/network.py) once, and nothing here changes it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overlay.identity.contact import parse_join, routable

Resolve = Callable[[str], Sequence[str]]
"""The IP addresses of a host; none when it can't be resolved."""

LOCAL = (".localhost", ".local", ".internal", ".home.arpa")
"""Domains that are only valid in a local network (RFC 6761, 6762, 8375)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The decision, its reasons, and a warning ("" when there is none), as text for a user."""

    private: bool
    words: str
    warning: str = ""


def resolved(host: str) -> list[str]:
    """Resolve a host name by the system's resolver; may take some seconds."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):  # UnicodeError: a label over 63 characters
        return []
    return list(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found))


def decide(join: Sequence[str], private: bool | None = None, resolve: Resolve = resolved) -> Scope:
    """Decide the scope of a network with these places to join; `private`: the founder's choice. Raises ValueError.

    It is private when no place is named, or any is private: such a network accepts global addresses too.
    """
    inside: list[str] = []
    outside: list[str] = []
    unknown: list[str] = []
    for place in join:
        host = parse_join(place)[0]
        addresses = _addresses(host, resolve)
        local = [ip for ip in addresses if not routable(ip, False)]
        shown = [ip if ip == host else f"{host} is {ip}" for ip in addresses]
        inside += [words for ip, words in zip(addresses, shown, strict=True) if ip in local]
        outside += [words for ip, words in zip(addresses, shown, strict=True) if ip not in local]
        if not addresses:
            (inside if _sounds_local(host) else unknown).append(host)
    is_private = (bool(inside) or not join) if private is None else private
    kind = _kind(is_private, chosen=private is not None)
    reasons = [
        *(["No place to join is named yet."] if not join else []),
        *([f"Private: {', '.join(inside)}."] if inside else []),
        *([f"Public: {', '.join(outside)}."] if outside else []),
        *([f"Couldn't be resolved: {', '.join(unknown)}."] if unknown else []),
    ]
    return Scope(is_private, " ".join([kind, *reasons]), _warning(is_private, inside, outside, unknown))


def is_private(host: str) -> bool:
    """Whether this is an IP address that only a local network reaches; false for names and for 0.0.0.0 or ::."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not address.is_unspecified and not routable(host, False)


def _kind(private: bool, *, chosen: bool) -> str:
    other = "" if chosen else f" (--{'public' if private else 'private'} says otherwise)"
    if private:
        return f"A private network{other}: addresses of a local network are taken, and new ids cost nothing."
    return f"A public network{other}: only addresses that the whole Internet reaches are taken."


def _warning(private: bool, inside: Sequence[str], outside: Sequence[str], unknown: Sequence[str]) -> str:
    if not private and inside and not outside and not unknown:
        return (
            f"NOBODY CAN JOIN: the network takes public addresses only, and its place to join is a private one"
            f" ({', '.join(inside)}). Found it with --private, or name a public address."
        )
    if inside and outside:
        return (
            f"Members outside your local network can't reach the private places ({', '.join(inside)}): name a public"
            " address first unless all members are in one local network."
        )
    if unknown:
        return f"{', '.join(unknown)} couldn't be resolved from here: whether anybody can join there isn't known."
    return ""


def _addresses(host: str, resolve: Resolve) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        return list(resolve(host))


def _sounds_local(host: str) -> bool:
    return host == "localhost" or host.endswith(LOCAL)
