"""A story of the workload, played by real processes: an authority, nodes, members, and what befalls them.

Each member's steps are played in their order, the members beside each other; nodes are killed meanwhile. Which messages
and events there are follows from the seed; when each happens doesn't, as with real processes. What must be true at the
end doesn't depend on it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.journey.claims import Answered, Claims, Finding, Wrong
from tests.real.journey.desk import JourneyUserAgent
from tests.real.journey.neighbours import Mbsync, Neomutt, SettableClock, libfaketime, program
from tests.real.process_network import NodeProcess, ProcessNetwork, own_port
from tests.workload import Event, Happening, Step, WrittenMessage, draw_story

NAMES = ("anna", "ben", "chen", "dora", "emil", "fatima", "goro", "hana", "igor", "jana")
EVENTS = (
    *(Event.KILL,) * 8, Event.RESTART, Event.BACKUP, Event.RESTORE, Event.SECOND_PROGRAM, *(Event.CLOCK,) * 2,
    *(Event.FULL_DISK,) * 2, *(Event.FLAGS,) * 2, Event.MOVE, Event.DELETE, Event.OFFLINE,
)  # fmt: skip
"""Each as often as it stands here."""
MESSAGES_A_NODE_LIVES = 12
"""Messages after which one of the nodes is killed, on average."""
AT_ONCE = 6
"""Messages of a burst that are handed in at the same moment."""
COLLECTS_EVERY = 10.0
"""Seconds between two looks of a member who has written all messages and has no agent."""
SMALL_DISK = 1 << 30
AWAY = 4.0
"""Seconds that all nodes are away at most."""


@dataclass(frozen=True, slots=True)
class JourneyScale:
    """How much of a story."""

    messages: int
    users: int = 6
    nodes: int = 6
    k: int = 4
    largest: int = 2_000_000
    happenings: float = 0.4
    events: tuple[Event, ...] = EVENTS
    patience: float = 420.0
    """Seconds without a change after which what hasn't settled is taken for what it will be."""


@dataclass(slots=True)
class JourneyOutcome:
    """What came of it."""

    seed: int
    messages: int
    copies: int
    bytes: int
    counts: Counter[str]
    left_out: list[str]
    """What couldn't be played here, with the reason."""
    wrong: list[Wrong]
    seconds: float

    def lines(self) -> list[str]:
        """In words."""
        counts = ", ".join(f"{name} {number}" for name, number in sorted(self.counts.items()))
        found = Counter(str(wrong.found) for wrong in self.wrong)
        totals = ", ".join(f"{found[kind]} {kind}" for kind in Finding)
        return [
            f"seed {self.seed}: {self.messages} messages, {self.copies} copies, {self.bytes} bytes,"
            f" {self.seconds:.0f} s",
            f"  {counts}",
            *(f"  left out: {reason}" for reason in self.left_out),
            *(f"  {wrong}" for wrong in self.wrong),
            f"  {totals}",
        ]


