"""Users over a fake overlay (tests/mail/desks.py), for the tests that want them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.mail.desks import Desk, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
async def alice(world: World) -> Desk:
    return await world.desk("alice")


@pytest.fixture
async def bob(world: World) -> Desk:
    return await world.desk("bob")


@pytest.fixture
async def carol(world: World) -> Desk:
    return await world.desk("carol")
