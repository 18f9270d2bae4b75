"""The user's folders: Maildirs that other mail readers may open, change and clean while we work on them.

A file may be renamed, moved or deleted between any two of our steps, so nothing here trusts a name for longer than
one call, and what is gone is answered with None. What is in the messages, and the index of them, live elsewhere.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from storage import durable
from storage.errors import DATA, P2PMailError

STANDARD = ("Inbox", "Requests", "Archive", "Sent", "Drafts", "Junk", "Trash")
"""The folders that every profile has, in the order in which a reader shows them."""

QUARANTINE = "Quarantine"
"""Infected mail; lies outside the other folders, so that no other reader opens it by accident (paper 3.4)."""

STALE_TMP = 36 * 3600
"""Seconds after which a file in tmp/ belongs to a delivery that died (the Maildir specification's figure)."""

_LOOKS = 4
"""Looks at a folder that goes on changing; what the last one misses is found at the next update."""
_TICK = 0.012
"""Seconds: a little more than the step in which filesystems write times (Linux: 1 to 10 ms)."""
_COPY_CHUNK = 1024 * 1024
_TRIES = 4
"""How often a rename is tried again when another program was quicker; each of its renames costs us one try."""
_ADDITIONS = re.compile(r"(?:,[A-Za-z][A-Za-z0-9]*=[^,]*)+$")
"""What programs append to a name: mbsync its UID (",U=7"), Dovecot and Courier sizes (",S=1200,W=1234")."""

_INFO = re.compile("(?::|[;!]2,)")
"""Where flags begin. Windows has no colons in names: mbsync (InfoDelimiter) and others write ";" or "!" there."""
DEPTH = 8
"""Folders within folders that are looked for."""
FOLDERS = 1000
"""Folders that are shown."""

_counter = itertools.count()


class FolderError(P2PMailError):
    """A folder can't be used as asked; the message says why. Nothing was changed."""

    exit_code = DATA


class FolderEntry(NamedTuple):
    """A message in a folder: its lasting name, its flags (letters, sorted) and where it lies ("new" or "cur").

    The lasting name is what the message keeps when programs rename it: without the flags, and without what mbsync or
    Dovecot append (",U=7", ",S=1200").
    """

    unique: str
    flags: str
    subdir: str
    place: str
    """The path inside the folder, as in "cur/1700000000.M1P1.host,U=7:2,S"; true until the next rename."""

    @property
    def base(self) -> str:
        """The name without its flags, with what other programs appended: it is kept within the folder."""
        return _apart(self.place.partition("/")[2])[0]

    @property
    def separator(self) -> str:
        """What stands between name and flags: a colon, or ";" or "!" from where file names can't have colons."""
        return _apart(self.place.partition("/")[2])[1] or ":"


class FolderTimes(NamedTuple):
    """When new/ and cur/ last changed (nanoseconds); 0 where one is missing. Equal stamps, equal names."""

    new: int
    cur: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages in a folder, and how many of them are unread."""

    total: int = 0
    unread: int = 0


def entry_of(place: str) -> FolderEntry:
    """Take a path such as "cur/NAME,U=7:2,FS" apart."""
    subdir, _, name = place.partition("/")
    base, _, info = _apart(name)
    flags = [letter for letter in info[2:] if letter.isascii() and letter.isalpha()] if info.startswith("2,") else ""
    unique = (_ADDITIONS.sub("", base) or base) if "," in base else base
    return FolderEntry(unique, "".join(sorted(set(flags))), subdir, place)


def place_of(unique: str, flags: str, subdir: str = "cur", separator: str = ":") -> str:
    """The inverse of `entry_of`: in new/ a message has no flags and no info (Maildir specification)."""
    return f"new/{unique}" if subdir == "new" and not flags else f"cur/{unique}{separator}2,{check_flags(flags)}"


def _apart(name: str) -> tuple[str, str, str]:
    """A file's name as its base, the separator ("" without one) and what follows it.

    A program that didn't understand another one's name appends flags once more: all of them count, and the next rename
    leaves one suffix.
    """
    found = _INFO.search(name)
    return (name[: found.start()], found.group()[0], name[found.start() + 1 :]) if found else (name, "", "")


def check_flags(flags: str) -> str:
    """The flags sorted and once each; raises FolderError for what isn't a letter."""
    if not all(letter.isascii() and letter.isalpha() for letter in flags):
        raise FolderError(f"{flags!r} are no message flags: only letters can be.")
    return "".join(sorted(set(flags)))


class Folders:
    """All Maildirs under `root`, and others that lie elsewhere (`outside`: name -> path)."""

    def __init__(
        self, root: Path, outside: Mapping[str, Path] | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.root = root
        self._outside = dict(outside or {})
        self._now = now
        self._found: dict[str, Path] = {}
        """Where those folders lie whose names aren't their paths: within others, Maildir++, names that are no UTF-8."""
        host = socket.gethostname() or "localhost"
        self._host = host.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")

    def create(self, *names: str) -> None:
        """Make these folders (the standard ones when none are named); those that exist stay as they are."""
        for name in names or (*STANDARD, *self._outside):
            for subdir in ("tmp", "new", "cur"):
                durable.make_folder(self.folder(name) / subdir)

    def names(self) -> list[str]:
        """The folders there are: the standard ones first, then the user's by name, then those outside.

        A folder within another is called "Work/Projects", whether it lies in Work's folder or is a Maildir++ folder
        (".Work.Projects"). A name that is no UTF-8 has U+FFFD where it can't be read. All keep the form that they have.
        """
        places = dict(islice(_maildirs(self.root, "", 0), FOLDERS))
        self._found = {name: path for name, path in places.items() if path != self.root / name or "/" in name}
        found = set(places)
        ordered = [name for name in STANDARD if name in found]
        ordered += sorted(found.difference(STANDARD, self._outside), key=str.casefold)
        return ordered + [name for name, path in self._outside.items() if _is_maildir(path)]

    def folder(self, name: str) -> Path:
        """Where the folder lies, whether or not it exists. Raises FolderError for a name that can't be one."""
        if name in self._outside:
            return self._outside[name]
        if name not in self._found and ("/" in name or "\ufffd" in name):
            self.names()
        if name in self._found:
            return self._found[name]
        if not name or name.startswith(".") or "/" in name or "\0" in name or len(os.fsencode(name)) > 200:
            raise FolderError(f"{name!r} can't be the name of a folder.")
        return self.root / name

    # -- looking

    def times(self, name: str) -> FolderTimes:
        """When the folder's names last changed. Two stamps of one moment may hide a change: see `Index.update`."""
        folder = self.folder(name)
        return FolderTimes(_changed(folder / "new"), _changed(folder / "cur"))

    def places(self, name: str) -> set[str]:
        """Every message of the folder as "new/NAME" or "cur/NAME:2,FLAGS"; reads names only, opens nothing.

        A name that another program changes during the look may be in neither form, and the message would seem gone;
        so a look during which the folder changed, or may have, is taken again.
        """
        folder = self.folder(name)
        found: set[str] = set()
        for _ in range(_LOOKS):
            before = self.times(name)
            found = _names(folder)
            if self.times(name) == before and abs(time.time_ns() - max(before)) > _TICK * 1e9:
                break
            time.sleep(_TICK)
        return found

    def scan(self, name: str) -> Iterator[FolderEntry]:
        """Every message of the folder, in no order; a message that is renamed meanwhile may be missed."""
        return map(entry_of, self.places(name))

    def counts(self, name: str) -> Counts:
        """How many messages, and how many unread, counted in the folder itself (the index is quicker)."""
        entries = list(self.scan(name))
        return Counts(len(entries), sum("S" not in entry.flags for entry in entries))

    def find(self, name: str, unique: str, known: str = "") -> FolderEntry | None:
        """The message, whatever its flags are now and whatever a program appended to its name.

        `known`: its place as last seen. It spares the search through the folder, and tells which message is meant
        where several have one unique name (copies, programs that number files). None when the message is gone, or
        when it isn't at `known` any more and several could be it.
        """
        folder = self.folder(name)
        for place in (known,) if known else (f"cur/{unique}:2,S", f"new/{unique}", f"cur/{unique}:2,"):
            if (folder / place).exists():
                return entry_of(place)
        for _ in range(2):  # a rename during the first look can hide the name from it
            candidates = [place for place in self.places(name) if place.startswith(unique, len("cur/"))]
            found = [entry for entry in map(entry_of, candidates) if entry.unique == unique]
            if len(found) > 1 and known:
                base = entry_of(known).base
                alike = [entry for entry in found if entry.base == base]
                found = alike if len(alike) == 1 else []
            if found:
                return found[0]
        return None

    def find_anywhere(self, unique: str) -> tuple[str, FolderEntry] | None:
        """The folder that holds the message, and the message; None when no folder does."""
        for name in self.names():
            entry = self.find(name, unique)
            if entry is not None:
                return name, entry
        return None

    def path(self, name: str, unique: str, known: str = "") -> Path | None:
        """Where the message lies now; None when it is gone. It may be renamed before you open it: see `open`."""
        entry = self.find(name, unique, known)
        return None if entry is None else self.folder(name) / entry.place

    def open(self, name: str, unique: str, known: str = "") -> BinaryIO | None:
        """The message, open for reading; None when it is gone. Raises OSError when it can't be read."""
        for _ in range(_TRIES):
            path = self.path(name, unique, known)
            if path is None:
                return None
            with suppress(FileNotFoundError):
                return path.open("rb")
        return None

    # -- changing

    def new_unique(self) -> str:
        """A name that no other message has (Maildir: seconds, microseconds, process, counter, random, host)."""
        seconds, fraction = divmod(self._now(), 1)
        unique = f"{int(seconds)}.M{int(fraction * 1e6)}P{os.getpid()}Q{next(_counter)}R{secrets.token_hex(4)}"
        return f"{unique}.{self._host}"

    def add(
        self,
        name: str,
        source: bytes | Path,
        flags: str = "",
        received: float | None = None,
        *,
        consume: bool = False,
        unique: str | None = None,
    ) -> str:
        """File a message, byte for byte; returns its unique name once it is on disk for good.

        A Path is copied in pieces, or with `consume` moved here (it must not be written to any more). `received`
        becomes the file's time. `unique` (from `new_unique`) lets a caller who noted it first find out after a
        crash whether the message was filed. Raises OSError; then nothing was filed and the source is untouched.
        """
        unique = unique or self.new_unique()
        folder = self.folder(name)
        target = folder / place_of(unique, flags, "cur" if flags else "new")
        if consume and isinstance(source, Path) and _link(source, target, received):
            source.unlink(missing_ok=True)
            return unique
        temporary = folder / "tmp" / unique
        try:
            with durable.writing(temporary) as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    with source.open("rb") as original:
                        shutil.copyfileobj(original, file, _COPY_CHUNK)
                file.flush()
                if received is not None:
                    os.utime(file.fileno(), (received, received))
            durable.move(temporary, target)
        except OSError:
            for half_done in (temporary, target):
                with suppress(OSError):
                    half_done.unlink(missing_ok=True)
            raise
        if consume and isinstance(source, Path):
            source.unlink(missing_ok=True)
        return unique

    def stage(self, name: str, source: Path, head: bytes = b"") -> str:
        """Put a durable copy of a message where no program sees it yet (tmp/); its unique name, for `publish`.

        `head`: header fields to put above the message's. Raises OSError, FolderError; then nothing is there.
        """
        unique = self.new_unique()
        target = self._existing(name) / "tmp" / unique
        try:
            with durable.writing(target) as file, source.open("rb") as original:
                file.write(head)
                shutil.copyfileobj(original, file, _COPY_CHUNK)
        except BaseException:
            with suppress(OSError):
                target.unlink(missing_ok=True)
            raise
        return unique

    def unstage(self, name: str, unique: str) -> None:
        """Remove what was staged. Raises OSError."""
        (self.folder(name) / "tmp" / unique).unlink(missing_ok=True)

    def publish(self, name: str, unique: str, flags: str) -> bool:
        """Show what was staged, durably, with these flags; whether it is there. Raises OSError."""
        folder = self.folder(name)
        try:
            durable.move(folder / "tmp" / unique, folder / place_of(unique, flags))
        except FileNotFoundError:
            return self.find(name, unique, flags) is not None
        return True

    def change_flags(
        self, name: str, unique: str, add: str = "", remove: str = "", known: str = ""
    ) -> FolderEntry | None:
        """Add and remove flags, keeping what other programs set meanwhile. None when the message is gone."""
        changed = self.reflag(name, unique, add, remove, known)
        return None if changed is None else changed[1]

    def reflag(
        self, name: str, unique: str, add: str = "", remove: str = "", known: str = ""
    ) -> tuple[FolderEntry, FolderEntry] | None:
        """As `change_flags`; returns the message as it was found and as it is now. `known`: see `find`.

        Renames within the folder, taking up what another program did meanwhile. Flags aren't synced to disk.
        """
        check_flags(remove)
        for _ in range(_TRIES):
            entry = self.find(name, unique, known)
            if entry is None:
                return None
            wanted = check_flags("".join({*entry.flags, *add} - {*remove}))
            if wanted == entry.flags and (entry.subdir == "cur" or not wanted):
                return entry, entry
            renamed = self._free(name, entry.base, wanted, "cur", entry.separator)
            with suppress(FileNotFoundError):
                (self.folder(name) / entry.place).rename(self.folder(name) / renamed.place)
                return entry, renamed
        return None

    def move(self, name: str, unique: str, target: str, known: str = "") -> FolderEntry | None:
        """Move the message to another folder, durably, flags kept. None when it is gone.

        What another program appended to the name stays behind: mbsync's UID means something in its folder only. A
        name that is a mere number, as programs give that count, is replaced by a unique one.
        """
        for _ in range(_TRIES):
            entry = self.find(name, unique, known)
            if entry is None or name == target:
                return entry
            lasting = entry.unique if "." in entry.unique else self.new_unique()
            moved = self._free(target, lasting, entry.flags, entry.subdir)
            with suppress(FileNotFoundError):
                durable.move(self.folder(name) / entry.place, self._existing(target) / moved.place)
                return moved
        return None

    def remove(self, name: str, unique: str, known: str = "") -> bool:
        """Delete the message for good; False when it was gone already. (To Trash or not is the caller's decision.)"""
        for _ in range(_TRIES):
            path = self.path(name, unique, known)
            if path is None:
                return False
            with suppress(FileNotFoundError):
                path.unlink()  # not synced: what a power cut brings back is a message, not a loss
                return True
        return False

    def sweep(self) -> int:
        """Remove what deliveries that died left in tmp/ for over 36 hours; returns how many."""
        swept = 0
        for name in self.names():
            with suppress(FileNotFoundError), os.scandir(self.folder(name) / "tmp") as items:
                for item in items:
                    with suppress(OSError):
                        if self._now() - item.stat().st_mtime > STALE_TMP:
                            Path(item.path).unlink()
                            swept += 1
        return swept

    # -- inside

    def _free(self, name: str, base: str, flags: str, subdir: str, separator: str = ":") -> FolderEntry:
        """A place in the folder that no file has: a rename would silently replace the other message.

        Programs that number their files ("1", "2") give the same unique name to messages of different folders.
        """
        place = place_of(base, flags, subdir, separator)
        if os.path.lexists(self.folder(name) / place):
            place = place_of(self.new_unique(), flags, subdir)
        return entry_of(place)

    def _existing(self, name: str) -> Path:
        """The folder, made when it isn't there, so that only the message can be what's missing."""
        folder = self.folder(name)
        if not _is_maildir(folder):
            self.create(name)
        return folder


def _names(folder: Path) -> set[str]:
    found: set[str] = set()
    for subdir in ("new", "cur"):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / subdir) as items:
            found.update([f"{subdir}/{item.name}" for item in items if item.name[0] != "."])
    return found


def delivery_time(place: str) -> int:
    """The second of delivery that Maildir names begin with; 0 for a name that doesn't."""
    digits = place.partition("/")[2].partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0


def _maildirs(parent: Path, prefix: str, depth: int) -> Iterator[tuple[str, Path]]:
    """The Maildirs within a folder, each with the name that it is shown by; of two with one name the first."""
    try:
        with os.scandir(parent) as items:
            inside = sorted((item for item in items if item.is_dir()), key=lambda item: item.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for item in inside:
        if item.name in ("cur", "new", "tmp") and prefix:
            continue
        shown = os.fsencode(item.name).decode("utf-8", "replace")
        if shown.startswith("."):
            shown = shown[1:].replace(".", "/")
            if depth or not shown.strip("/"):
                continue
        path = Path(item.path)
        if _is_maildir(path):
            yield prefix + shown, path
        if depth < DEPTH and not item.is_symlink():
            yield from _maildirs(path, f"{prefix}{shown}/", depth + 1)


def _is_maildir(path: Path) -> bool:
    return (path / "cur").is_dir() and (path / "new").is_dir()


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _link(source: Path, target: Path, received: float | None) -> bool:
    """Give the file at `source` the second name `target`, durably; False where it must be copied instead.

    A link never replaces a file, and leaves the source in place if the disk fails before the name is safe.
    """
    handle = os.open(source, os.O_RDONLY)
    try:
        os.fchmod(handle, 0o600)
        if received is not None:
            os.utime(handle, (received, received))
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        target.hardlink_to(source)
    except OSError:  # another filesystem, or one without links
        return False
    try:
        durable.sync_folder(target.parent)
    except OSError:
        target.unlink(missing_ok=True)
        raise
    return True
