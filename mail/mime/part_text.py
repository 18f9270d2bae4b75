"""Says what a part holds that isn't plain text or HTML: a message in a message, an invitation, a delivery report ...

Nothing that is shown may look empty: what can't be read is named for what it is. Each function takes decoded text, and
none raises. mail/mime/body_text.py puts the texts together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mail.mime import calendar, headers
from mail.mime.flowed import unflowed
from mail.mime.parser import Part

CARDS = 20
"""vCards of one part that are shown."""

_CARD_LINES = {
    "FN": "Name",
    "ORG": "Organisation",
    "TITLE": "Title",
    "EMAIL": "E-mail",
    "TEL": "Phone",
    "ADR": "Address",
    "URL": "Link",
    "NOTE": "Note",
}
_FOLD = re.compile(r"\r?\n[ \t]")
_ENRICHED = re.compile(r"<(/?)([A-Za-z-]{1,60})>")
_ACTIONS = {
    "failed": "It could not be delivered to",
    "delayed": "It is not delivered yet, and is tried again, to",
    "delivered": "It was delivered to",
    "relayed": "It was passed on, to a system that sends no reports, for",
    "expanded": "It was delivered to the list",
}
_SAYS = {
    "application/ms-tnef": "Outlook's winmail.dat: text and files in Microsoft's own format. Save it to open it.",
    "application/pgp-encrypted": "",
    "application/pgp-signature": "Signed with OpenPGP. p2pmail does not check such signatures.",
    "application/pkcs7-signature": "Signed with S/MIME. p2pmail does not check such signatures.",
    "application/x-pkcs7-signature": "Signed with S/MIME. p2pmail does not check such signatures.",
    "application/pkcs7-mime": "Encrypted or signed with S/MIME. p2pmail can't open it; save it to open it.",
    "application/x-pkcs7-mime": "Encrypted or signed with S/MIME. p2pmail can't open it; save it to open it.",
    "multipart/encrypted": "Encrypted with OpenPGP. p2pmail can't open it; save it to open it with gpg.",
    "message/external-body": "A part of this message is kept elsewhere, and is not fetched.",
    "message/partial": "A piece of a message that was sent in several; p2pmail does not put them together.",
}


def says(part: Part) -> str:
    """What is said of a part whose content isn't shown; "" for an ordinary attachment."""
    words = _SAYS.get(part.content_type, "")
    return f"[{words}]" if words else ""


def of(part: Part) -> Callable[[str], str] | None:
    """What makes the text to show from the decoded text of a part, or None when it has no text to show.

    HTML isn't among them: mail/mime/body_text.py renders it.
    """
    if part.content_type in _READERS:
        return _READERS[part.content_type]
    if part.content_type == "text/plain" and part.parameters.get("format", "").lower() == "flowed":
        delete = part.parameters.get("delsp", "").lower() == "yes"
        return lambda text: unflowed(text.replace("\r\n", "\n"), delete_space=delete)
    # RFC 2046, section 4.1.4: an unknown kind of text is text. Rich text is a program's format, not one to read.
    if part.content_type.startswith("text/") and part.content_type not in ("text/html", "text/rtf"):
        return str
    # A multipart without parts has no boundary, or one that never occurs: its bytes are all there is to show.
    return str if part.content_type.startswith("multipart/") and not part.children else None


def forwarded(part: Part) -> str:
    """The lines above a message within a message: who wrote it, to whom, when and about what."""
    found = part.headers
    rows = [
        (name, ", ".join(headers.text(value) for value in found.all(name.lower())))
        for name in ("From", "To", "Cc", "Date", "Subject")
    ]
    return "\n".join(["---------- Message ----------", *(f"{name}: {value}" for name, value in rows if value)])


def _delivery_report(text: str) -> str:
    """A delivery report's fields (RFC 3464) as sentences."""
    told: list[str] = []
    for group in re.split(r"\r?\n\r?\n", _FOLD.sub(" ", text.strip())):
        fields = _fields(group, ":")
        address = fields.get("original-recipient") or fields.get("final-recipient", "")
        address = address.rpartition(";")[2].strip()
        if not address:
            continue
        action = fields.get("action", "").lower()
        line = f"{_ACTIONS.get(action, action or 'A report')} {address}."
        reason = fields.get("diagnostic-code", "").partition(";")[2].strip() or fields.get("diagnostic-code", "")
        detail = " ".join(filter(None, (fields.get("status", ""), reason)))
        told.append(f"{line} {detail}".rstrip())
    return "\n".join(told) or text


def _disposition(text: str) -> str:
    """A read receipt's fields (RFC 8098) as a sentence."""
    fields = _fields(_FOLD.sub(" ", text), ":")
    what = fields.get("disposition", "").rpartition(";")[2].strip()
    who = fields.get("final-recipient", "").rpartition(";")[2].strip()
    return f"Receipt: {what or 'opened'} by {who or 'the recipient'}." if fields else text


def _fields(text: str, separator: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(separator)
        if colon:
            found.setdefault(name.strip().lower(), value.strip())
    return found


def _card(text: str) -> str:
    """vCards (RFC 6350) as lines; photos and keys are left out."""
    lines: list[str] = []
    cards = 0
    for line in _FOLD.sub("", text).splitlines():
        name, colon, value = line.partition(":")
        label = _CARD_LINES.get(name.partition(";")[0].rpartition(".")[2].upper())
        if name.upper() == "BEGIN":
            cards += 1
            if cards > CARDS:
                lines.append("[More contacts are not shown; save the attachment to see them.]")
                break
            lines += ["", "Contact"] if lines else ["Contact"]
        elif label and colon:
            shown = ", ".join(filter(None, re.split(r"(?<!\\);", value))).replace("\\,", ",").replace("\\n", " ")
            lines.append(f"  {label}: {shown}")
    return "\n".join(lines) if len(lines) > cards else text


def _enriched(text: str) -> str:
    """text/enriched (RFC 1896) without its commands."""
    text = re.sub(r"<param>[^<]{0,1000}</param>", "", text, flags=re.IGNORECASE).replace("<<", "\x00")
    return _ENRICHED.sub("", text).replace("\x00", "<")


_READERS: Mapping[str, Callable[[str], str]] = {
    "text/calendar": calendar.in_words,
    "text/vcard": _card,
    "text/x-vcard": _card,
    "text/directory": _card,
    "text/enriched": _enriched,
    "text/richtext": _enriched,
    "message/delivery-status": _delivery_report,
    "message/global-delivery-status": _delivery_report,
    "message/disposition-notification": _disposition,
    "message/feedback-report": str,
    "text/rfc822-headers": str,
}
