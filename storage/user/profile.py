"""Where everything of one user lies on disk, and the settings.

The paths, the settings file (config.toml) and the locks that keep two processes from doing the same work. What is in
the files is known to their own modules.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from storage import durable
from storage.errors import CONFIGURATION, TEMPORARY, P2PMailError
from storage.user.folders import QUARANTINE, Folders

GIB = 1024**3

_SOCKET_PATH = 100
"""Bytes that the path of a Unix socket may have everywhere (Linux takes 107, others 103)."""

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": GIB, "t": 1024**4}


class ProfileError(P2PMailError):
    """The profile can't be used; the message says which file, and what to do."""

    exit_code = CONFIGURATION


class ConfigError(ProfileError):
    """The settings can't be read as they are; nothing was changed."""

    exit_code = CONFIGURATION


class ProfileBusy(ProfileError):
    """Another process of this profile is doing that already."""

    exit_code = TEMPORARY


TARGET = 0.999
TARGETS = (0.99, 0.99999)
"""Lowest and highest target (paper, Figure 2)."""


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of config.toml, each with the value that it has when the file doesn't name it."""

    listen: str = "*:0"
    """HOST:PORT for the node; * is every address, IPv6 and IPv4, port 0 takes a free one."""
    mode: Literal["auto", "node", "client"] = "auto"
    """auto: a node while others can reach this computer, else a client."""
    join: tuple[str, ...] = ()
    """HOST:PORT[/KEY] of nodes to join by, besides those of the network file."""
    quota: int = GIB
    """Bytes that the node keeps for others; the file may say "500 MiB"."""
    poll: float = 60.0
    """Seconds between two looks into the inbox."""
    target: float = TARGET
    """The probability with which what the user does shall succeed: p_t of the paper's section 4."""
    known_spammers: tuple[str, ...] = ()
    """Addresses, or domains as in "@example.org", whose mail goes to Junk."""
    requests: bool = False
    """Reserved: mail of people one hasn't written to is to go to Requests first; nothing reads it yet."""
    clamd: str = ""
    """The socket of ClamAV's clamd; where empty the usual places are tried."""
    screen: dict[str, object] = field(default_factory=dict)
    """The table [screen], which the screen reads for itself."""


def parse_config(text: str) -> Config:
    """Read config.toml. Raises ConfigError for what isn't TOML, isn't a setting, or is no value for it."""
    import msgspec  # not needed where there is no file, and 25 ms

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config.toml is not valid TOML: {error}.") from error
    known = [item.name for item in fields(Config)]
    for name in values:
        if name not in known:
            raise ConfigError(f"config.toml: {name!r} is no setting; there are {', '.join(known)}.")
    if isinstance(values.get("quota"), str):
        values["quota"] = _size(values["quota"])
    try:
        config = msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"config.toml: {str(error).replace('`$.', '`')}.") from error
    if config.quota < 0 or not 0 < config.poll < 1e9:
        raise ConfigError("config.toml: quota can't be below 0, and poll must be above 0.")
    low, high = TARGETS
    if not low <= config.target <= high:
        raise ConfigError(f"config.toml: target is {config.target:g}; it must be {low} to {high}.")
    return config


