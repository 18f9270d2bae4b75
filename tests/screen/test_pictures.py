"""What the screens look like at 80x24 and 120x34; `pytest --snapshot-update` takes the pictures anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from mail.events import NodeStatus, Progress
from storage.user.outbox import Envelope, Outbox, Recipient
from storage.user.profile import Profile
from tests.screen.world import NOW, FakeAgent, app_on, press, settled, until
from tui.app import MailApp
from tui.theme import LIGHT

Compare = Callable[..., bool]
SIZES = [(80, 24), (120, 34)]


def keys(*pressed: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Wait for the agent, press keys, wait for what they do."""

    async def before(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, MailApp)
        await until(pilot, lambda: app.session.started or app.session.new)
        await settled(pilot)
        await press(pilot, *pressed)
        app.clear_notifications()
        await settled(pilot)

    return before


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x34"])
@pytest.mark.parametrize(
    "pressed",
    [
        pytest.param((), id="list"),
        pytest.param(("j", "enter"), id="reader"),
        pytest.param(("x", "j", "x"), id="marks"),
        pytest.param(("slash", "=village"), id="search"),
        pytest.param(("r",), id="reply"),
    ],
)
def test_the_mailbox(pressed: Sequence[str], size: tuple[int, int], root: Path, snap_compare: Compare) -> None:
    assert snap_compare(app_on(root), terminal_size=size, run_before=keys(*pressed))


@pytest.mark.parametrize(
    "pressed",
    [
        pytest.param(("h", "end", "enter", "enter"), id="quarantine"),
        pytest.param(("h", "end", "enter", "ctrl+r"), id="release"),
        pytest.param(("question_mark",), id="help"),
        pytest.param(("i",), id="node"),
        pytest.param(("j", "j", "enter", "v"), id="attachments"),
    ],
)
def test_beside_the_mailbox(pressed: Sequence[str], root: Path, snap_compare: Compare) -> None:
    assert snap_compare(app_on(root), terminal_size=(80, 24), run_before=keys(*pressed))


class FewUp(FakeAgent):
    """In a network where 20 copies aren't enough."""

    async def status(self) -> NodeStatus:
        low = replace(await super().status(), availability=0.22, interval=(0.19, 0.25))
        return replace(low, k=20, reached=0.9876)


def test_a_target_that_cannot_be_reached(root: Path, snap_compare: Compare) -> None:
    assert snap_compare(app_on(root, FewUp()), terminal_size=(80, 24), run_before=keys("i"))


def test_the_first_start(tmp_path: Path, snap_compare: Compare) -> None:
    assert snap_compare(app_on(tmp_path / "new"), terminal_size=(80, 24), run_before=keys())


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x34"])
def test_the_outbox(size: tuple[int, int], root: Path, snap_compare: Compare) -> None:
    box = Outbox(Profile(root).outbox_file, now=lambda: NOW)
    people = ["bob@village.example", "carol@village.example", "nobody@village.example"]
    box.accept(
        b"Subject: Minutes\n\n",
        Envelope(
            "message6@village.example",
            subject="Minutes",
            sender="alice@village.example",
            recipients=people,
            created=NOW,
        ),
    )
    box.record([("message6@village.example", Recipient(people[0], (10, 10), (10, 10), proof=b"signed"))])
    box.record([("message6@village.example", Recipient(people[1], (10, 10), (9, 10)))])
    box.record([("message6@village.example", Recipient(people[2], failed=True, reason="Nobody has this address."))])
    box.close()
    assert snap_compare(app_on(root), terminal_size=size, run_before=keys("o"))


def test_the_light_theme(root: Path, snap_compare: Compare) -> None:
    app = app_on(root)
    app.theme = LIGHT.name
    assert snap_compare(app, terminal_size=(120, 34), run_before=keys("j", "enter"))


def test_work_in_progress(root: Path, snap_compare: Compare) -> None:
    agent = FakeAgent()

    async def before(pilot: Pilot[None]) -> None:
        await keys()(pilot)
        agent.tell(Progress("sending photos.bin", 4, 10))
        await settled(pilot)

    assert snap_compare(app_on(root, agent), terminal_size=(80, 24), run_before=before)
