"""Users over a fake overlay (tests/mail/user_agents.py), for the tests that want them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.mail.user_agents import UserAgent, UserAgentNetwork


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[UserAgentNetwork]:
    world = UserAgentNetwork(tmp_path)
    yield world
    world.close()


@pytest.fixture
async def alice(world: UserAgentNetwork) -> UserAgent:
    return await world.user_agent("alice")


@pytest.fixture
async def bob(world: UserAgentNetwork) -> UserAgent:
    return await world.user_agent("bob")


@pytest.fixture
async def carol(world: UserAgentNetwork) -> UserAgent:
    return await world.user_agent("carol")