def _size(text: str) -> int:
    match = re.fullmatch(r"\s*(\d{1,15})\s*([kmgt]?)i?b?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f'config.toml: quota must be bytes, or a text such as "500 MiB", not {text!r}.')
    return int(match[1]) * _UNITS[match[2].lower()]


class Profile:
    """One user's folder. Nothing is created before `create`."""

    def __init__(self, root: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> None:
        """`root`: the folder; else the environment's P2PMAIL_PROFILE, else where platformdirs puts user data."""
        chosen = root or environ.get("P2PMAIL_PROFILE")
        if not chosen:
            import platformdirs

            chosen = platformdirs.user_data_path("p2pmail")
        self.root = Path(chosen).expanduser().absolute()
        self._runtime = environ.get("XDG_RUNTIME_DIR")
        self._config: Config | None = None

    def create(self) -> None:
        """Make the profile's folders, readable by the user alone; what exists stays. Raises ProfileError."""
        try:
            for folder in (self.root, self.mail, self.node_folder, self.spool, self.outbox_folder):
                durable.make_folder(folder)
            self.folders().create()
        except OSError as error:
            raise ProfileError(f"The profile {self.root} can't be made: {error.strerror}.") from error

    @property
    def exists(self) -> bool:
        """Whether somebody has a profile here already."""
        return self.mail.is_dir()

    # -- settings

    @property
    def config(self) -> Config:
        """The settings, read once. Raises ConfigError."""
        if self._config is None:
            try:
                self._config = parse_config(self.config_file.read_text("utf-8"))
            except FileNotFoundError:
                self._config = Config()
            except UnicodeDecodeError as error:
                raise ConfigError(f"{self.config_file} is not UTF-8 text.") from error
            except OSError as error:
                raise ConfigError(f"{self.config_file} can't be read: {error.strerror}.") from error
        return self._config

    def change_config(self, **settings: object) -> Config:
        """Write these settings into config.toml, durably; None takes one out. Comments in the file are lost.

        Raises ConfigError for a value that can't be; the file is then as it was.
        """
        import tomli_w

        self._config = None
        written = self.config and self.config_file.exists()  # what can't be read isn't written over
        values = tomllib.loads(self.config_file.read_text("utf-8")) if written else {}
        values.update(settings)
        try:
            text = tomli_w.dumps({name: value for name, value in values.items() if value is not None})
        except TypeError as error:
            raise ConfigError(f"These settings can't be written as TOML: {error}.") from error
        config = parse_config(text)
        durable.make_folder(self.root)
        durable.write(self.config_file, text.encode())
        self._config = config
        return config

    # -- places

    @property
    def config_file(self) -> Path:
        """The settings."""
        return self.root / "config.toml"

    @property
    def network_file(self) -> Path:
        """This profile's copy of the network file: which authorities to trust, where to join."""
        return self.root / "network.toml"

    @property
    def keyring_file(self) -> Path:
        """The keys (storage/user/keyring.py)."""
        return self.root / "keyring"

    @property
    def mail(self) -> Path:
        """The folder of the mail folders."""
        return self.root / "mail"

    @property
    def quarantine(self) -> Path:
        """Infected mail, outside `mail`, so that no other reader opens it by accident."""
        return self.root / "quarantine"

    @property
    def index_file(self) -> Path:
        """The index of all mail (storage/user/index.py)."""
        return self.root / "index.sqlite"

    @property
    def outbox_folder(self) -> Path:
        """What is to be sent: its database and the messages."""
        return self.root / "outbox"

    @property
    def outbox_file(self) -> Path:
        """The outbox (storage/user/outbox.py)."""
        return self.outbox_folder / "outbox.sqlite"

    @property
    def state_file(self) -> Path:
        """Small facts that must not be forgotten (storage/user/state.py)."""
        return self.root / "state.sqlite"

    @property
    def node_folder(self) -> Path:
        """What the node keeps for others, its key and its routing state."""
        return self.root / "node"

    @property
    def spool(self) -> Path:
        """Files that are on their way, on the same filesystem as the mail."""
        return self.root / "spool"

    @property
    def control_socket(self) -> Path:
        """Where `status` asks the running node: elsewhere when the path is longer than a socket's may be.

        Raises ProfileError when the folder for it isn't the user's alone (somebody else could answer there).
        """
        path = self.root / "control.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH:
            return path
        folder = Path(self._runtime or f"/tmp/p2pmail-{os.getuid()}")  # noqa: S108 - checked below
        durable.make_folder(folder)
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise ProfileError(f"{folder} is open to others; set XDG_RUNTIME_DIR or shorten the profile's path.")
        return folder / f"p2pmail-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]}.sock"

    def folder(self, name: str) -> Path:
        """Where a mail folder lies (Quarantine too). Raises folders.FolderError."""
        return self.folders().folder(name)

    def folders(self) -> Folders:
        """The mail folders of this profile."""
        return Folders(self.mail, {QUARANTINE: self.quarantine})

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Be the only process of this profile that does `name` ("agent", "outbox"), until it ends or dies.

        Raises ProfileBusy at once when another one is at it.
        """
        folder = self.root / "locks"
        durable.make_folder(folder)
        handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                who = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
                raise ProfileBusy(
                    f"Another p2pmail{f' (process {who})' if who.isdigit() else ''} works on the {name} of {self.root}."
                    " Use that one, stop it, or choose another profile with --profile."
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)