@dataclass(slots=True)
class JourneyStory:
    """One story in one folder. `play` it once."""

    seed: int
    folder: Path
    scale: JourneyScale
    claims: Claims = field(default_factory=Claims)
    left_out: list[str] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _mounted: list[Path] = field(default_factory=list)
    _counting: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _progress: int = 0
    _nodes_change: threading.Lock = field(default_factory=threading.Lock)

    def play(self) -> JourneyOutcome:
        """From founding the network to the judgement."""
        begun = time.monotonic()
        rng = random.Random(self.seed)
        scale = self.scale
        steps = draw_story(
            rng, messages=scale.messages, users=scale.users, largest=scale.largest, most_recipients=scale.users - 1,
            events=scale.events, happenings=scale.happenings,
        )  # fmt: skip
        self.folder.mkdir(parents=True)
        network = ProcessNetwork(self.folder, k=scale.k, listen=own_port)
        user_agents: list[JourneyUserAgent] = []
        try:
            network.start(scale.nodes)
            user_agents += self._members(network, rng)
            print(f"founded after {time.monotonic() - begun:.0f} s", flush=True)
            self._story(network, user_agents, steps, rng)
            print(f"played after {time.monotonic() - begun:.0f} s", flush=True)
            wrong = self._end(user_agents)
        finally:
            self._over.set()
            for user_agent in user_agents:
                user_agent.end()
            network.stop()
            for place in self._mounted:  # what lay there is kept with the rest
                subprocess.run(["cp", "-a", place, place.with_name(f"{place.name}-kept")], check=False)
                subprocess.run(["umount", place], check=False)
        counts = self._counts + sum((user_agent.counts for user_agent in user_agents), Counter[str]())
        return outcome(
            self.seed, self.claims, counts, left_out=self.left_out, wrong=wrong, seconds=time.monotonic() - begun
        )

    # -- who takes part

    def _members(self, network: ProcessNetwork, rng: random.Random) -> list[JourneyUserAgent]:
        """Let them join. What is special about each: mbsync and neomutt; backups; a clock; a small disk; neomutt; no
        agent."""
        names = NAMES[: self.scale.users]
        user_agents = []
        for name in names:
            aside = self.folder / f"{name}-aside"
            aside.mkdir()
            address = f"{name}@{network.name}.example"
            profile = self.folder / name
            user_agents.append(
                JourneyUserAgent(address, profile, aside, self.claims, random.Random(rng.getrandbits(64)))
            )
        self._small_disk(user_agents[3 % len(user_agents)])
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(network.member, names))
        self._clock(user_agents[2 % len(user_agents)])
        self._neighbours(user_agents[0], mbsync=True)
        if len(user_agents) > 4:
            self._neighbours(user_agents[4], mbsync=False)
        if len(user_agents) > 5:
            user_agents[5].watches = False
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(JourneyUserAgent.begin, user_agents))
        return user_agents

    def _small_disk(self, user_agent: JourneyUserAgent) -> None:
        if os.geteuid():
            self.left_out.append("a full disk: only root can mount a small one")
            return
        user_agent.profile.mkdir(mode=0o700)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=700", "none", str(user_agent.profile)]
        ended = subprocess.run(mount, capture_output=True, text=True, check=False)
        if ended.returncode:
            self.left_out.append(f"a full disk: {ended.stderr.strip()}")
            return
        self._mounted.append(user_agent.profile)
        user_agent.small_disk = True

    def _clock(self, user_agent: JourneyUserAgent) -> None:
        library = libfaketime()
        if library is None:
            self.left_out.append("clocks that jump: libfaketime is not installed")
        else:
            user_agent.clock = SettableClock(user_agent.aside / "clock", library)

    def _neighbours(self, user_agent: JourneyUserAgent, *, mbsync: bool) -> None:
        mail = user_agent.profile / "mail"
        for name in ("neomutt", "mbsync") if mbsync else ("neomutt",):
            path = program(name)
            if path is None:
                self.left_out.append(f"{name} on the folders: it is not installed")
            elif name == "neomutt":
                user_agent.neomutt = Neomutt(path, mail, user_agent.address, user_agent.aside / "neomutt")
            else:
                user_agent.mbsync = Mbsync(path, mail, user_agent.aside / "mbsync")

    # -- what happens

    def _story(
        self,
        network: ProcessNetwork,
        user_agents: Sequence[JourneyUserAgent],
        steps: Sequence[Step],
        rng: random.Random,
    ) -> None:
        """All steps, and nodes that are killed meanwhile."""
        own: list[list[Step]] = [[] for _ in user_agents]
        for step in steps:
            own[step.sender if isinstance(step, WrittenMessage) else self._whose(step, user_agents)].append(step)
        with ThreadPoolExecutor(len(user_agents) + 1) as pool:
            fates = pool.submit(self._kill_nodes, network, random.Random(rng.getrandbits(64)))
            try:
                list(
                    pool.map(
                        lambda user_agent, mine: self._act(network, user_agents, user_agent, mine), user_agents, own
                    )
                )
            finally:
                self._over.set()
            fates.result()

    def _whose(self, step: Happening, user_agents: Sequence[JourneyUserAgent]) -> int:
        """The member that it can happen to."""
        match step.event:
            case Event.CLOCK:
                able = [user_agent.clock is not None for user_agent in user_agents]
            case Event.FULL_DISK:
                able = [user_agent.small_disk for user_agent in user_agents]
            case Event.FLAGS | Event.MOVE | Event.DELETE:
                able = [user_agent.neomutt is not None or user_agent.mbsync is not None for user_agent in user_agents]
            case Event.BACKUP | Event.RESTORE:
                # Elsewhere a backup would undo the jump of a clock, or what mbsync knows of the folders.
                able = [
                    user_agent.clock is None and user_agent.mbsync is None and not user_agent.small_disk
                    for user_agent in user_agents
                ]
            case _:
                able = [True] * len(user_agents)
        places = [place for place, can in enumerate(able) if can] or [step.user]
        return places[step.user % len(places)]

    def _act(
        self,
        network: ProcessNetwork,
        user_agents: Sequence[JourneyUserAgent],
        user_agent: JourneyUserAgent,
        steps: Sequence[Step],
    ) -> None:
        """One member's steps."""
        doomed = ""
        burst: list[WrittenMessage] = []
        for place, step in enumerate(steps):
            if self._over.is_set():  # interrupted
                return
            if isinstance(step, Happening):
                if step.event is Event.KILL:
                    doomed = user_agent.rng.choice(("command", "agent")) if user_agent.watches else "command"
                else:
                    self._happen(network, user_agent, step)
                continue
            burst.append(step)
            following = steps[place + 1] if place + 1 < len(steps) else None
            if isinstance(following, WrittenMessage) and following.burst and len(burst) < AT_ONCE:
                continue
            self._write(user_agents, user_agent, burst, doomed)
            burst, doomed = [], ""
        if user_agent.clock is not None:
            user_agent.clock.set(0)
        user_agent.make_room()
        while not user_agent.watches and self._progress < self.scale.messages and not self._over.wait(COLLECTS_EVERY):
            user_agent.collect()

    def _write(
        self,
        user_agents: Sequence[JourneyUserAgent],
        user_agent: JourneyUserAgent,
        messages: Sequence[WrittenMessage],
        doomed: str,
    ) -> None:
        written = []
        for message in messages:
            path = user_agent.aside / f"message{message.number}.eml"
            recipients = [user_agents[user].address for user in message.recipients]
            message_id = f"{message.number}.{message.shape.message_id()}"
            with path.open("wb") as file:
                message.shape.write(file, user_agent.address, recipients, message_id=message_id, date=time.time())
            written.append((self.claims.hand_in(message_id, user_agent.address, recipients, path), path))
        user_agent.send(written, doomed=doomed)
        with self._counting:
            self._progress += len(written)

    def _happen(self, network: ProcessNetwork, user_agent: JourneyUserAgent, step: Happening) -> None:
        match step.event:
            case Event.RESTART:
                user_agent.restart()
            case Event.BACKUP:
                user_agent.back_up()
            case Event.RESTORE:
                user_agent.restore()
            case Event.SECOND_PROGRAM:
                user_agent.second_program()
            case Event.CLOCK if user_agent.clock is not None:
                user_agent.set_clock(step.seconds)
            case Event.FULL_DISK if user_agent.small_disk:
                if user_agent.is_full:
                    user_agent.make_room()
                else:
                    user_agent.fill()
            case Event.FLAGS | Event.MOVE | Event.DELETE:
                user_agent.beside(step.event.value)
            case Event.OFFLINE:
                self._away(network, min(step.seconds, AWAY))
            case _:
                pass

    def _away(self, network: ProcessNetwork, seconds: float) -> None:
        """No node answers for some seconds."""
        with self._nodes_change:
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for node in network.nodes:
                    os.kill(node.process.pid, number)
                if number == signal.SIGSTOP:
                    self._over.wait(seconds)
        self._counts["all nodes away"] += 1

    def _kill_nodes(self, network: ProcessNetwork, rng: random.Random) -> None:
        """kill -9 for one or two nodes every few messages; they come back after some seconds."""
        due = 0.0
        while not self._over.wait(0.2):
            if self._progress < due:
                continue
            due = self._progress + rng.expovariate(1 / MESSAGES_A_NODE_LIVES)
            self._over.wait(rng.uniform(0, 1))
            with self._nodes_change:
                struck: list[NodeProcess] = rng.sample(network.nodes, rng.choice((1, 1, 2)))
                for node in struck:
                    node.process.kill()
                self._over.wait(rng.choice((0, 0, 1, 5)))
                for node in struck:
                    node.start()
                for node in struck:
                    node.ready()
            self._counts["nodes killed"] += len(struck)

    # -- the end

    def _end(self, user_agents: Sequence[JourneyUserAgent]) -> list[Wrong]:
        """Let everything settle, without agents, and judge."""
        for user_agent in user_agents:
            user_agent.stop_watching()
            user_agent.make_room()
        settle(self.claims, user_agents, self.scale.patience)
        for user_agent in user_agents:
            if user_agent.mbsync is not None:
                user_agent.beside("the end")
        return judge(self.claims, user_agents) + _mirrors(user_agents)


