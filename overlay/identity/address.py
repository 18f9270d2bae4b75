"""E-mail addresses, in the one normalised form that keys are derived from (design section 2).

This module normalises what a person typed, or says why it isn't an address. It doesn't parse header syntax (display
names, lists, comments): callers pass the bare address.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import idna

from overlay.errors import OverlayError
from storage.errors import USAGE

LOCAL_LIMIT = 64
"""Octets of UTF-8 before the @ (RFC 5321 section 4.5.3.1.1)."""

DOMAIN_LIMIT = 253
"""Octets of a domain as A-labels: RFC 5321 allows 255, the DNS carries 253 (RFC 1035 section 2.3.4)."""

ADDRESS_LIMIT = 254
"""Octets of an address: a path is 256 with its angle brackets (RFC 5321 section 4.5.3.1.3)."""

INPUT_LIMIT = 1024
"""Characters of input that are accepted; mapping may shorten a text, but never by this much for a real address."""

_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~")


class AddressError(OverlayError, ValueError):
    """This is not an e-mail address; the message says what is wrong with it."""

    exit_code = USAGE


@lru_cache(maxsize=8192)
def split_address(text: str) -> tuple[str, str]:
    """The normalised (local part, domain) of a bare address.

    Local part: NFC, lower case, a dot-atom of RFC 5321 or RFC 6531 (quoted local parts are refused: people don't
    have them, and programs disagree on how to read them). Domain: mapped by UTS 46, as lower-case A-labels.
    Normalising is idempotent. Raises AddressError.
    """
    if len(text) > INPUT_LIMIT:
        raise AddressError(f"The address is too long: at most {ADDRESS_LIMIT} bytes are allowed.")
    text = text.strip(" ")
    local, at, domain = text.rpartition("@")
    if not at:
        raise AddressError("The address has no @.")
    if not local:
        raise AddressError("The address has nothing before the @.")
    if not domain:
        raise AddressError("The address has nothing after the @.")
    local, domain = _local(local), _domain(domain)
    if len(local.encode()) + 1 + len(domain) > ADDRESS_LIMIT:
        raise AddressError(f"The address is too long: at most {ADDRESS_LIMIT} bytes are allowed.")
    return local, domain


def normalise_address(text: str) -> str:
    """The normalised form of a bare address, as in keys and certificates; see split_address. Raises AddressError."""
    local, domain = split_address(text)
    return f"{local}@{domain}"


def _local(text: str) -> str:
    # Lower-casing may leave NFC, and composing may produce a capital: repeat both until nothing changes.
    local = unicodedata.normalize("NFC", text)
    for _ in range(4):
        lowered = unicodedata.normalize("NFC", local.lower())
        if lowered == local:
            break
        local = lowered
    for character in local:
        if character in _ATEXT or character == ".":
            continue
        # Beyond ASCII: letters, marks, digits and symbols; no control, format, space or surrogate characters.
        if character < "\x80" or unicodedata.category(character)[0] in "CZ":
            raise AddressError(f"The address has a character before the @ that is not allowed: {_name(character)}.")
    if local.startswith(".") or local.endswith(".") or ".." in local:
        raise AddressError("The part before the @ begins or ends with a dot, or has two in a row.")
    if len(local.encode()) > LOCAL_LIMIT:
        raise AddressError(f"The part before the @ is too long: at most {LOCAL_LIMIT} bytes are allowed.")
    return local


def _domain(text: str) -> str:
    if text.startswith("["):
        raise AddressError("The address has an IP address after the @; a name is needed.")
    try:
        domain = idna.encode(text, uts46=True, std3_rules=True).decode("ascii").lower()
    except (UnicodeError, IndexError) as error:
        raise AddressError(f"The part after the @ is not a domain name: {_printable(str(error))}.") from None
    if domain.endswith("."):
        raise AddressError("The part after the @ ends with a dot.")
    if len(domain) > DOMAIN_LIMIT:
        raise AddressError(f"The part after the @ is too long: at most {DOMAIN_LIMIT} bytes are allowed.")
    return domain


def _name(character: str) -> str:
    """The character for an error message; a code point where it isn't printable, so could be a control sequence."""
    if character.isprintable():
        return character
    return f"U+{ord(character):04X}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:120]).rstrip(".")
