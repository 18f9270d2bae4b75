"""OpenDHT as a peer of bench_lookup.py: `/usr/bin/python3 bench/peer_opendht.py NODES LOOKUPS`.

Run by the system's Python, whose package python3-opendht is (it isn't on PyPI), so nothing of this project is imported.
A `get` of a key under which there is nothing looks for the 8 closest nodes, as a lookup of ours looks for k. Its nodes
are threads of one process. Prints a JSON object: seconds of each, with all nodes alive, then with 20% and 50% shut
down just before.
"""

import json
import os
import random
import sys
import threading
import time
from typing import Any

SHARES = (0.0, 0.2, 0.5)
PATIENCE = 30.0


def main(nodes: int, lookups: int) -> None:
    """Measure, print."""
    import opendht

    chance = random.Random(1)
    runners: list[Any] = []
    for _ in range(nodes):
        runner = opendht.DhtRunner()
        runner.run(port=0, ipv4="127.0.0.1")
        if runners:
            runner.bootstrap("127.0.0.1", str(runners[0].getBound().getPort()))
        runners.append(runner)
    time.sleep(10)  # joined
    alive, result = list(runners), dict[str, list[float]]()
    for share in SHARES:
        gone = chance.sample(alive[1:], int(share * nodes) - (nodes - len(alive)))
        for runner in gone:
            runner.shutdown()
            alive.remove(runner)
        result[str(share)] = [get(opendht, chance.choice(alive), chance) for _ in range(lookups)]
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # its threads take their time


def get(opendht: Any, runner: Any, chance: random.Random) -> float:
    """Seconds until a search for a key by chance has ended."""
    done = threading.Event()
    key = opendht.InfoHash.get(str(chance.random()))
    start = time.perf_counter()
    runner.get(key, get_cb=lambda value: True, done_cb=lambda ok, found: done.set())
    done.wait(PATIENCE)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