def outcome(
    seed: int, claims: Claims, counts: Counter[str], *, left_out: list[str], wrong: list[Wrong], seconds: float
) -> JourneyOutcome:
    """The sums."""
    accepted = [claim for claim in claims.all if claim.answered is Answered.YES]
    copies = sum(len(claim.recipients) for claim in accepted)
    size = sum(claim.size * len(claim.recipients) for claim in accepted)
    return JourneyOutcome(seed, len(claims.all), copies, size, counts, left_out, wrong, seconds)


def settle(claims: Claims, user_agents: Sequence[JourneyUserAgent], patience: float) -> None:
    """`sync` at every user agent until all has arrived and is told, or nothing changes for a long time."""
    left: object = None
    since = time.monotonic()
    while time.monotonic() - since < patience:
        with ThreadPoolExecutor(len(user_agents)) as pool:
            list(pool.map(lambda user_agent: user_agent.run("sync"), user_agents))
        missing = claims.missing([user_agent.where for user_agent in user_agents])
        unsettled = {
            (entry["id"], recipient["address"], recipient["state"])
            for user_agent in user_agents
            for entry in user_agent.outbox()
            for recipient in entry["recipients"]
            if recipient["state"] != "collected"
        }
        if not missing and not unsettled:
            return
        if left != (missing, unsettled):
            left, since = (missing, unsettled), time.monotonic()
            print(f"settling: {len(missing)} missing, {len(unsettled)} not collected", flush=True)
        time.sleep(1)


def judge(claims: Claims, user_agents: Sequence[JourneyUserAgent]) -> list[Wrong]:
    """Everything that is wrong, by what the program says now."""
    outboxes = {user_agent.address: user_agent.outbox() for user_agent in user_agents}
    lists = {user_agent.address: user_agent.listed() for user_agent in user_agents}
    return claims.judge([user_agent.where for user_agent in user_agents], outboxes, lists)


def _mirrors(user_agents: Sequence[JourneyUserAgent]) -> list[Wrong]:
    """mbsync's mirror has what the profile has."""
    wrong = []
    for user_agent in user_agents:
        if user_agent.mbsync is None:
            continue
        for folder in ("Inbox", "Archive"):
            near = sorted(copy.message_id for copy in user_agent.where.now() if copy.folder == folder)
            far = sorted(copy.message_id for copy in user_agent.mirrored() if copy.folder == folder)
            if near != far:
                words = f"{user_agent.address}: {folder} has {len(near)} messages here, {len(far)} in mbsync's mirror"
                wrong.append(Wrong(Finding.UNTRUE, words))
    return wrong
