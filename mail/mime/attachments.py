"""Makes the names of attachments safe, and saves their content without replacing a file.

A name from a message is hostile: it may be a path, a device, a command's option, or an override that reads backwards.
mail/mime/message.py decides which parts are attachments.
"""

from __future__ import annotations

import mimetypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mail.mime import content_decoding, parser, sanitize
from mail.mime.parser import Part
from storage import durable
from storage.errors import DATA, P2PMailError

NAME_LIMIT = 200
"""Bytes of a file name as UTF-8 (file systems allow 255), so that ` (1)` and a temporary name still fit."""
COPIES_LIMIT = 10_000
"""How many names are tried before saving fails."""

_FORBIDDEN = re.compile('[\x00-\x1f\x7f<>:"|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class AttachmentError(P2PMailError):
    """The attachment could not be saved; the text says why. Nothing was written."""

    exit_code = DATA


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment: safe name, media type, decoded bytes (mail.mime.content_decoding.size), number of its part.

    `within`: it lies in a message that is attached itself, so that who passes on that message passes it on too.
    """

    name: str
    content_type: str
    size: int
    index: int
    within: bool = False


def safe_name(name: str, fallback: str = "attachment") -> str:
    """`name` as a single file name, without folders, control characters, overrides, device names and leading dots or
    dashes. Never raises."""
    name = re.sub(r"<U\+[0-9A-F]{4}>", "_", sanitize.line(name[: 4 * NAME_LIMIT]))
    name = re.split(r"[/\\]", name)[-1]
    name = _FORBIDDEN.sub("_", name).strip(" .")
    if _DEVICES.fullmatch(name) or name.startswith(("-", "~")):
        name = f"_{name}"
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    suffix = suffix.encode()[:40].decode(errors="ignore")
    name = stem.encode()[: NAME_LIMIT - len(suffix.encode())].decode(errors="ignore").rstrip(" .") + suffix
    return name or fallback


def shown_name(part: Part) -> str:
    """The name under which an attachment is shown and saved; made up where the message gives none."""
    extension = ".eml" if part.content_type.startswith("message/") else mimetypes.guess_extension(part.content_type)
    return safe_name(part.file_name, f"part-{part.index}{extension or ''}")


def save_attachment(path: Path, index: int, target: Path) -> Path:
    """Save part `index` of the message at `path`, decoded, and return its path.

    `target` is a folder (the attachment's safe name is used) or a file that doesn't exist yet. If the name is taken,
    ` (1)`, ` (2)`... is appended; no file is ever replaced. Memory stays below 4 MiB. Raises AttachmentError, OSError.
    """
    with path.open("rb") as file:
        structure = parser.walk(file)
        if not 0 <= index < len(structure.parts):
            raise AttachmentError("The message has no such attachment; it may have been replaced. Nothing was saved.")
        part = structure.parts[index]
        folder, name = (target, shown_name(part)) if target.is_dir() else (target.parent, target.name)
        place = _claim(folder, name)
        try:
            # We made the empty file, so it may be replaced; replacing it in one step leaves no half on a full disk.
            with durable.writing(place) as out:
                content_decoding.copy(file, part, out)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
    return place


def _claim(folder: Path, name: str) -> Path:
    """Create an empty file in `folder` called `name`, or `name (n)` with the first free n; its path."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    for number in range(COPIES_LIMIT):
        place = folder / (f"{stem} ({number}){suffix}" if number else name)
        try:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        except FileExistsError:
            continue
        return place
    raise AttachmentError(f"There are too many files called {name} in {folder}. Nothing was saved.")
