"""One user's profile and the programs that work on it: the agent, commands, and what else runs on that computer.

A user agent is used by one thread. What it does to the profile is what a person or a fault does; what must then be
true of the mail is claims.py's.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.real.journey.claims import Answered, Claim, Claims, Copy, Finding, Shelf, Whereabouts
from tests.real.journey.forking import Command, CommandHangs, Forker
from tests.real.journey.neighbours import Mbsync, NeighbourFailed, Neomutt, SettableClock
from tests.real.programs import CommandResult, GivenUp, until

POLL = 5
"""Seconds between two looks of an agent into its inbox."""
DOCUMENTED = {0, 64, 65, 69, 70, 73, 75, 77, 78, 130}
TRIES = 6
"""How often a message that wasn't taken is handed in again, as a mail program's queue does."""
_FAULT = re.compile(r"fault of p2pmail|Traceback \(most recent call last\)")
SETTINGS = f"poll = {POLL}\n"


class JourneyUserAgent:
    """A member at work. `end` stops what runs."""

    def __init__(self, address: str, profile: Path, aside: Path, claims: Claims, rng: random.Random) -> None:
        """`aside`: a folder of this user agent beside the profile, for logs, backups, messages to be sent."""
        self.address = address
        self.profile = profile
        self.aside = aside
        self.rng = rng
        self.claims = claims
        self.where = Whereabouts(address, profile)
        self.counts: Counter[str] = Counter()
        """What happened here, by its name."""
        self.clock: SettableClock | None = None
        self.neomutt: Neomutt | None = None
        self.mbsync: Mbsync | None = None
        self.small_disk = False
        self.watches = True
        """Whether an agent runs here as a rule."""
        self._agent: Command | None = None
        self._forker: Forker | None = None
        self._took = 1.0
        self._backup: Path | None = None
        self._backup_is_due = False

    # -- programs

    def begin(self) -> None:
        """Ready for commands; with its agent."""
        (self.profile / "config.toml").write_text(SETTINGS)
        env: Mapping[str, str] = self.clock.env if self.clock else {}
        self._forker = Forker(self.aside / "logs", **env)
        self.watch()

    def end(self) -> None:
        """Nothing runs afterwards."""
        if self._forker is not None:
            self._forker.close()

    def run(self, *arguments: str | Path, stdin: Path = Path(os.devnull), within: float = 300) -> CommandResult:
        """A command to its end."""
        return self._ended(self._start(*arguments, stdin=stdin), arguments, within)

    def ask(self, *arguments: str) -> Any:
        """What a command says with --json; None when it fails, which is noted."""
        answer = self.run(*arguments, "--json")
        if answer.code:
            self.claims.say(Finding.FAULT, f"{self.address}: {' '.join(arguments)}: {answer.code} {answer.err}")
            return None
        return json.loads(answer.out)

    def watch(self) -> None:
        """Start the agent, where one runs as a rule; again while a command is in its way, as init does."""
        if not self.watches:
            return

        before = self._socket_made()

        def works() -> bool:
            if self._agent is None or not self._agent.running:
                if self._agent is not None:
                    self.counts["agents started again"] += 1
                    self._ended(self._agent, ("sync", "--watch"), 1)
                self._agent = self._start("sync", "--watch")
            return not self._agent.ends_within(0.1) and self._socket_made() not in {0, before}

        with suppress(GivenUp):  # without an agent, commands do it all
            until(works, "the agent answers", within=30)

    def _socket_made(self) -> int:
        """When the agent's socket was made, which one that was killed leaves; 0 without one."""
        try:
            return (self.profile / "control.sock").stat().st_ctime_ns
        except FileNotFoundError:
            return 0

    def stop_watching(self, *, kill: bool = False) -> None:
        """Stop the agent, in order or not."""
        if self._agent is None:
            return
        agent, self._agent = self._agent, None
        if not agent.running:
            answer = self._ended(agent, ("sync", "--watch"), 1)
            self.claims.say(Finding.FAULT, f"{self.address}: the agent ended with {answer.code}: {answer.err[-600:]}")
            return
        agent.signal(signal.SIGKILL if kill else signal.SIGTERM)
        self._ended(agent, ("sync", "--watch"), 60)

    def _start(self, *arguments: str | Path, stdin: Path = Path(os.devnull)) -> Command:
        assert self._forker is not None
        return self._forker.start(*arguments, "--profile", self.profile, stdin=stdin)

    def _ended(self, command: Command, arguments: Sequence[str | Path], within: float) -> CommandResult:
        what = f"{self.address}: {' '.join(map(str, arguments))[:200]}"
        try:
            answer = command.wait(within)
        except CommandHangs as error:
            self.claims.say(Finding.FAULT, f"{what}: {error}")
            return CommandResult(-9, b"", "")
        if (answer.code >= 0 and answer.code not in DOCUMENTED) or _FAULT.search(answer.err):
            self.claims.say(Finding.FAULT, f"{what}: {answer.code} {answer.err[-2000:]}")
        return answer

    # -- messages

    def send(self, messages: Sequence[tuple[Claim, Path]], *, doomed: str = "") -> None:
        """Hand messages in, all at once, and again what wasn't taken. `doomed`: who is killed meanwhile, the "command"
        of the first one or the "agent"."""
        amid, self._backup_is_due = self._backup_is_due, False
        if amid:  # then the command sends by itself, and what it leaves is in the backup
            self.stop_watching()
            doomed = "command"
        started = [(claim, path, self._hand_in(claim, path)) for claim, path in messages]
        begun = time.monotonic()
        if doomed:
            self._strike(started[0][2], doomed)
        if amid:
            for _, _, command in started:
                command.ends_within(300)
            self._take_backup()
            self.watch()
        for claim, path, command in started:
            answer = self._ended(command, ("send", claim.message_id), 300)
            self._note(claim, answer)
            if answer.code == -signal.SIGKILL and self.rng.random() < 0.2:
                claim.answered = Answered.NOTHING
                self.counts["given up after a kill"] += 1
            else:
                self._again(claim, path)
            path.unlink()
        if not self.watches:
            self.collect()
        self._took = 0.7 * self._took + 0.3 * min(time.monotonic() - begun, 10)
        if doomed == "agent":
            self.watch()

    def _hand_in(self, claim: Claim, path: Path) -> Command:
        return self._start("send", *claim.recipients, stdin=path)

    def _note(self, claim: Claim, answer: CommandResult) -> None:
        match answer.code:
            case 0:
                claim.answered = Answered.YES
            case -9:
                claim.answered = Answered.NOTHING
            case _:
                claim.answered = Answered.NO
                self.counts[f"send ended with {answer.code}"] += 1

    def _again(self, claim: Claim, path: Path) -> None:
        """The same message until it is taken."""
        for _ in range(TRIES):
            if claim.answered is Answered.YES:
                return
            self.counts["handed in again"] += 1
            answer = self._ended(self._hand_in(claim, path), ("send", claim.message_id), 300)
            self._note(claim, answer)
            if claim.answered is Answered.NO and self._has_a_reason():
                if self.rng.random() < 0.5:
                    return
                self.make_room()
                if self.clock is not None:
                    self.clock.set(0)
        if claim.answered is not Answered.YES:
            self.claims.say(Finding.FAULT, f"{self.address}: {claim.message_id} was never taken: {answer.err[-500:]}")

    def _has_a_reason(self) -> bool:
        """Whether a message may be refused here now."""
        if self.small_disk and self.is_full:
            self.counts["refused by a full disk"] += 1
            return True
        if self.clock is not None and self.clock.seconds < 0:  # before the certificate was made
            self.counts["refused by a clock that is behind"] += 1
            return True
        return False

    def _strike(self, command: Command, whom: str) -> None:
        """kill -9 at a random moment of a command's life."""
        if command.ends_within(self.rng.uniform(0, 1.1 * self._took)) and whom == "command":
            self.counts["kills that came late"] += 1
        elif whom == "command":
            command.signal()
            self.counts["commands killed"] += 1
        elif self._agent is not None:
            self.stop_watching(kill=True)
            self.counts["agents killed"] += 1

    def collect(self) -> None:
        """`sync`, once."""
        self.run("sync")

    # -- what happens

    def restart(self) -> None:
        """The agent ends in order and comes back."""
        self.stop_watching()
        self.watch()
        self.counts["restarts"] += 1

    def second_program(self) -> None:
        """Two more programs collect and send at the same time."""
        two = [self._start("sync"), self._start("sync")]
        for command in two:
            self._ended(command, ("sync",), 300)
        self.counts["second programs"] += 1

    def back_up(self) -> None:
        """Copy the profile while nothing works on it: after the next message's command was killed."""
        self._backup_is_due = True

    def _take_backup(self) -> None:
        self.counts["backups"] += 1
        place = self.aside / f"backup{self.counts['backups']}"
        subprocess.run(["cp", "-a", self.profile, place], check=True)
        if self._backup is not None:
            shutil.rmtree(self._backup)
        self._backup = place

    def restore(self) -> None:
        """Put the backup in the profile's place, once what was said yes to is with the nodes."""
        if self._backup is None:
            self.back_up()
            return
        self.stop_watching()
        if self.run("sync").code == 0:
            replaced = self.aside / f"replaced{len(self.where.replaced)}"
            self.profile.rename(replaced)
            subprocess.run(["cp", "-a", self._backup, self.profile], check=True)
            self.where.replaced.append(replaced)
            self.counts["backups restored"] += 1
        self.watch()

    def set_clock(self, seconds: float) -> None:
        """The clock jumps to so far from the true one; back there if it is off already."""
        assert self.clock is not None
        self.clock.set(0.0 if self.clock.seconds else seconds)
        self.counts["jumps of the clock"] += 1

    # -- a small disk

    @property
    def _filler(self) -> Path:
        return self.profile / "filler"

    @property
    def is_full(self) -> bool:
        """Whether the disk has been filled."""
        return self._filler.exists()

    def fill(self) -> None:
        """Leave up to 200 KB on the disk."""
        facts = os.statvfs(self.profile)
        size = facts.f_bavail * facts.f_frsize - self.rng.choice((0, 4096, 20_000, 60_000, 200_000))
        if size > 0:
            handle = os.open(self._filler, os.O_WRONLY | os.O_CREAT)
            try:
                with suppress(OSError):  # somebody else took some of it
                    os.posix_fallocate(handle, 0, size)
            finally:
                os.close(handle)
        self.counts["full disks"] += 1

    def make_room(self) -> None:
        """End that."""
        self._filler.unlink(missing_ok=True)

    # -- other programs

    def beside(self, what: str) -> None:
        """neomutt changes things in the Inbox ("flags", "move", "delete"); mbsync takes it to its mirror and back."""
        try:
            if self.neomutt is not None:
                self._neomutt(self.neomutt, what)
            if self.mbsync is not None:
                self.mbsync.run()
                if what == "flags":
                    self.mbsync.flag_at_the_mirror(2)
                    self.mbsync.run()
                self.counts["mbsync"] += 1
        except NeighbourFailed as error:
            self.claims.say(Finding.FAULT, f"{self.address}: {error}")

    def _neomutt(self, neomutt: Neomutt, what: str) -> None:
        inbox = [copy for copy in self.where.now() if copy.folder == "Inbox"]
        if not inbox:
            return
        entries = sorted(self.rng.sample(range(1, len(inbox) + 1), min(len(inbox), self.rng.randint(1, 3))))
        if what == "move":
            neomutt.archive(entries)
        elif what == "delete":
            neomutt.delete(entries[:1])
            there = {copy.message_id for copy in self.where.now()}
            gone = {copy.message_id for copy in inbox} - there
            if len(gone) > 1:
                self.claims.say(Finding.LOST, f"{self.address}: neomutt deleted one, and these are gone: {gone}")
            self.where.removed |= gone
        else:
            neomutt.read(entries)
            neomutt.flag(entries[:1])
            neomutt.postpone(self.address, f"draft {self.counts['neomutt']}")
        self.counts["neomutt"] += 1

    # -- looking

    def outbox(self) -> list[dict[str, Any]]:
        """`p2pmail outbox --json`."""
        return self.ask("outbox") or []

    def listed(self) -> list[str]:
        """The Message-IDs that `p2pmail list` has, over all folders."""
        found = []
        for folder in sorted(path.name for path in (self.profile / "mail").iterdir() if (path / "cur").is_dir()):
            found += [row["message_id"].strip("<>") for row in self.ask("list", folder) or []]
        return found

    def mirrored(self) -> list[Copy]:
        """What mbsync's mirror has."""
        assert self.mbsync is not None
        return [*Shelf(self.mbsync.far.parent, "far").copies()]
