"""One sender of a flood, as a process of its own: `python -m bench.flooder HOST:PORT/KEY NETWORK SECONDS RATE KIND`.

KIND random: bytes that are none of ours. KIND formed: sealed datagrams under ever new keys and a few old ones: pings,
lookups, stores and appends with tokens, halves of messages. From addresses of 127.0.0.0/8 of its own, so that it is
many. Prints how many datagrams it sent.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.errors import Malformed
from overlay.identity.contact import parse_join
from overlay.wire import fragments, messages
from overlay.wire.sealed_datagram import Sealer

SOCKETS = 64
KEYS = 200
"""Keys in use at a time; each datagram replaces one of them."""
BATCH = 50


def main(place: str, network: str, seconds: str, rate: str, kind: str) -> None:
    """Send until the time is over."""
    host, port, key = parse_join(place)
    assert key is not None
    chance = random.Random(os.getpid())
    sockets = [_socket(chance) for _ in range(SOCKETS)]
    sealers: list[tuple[Sealer, bytes]] = []
    sent, end, started = 0, time.monotonic() + float(seconds), time.monotonic()
    while time.monotonic() < end:
        for _ in range(BATCH):
            if kind == "random":
                datagram = os.urandom(chance.randrange(1, 1200))
                if chance.random() < 0.5:
                    datagram = b"\x01" + datagram
            else:
                datagram = _formed(sealers, network, key, chance)
            try:
                chance.choice(sockets).sendto(datagram, (host, port))
            except OSError:
                continue
            sent += 1
        for each in sockets:
            _listen(each)
        ahead = sent / float(rate) - (time.monotonic() - started)
        if ahead > 0:
            time.sleep(ahead)
    print(sent)


def _socket(chance: random.Random) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((f"127.{chance.randrange(1, 255)}.{chance.randrange(256)}.{chance.randrange(1, 255)}", 0))
    made.setblocking(False)
    return made


def _listen(each: socket.socket) -> None:
    """Take what was answered, so that the system doesn't have to."""
    try:
        while True:
            each.recv(2048)
    except OSError:
        return


def _formed(sealers: list[tuple[Sealer, bytes]], network: str, key: bytes, chance: random.Random) -> bytes:
    if len(sealers) < KEYS or chance.random() < 0.5:
        sealer = Sealer(X25519PrivateKey.generate(), network)
        sealers.append((sealer, os.urandom(16)))
        if len(sealers) > KEYS:
            sealers.pop(0)
    sealer, token = chance.choice(sealers)
    target, data = os.urandom(20), os.urandom(chance.randrange(1, 900))
    requests: list[messages.Request] = [
        messages.Ping(),
        messages.Find(target, 10, messages.find_padding(10)),
        messages.Store(token, 1, target, data, [], 3600.0),
        messages.AppendInbox(token, target, data, 3600.0),
        messages.Store(token, 1, target, bytes(6000), [], 3600.0),
    ]
    request = chance.choice(requests)
    flags = fragments.SERVER_MODE if chance.random() < 0.5 else 0
    parts = fragments.cut(flags, os.urandom(8), messages.encode(request))
    try:
        return sealer.seal(key, chance.choice(parts))  # of a long message one part: it never becomes whole
    except Malformed:
        return b""


if __name__ == "__main__":
    main(*sys.argv[1:])
