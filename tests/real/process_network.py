"""A network of real processes on loopback: an authority that serves, nodes without a screen, members by invite.

The tests' hand on it: who is started, killed, asked. What is true of the mail is theirs to check.
"""

from __future__ import annotations

import json
import random
import socket
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from overlay.identity.network import read_network, write_network
from overlay.ids import Kind
from tests.real.programs import CommandResult, Process, run, until


class NodeProcess:
    """`p2pmail-tui --node-only` with a profile of its own, which outlives the process."""

    def __init__(self, profile: Path, network: Path, listen: str = "127.0.0.1:0") -> None:
        self.profile = profile
        self.place = ""
        self._listen = listen
        self._network = network
        self._process: Process | None = None
        self._starts = 0

    def start(self, *join: str) -> None:
        """Begin to start; on the same port as before, where it ran before. `ready` waits for it."""
        arguments = ["--listen", self.place or self._listen]
        for place in join:
            arguments += ["--join", place]
        self._starts += 1
        log = self.profile.with_name(f"{self.profile.name}-{self._starts}.log")
        self._process = Process(
            "p2pmail-tui", "--node-only", "--profile", self.profile, "--network", self._network, *arguments, log=log
        )

    def ready(self) -> str:
        """Wait until it listens; HOST:PORT."""
        self.place = self.process.line(r"listening on (\S+:\d+)")[1]
        return self.place

    @property
    def process(self) -> Process:
        """The process, running or ended."""
        assert self._process is not None, "the node was never started"
        return self._process

    def status(self) -> dict[str, Any]:
        """`p2pmail status --json` of this node."""
        status: dict[str, Any] = ask(self.profile, "status")
        return status

    def kept(self, kind: Kind) -> int:
        """How many objects of a kind its store has, read beside the node as an inspector would."""
        store = self.profile / "node" / "store.sqlite"
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM objects WHERE kind = ?", (int(kind),)).fetchone()
            return int(count)

    def files(self) -> int:
        """How many large bodies lie in files."""
        return sum(path.is_file() for path in (self.profile / "node" / "bodies").rglob("*"))

    def end(self) -> None:
        """Be sure that nothing of it runs."""
        if self._process is not None:
            self._process.end()


class ProcessNetwork:
    """Everything in one folder, founded when made. `stop` ends all that runs."""

    def __init__(
        self,
        folder: Path,
        *,
        k: int | None = None,
        name: str = "village",
        listen: str | Callable[[], str] = "127.0.0.1:0",
    ) -> None:
        """`k`: copies of each object; None: the network's own default. `listen`: where each node listens, or what says
        so for the next one."""
        self.folder = folder
        self._listen = listen
        self.name = name
        self.authority = folder / "authority"
        self.nodes: list[NodeProcess] = []
        self._serving: Process | None = None
        founded = run("p2pmail", "authority", "init", self.authority, "--name", name)
        assert founded.code == 0, founded.err
        if k is not None:
            network = read_network(self.network_file.read_bytes())
            self.network_file.write_bytes(write_network(replace(network, k=k)))

    @property
    def network_file(self) -> Path:
        """What `--network` takes."""
        return self.authority / "network.toml"

    def start(self, count: int) -> None:
        """Start nodes: one that joins nobody, and at once the others, which join it; then the authority."""
        first = self.add_node()
        first.start()
        place = first.ready()
        others = [self.add_node() for _ in range(count - 1)]
        for node in others:
            node.start(place)
        for node in others:
            node.ready()
        self.serve(place)

    def add_node(self) -> NodeProcess:
        """One more node, not started yet."""
        listen = self._listen if isinstance(self._listen, str) else self._listen()
        node = NodeProcess(self.folder / f"node{len(self.nodes)}", self.network_file, listen)
        self.nodes.append(node)
        return node

    def serve(self, *join: str) -> None:
        """Start `authority serve`, and wait until it answers."""
        places = [part for place in join for part in ("--join", place)]
        self._serving = Process("p2pmail", "authority", "serve", self.authority, *places, log=self.folder / "serve.log")
        self._serving.line(f"answering for {self.name}")

    def invite(self, address: str) -> str:
        """The line that is sent to a new member."""
        made = run("p2pmail", "authority", "invite", self.authority, address)
        assert made.code == 0, made.err
        return made.text.strip()

    def member(self, name: str, *options: str | Path) -> Path:
        """Invite NAME@village.example and let her join; her profile."""
        profile = self.folder / name
        joined = run(
            "p2pmail", "join", self.invite(f"{name}@village.example"), "--profile", profile, *options, within=150
        )
        assert joined.code == 0, joined.err
        assert joined.text == f"joined as {name}@village.example\n"
        return profile

    def stop(self) -> None:
        """End everything that was started here."""
        if self._serving is not None:
            self._serving.end()
        for node in self.nodes:
            node.end()


def own_port() -> str:
    """A place to listen that is still free when a killed node comes back: the kernel gives its port to nobody."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(lowest // 2, lowest)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, suppress(OSError):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"


def p2pmail(profile: Path, *arguments: str | Path, stdin: bytes = b"", within: float = 120) -> CommandResult:
    """Run a command of a member."""
    return run("p2pmail", *arguments, "--profile", profile, stdin=stdin, within=within)


def ask(profile: Path, *arguments: str) -> Any:
    """What a command says with --json; it must end with 0."""
    answer = p2pmail(profile, *arguments, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def sync(profile: Path) -> None:
    """`p2pmail sync` until nothing waits. Raises GivenUp."""
    until(lambda: p2pmail(profile, "sync").code == 0, f"sync of {profile.name} with nothing left waiting")


def states(profile: Path, subject: str) -> dict[str, str]:
    """What the outbox knows of each recipient of a message: address to state."""
    (entry,) = (entry for entry in ask(profile, "outbox") if entry["subject"] == subject)
    return {recipient["address"]: recipient["state"] for recipient in entry["recipients"]}


def until_state(profile: Path, subject: str, state: str, *addresses: str, syncing: bool = False) -> None:
    """Wait until the outbox says this of all these recipients. `syncing`: with a `sync` before each look."""

    def look() -> bool:
        if syncing:
            p2pmail(profile, "sync")
        return states(profile, subject) == dict.fromkeys(addresses, state)

    until(look, f"{subject!r} is {state} for {', '.join(addresses)}", seen=lambda: p2pmail(profile, "outbox").text)


def bodies(nodes: Sequence[NodeProcess]) -> int:
    """How many bodies, or pieces of one, these nodes keep together."""
    return sum(node.kept(Kind.BODY) for node in nodes)
