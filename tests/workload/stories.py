"""Stories: who writes to whom, in which order, and what else happens meanwhile.

A story is a list of steps that whoever plays it carries out as far as it can: the simulated world, real processes, a
bench. What a step means there is said there; what happens, how often and to whom is said here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from tests.workload.shapes import LARGEST, MOST_RECIPIENTS, Shape, draw


class Event(StrEnum):
    """What happens to a user's profile beside writing messages."""

    RESTART = "restart"
    """The program ends in order and is started again."""
    KILL = "kill"
    """The program is killed, whatever it is doing, and started again."""
    BACKUP = "backup"
    """A copy of the whole profile is put away."""
    RESTORE = "restore"
    """The profile is what it was at the last backup."""
    SECOND_PROGRAM = "second program"
    """Another program works on the same profile at the same time."""
    CLOCK = "clock"
    """The computer's clock jumps, by `seconds`."""
    FULL_DISK = "full disk"
    """Nothing more can be written for some time."""
    FLAGS = "flags"
    """Another program changes flags in the Maildir."""
    MOVE = "move"
    """Another program moves messages to another folder."""
    DELETE = "delete"
    """Another program deletes a message that was read."""
    OFFLINE = "offline"
    """Nobody answers for `seconds`."""


@dataclass(frozen=True, slots=True)
class WrittenMessage:
    """Step: user `sender` writes to users `recipients` (numbers; never the sender). `burst`: right after the last."""

    number: int
    sender: int
    recipients: tuple[int, ...]
    shape: Shape
    burst: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """Step: something happens to user `user`; `seconds` is how long, or how far a clock jumps (either way)."""

    event: Event
    user: int
    seconds: float


Step: TypeAlias = WrittenMessage | Happening

JUMPS = (-3 * 3600.0, -3600.0, -60.0, -5.0, 5.0, 60.0, 3600.0, 7 * 86_400.0, 31 * 86_400.0)
"""Seconds that clocks jump: NTP, a time zone in the hardware clock, a laptop that slept for a week or a month."""
_SAME_TWO = 0.4
"""Of all messages that are between the two who write most to each other."""
_BURST = 0.15
"""Of all messages that begin a burst: 3 to 12 by one sender."""


def draw_story(
    rng: random.Random,
    *,
    messages: int,
    users: int,
    largest: int = LARGEST,
    most_recipients: int = MOST_RECIPIENTS,
    complete: bool = True,
    events: tuple[Event, ...] = tuple(Event),
    happenings: float = 0.2,
) -> list[Step]:
    """`messages` messages among `users` (two or more), with `happenings` events a message on average, from `events`.

    A message has as many recipients as its shape says, but at most everybody else.
    """
    steps: list[Step] = []
    written = burst = sender = 0
    while written < messages:
        if events and rng.random() < happenings / (1 + happenings):
            event = rng.choice(events)
            seconds = rng.choice(JUMPS) if event is Event.CLOCK else 10 ** rng.uniform(0, 2.5)
            steps.append(Happening(event, rng.randrange(users), seconds))
            continue
        shape = draw(rng, largest=largest, most_recipients=min(most_recipients, users - 1), complete=complete)
        within = burst > 0
        if within:
            burst -= 1
        else:
            burst = rng.randint(2, 11) if rng.random() < _BURST else 0
            sender = rng.randrange(2) if rng.random() < _SAME_TWO else rng.randrange(users)
        others = [user for user in range(users) if user != sender]
        close = sender < 2 and shape.recipients == 1 and rng.random() < _SAME_TWO
        chosen = (1 - sender,) if close else tuple(rng.sample(others, shape.recipients))
        steps.append(WrittenMessage(written, sender, chosen, shape, burst=within))
        written += 1
    return steps
