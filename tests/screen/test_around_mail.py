"""The first start, the passphrase, the outbox, the node, help and the palette, what the agent tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input, Static

from mail.events import NewMail, Online, OutboxChanged, Progress, Trouble
from mail.membership.invite import Invite, read_invite, write_invite
from overlay.identity.network import Network
from storage.user.outbox import Envelope, Outbox, Recipient
from storage.user.profile import Profile
from storage.user.state import UserState
from tests.screen.world import NOW, FakeAgent, app_on, mail_screen, press, running, settled, type_ahead, until
from tui.actions import ACTIONS, Context
from tui.app import MailApp
from tui.screens.help import Help
from tui.screens.mail import MailScreen
from tui.screens.node import NodeScreen
from tui.screens.notices import NoticesScreen
from tui.screens.outbox import OutboxList, OutboxScreen
from tui.screens.passphrase import Passphrase
from tui.screens.setup import Setup
from tui.screens.starting import Starting
from tui.widgets.notice_line import NoticeLine
from tui.widgets.title_line import TitleLine

INVITE = write_invite(
    Invite(Network("village", join=("node.example:23000",)), "ab" * 32, "alice@village.example", bytes(16))
)


def notes(app: MailApp) -> str:
    """Every notice."""
    return "\n".join(f"{note.title} {note.message}" for note in app._notifications)


async def test_a_first_start_shows_the_three_ways_and_makes_no_profile(tmp_path: Path) -> None:
    app = app_on(tmp_path / "new")
    async with app.run_test() as pilot:
        await settled(pilot)
        assert isinstance(app.screen, Setup)
        assert not (tmp_path / "new").exists()


async def test_pasting_an_invite_joins_and_shows_the_mailbox(tmp_path: Path) -> None:
    agent = FakeAgent(joined=False)
    app = app_on(tmp_path / "new", agent)
    async with app.run_test() as pilot:
        await press(pilot, "2", f"={INVITE}", "enter", "=secret", "enter", "=secret", "enter")
        await until(pilot, lambda: bool(agent.invites))
        await settled(pilot)
        assert agent.invites == [(INVITE, "secret")]
        assert mail_screen(app) is app.screen


@pytest.mark.parametrize("end", ["\n", "\r\n> ", " \n"])
async def test_an_invite_that_a_mail_program_folded_is_put_together(tmp_path: Path, end: str) -> None:
    """Pasted as one paste, and as keys, each line with an Enter."""
    lines = [INVITE[at : at + 40] for at in range(0, len(INVITE), 40)]
    for as_keys in (False, True):
        agent = FakeAgent(joined=False)
        app = app_on(tmp_path / f"new{as_keys}", agent)
        async with app.run_test() as pilot:
            await press(pilot, "2")
            if as_keys:
                for number, line in enumerate(lines):
                    type_ahead(pilot, *(end.strip("\r\n") * bool(number) + line), "enter")
            else:
                app.post_message(events.Paste(end.join(lines)))
                type_ahead(pilot, "enter")
            type_ahead(pilot, "enter", "enter")
            await settled(pilot)
            assert read_invite(agent.invites[0][0]) == read_invite(INVITE)


async def test_half_an_invite_is_said_before_a_passphrase_is_asked_for(tmp_path: Path) -> None:
    agent = FakeAgent(joined=False)
    app = app_on(tmp_path / "new", agent)
    async with app.run_test() as pilot:
        await press(pilot, "2", f"={INVITE[:60]}", "enter")
        assert "is missing" in str(app.screen.query_one("#setup-said", Static).content)
        assert app.focused is app.screen.query_one("#invite-line")


async def test_passphrases_that_differ_join_nothing(tmp_path: Path) -> None:
    agent = FakeAgent(joined=False)
    app = app_on(tmp_path / "new", agent)
    async with app.run_test() as pilot:
        await press(pilot, "2", f"={INVITE}", "enter", "=one", "enter", "=two", "enter")
        assert agent.invites == []
        assert "differ" in str(app.screen.query_one("#setup-said", Static).content)


async def test_an_invite_that_is_refused_says_why_and_can_be_tried_again(tmp_path: Path) -> None:
    agent = FakeAgent(joined=False)
    agent.refuse = ValueError("This invite was used already.")
    app = app_on(tmp_path / "new", agent)
    async with app.run_test() as pilot:
        await press(pilot, "2", f"={INVITE}", "enter", "enter", "enter")
        assert "used already" in str(app.screen.query_one("#setup-said", Static).content)
        agent.refuse = None
        await press(pilot, "enter")
        assert len(agent.invites) == 1


async def test_founding_a_network_shows_the_mailbox(tmp_path: Path) -> None:
    agent = FakeAgent(joined=False)
    app = app_on(tmp_path / "new", agent)
    async with app.run_test() as pilot:
        await press(pilot, "3", "=village.example", "enter", "=a@village.example", "enter", "enter", "enter")
        assert agent.is_joined
        assert mail_screen(app) is app.screen


async def test_a_demo_that_cannot_start_says_why(tmp_path: Path) -> None:
    app = app_on(tmp_path / "new")
    async with app.run_test() as pilot:
        await press(pilot, "1")
        assert isinstance(app.screen, Starting)
        assert "Too many open files" in str(app.screen.query_one("#steps", Static).content)
        await press(pilot, "escape")
        assert isinstance(app.screen, Setup)


async def test_a_protected_keyring_asks_until_the_passphrase_is_right(root: Path) -> None:
    app = app_on(root, FakeAgent(passphrase="right"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, Passphrase))
        await press(pilot, "=wrong", "enter")
        await until(pilot, lambda: isinstance(app.screen, Passphrase))
        app.screen.query_one(Input).value = "right"
        await press(pilot, "enter")
        await until(pilot, lambda: app.session.started)


async def test_without_the_passphrase_mail_can_still_be_read(root: Path) -> None:
    app = app_on(root, FakeAgent(passphrase="right"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, Passphrase))
        await press(pilot, "escape", "enter")
        assert mail_screen(app).opened is not None
        assert not app.session.started


async def test_new_mail_is_told_with_sender_and_subject_many_at_once_in_one_notice(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        agent.tell(NewMail("a@b", "Bob <bob@village.example>", "Lunch\x1b[31m?", "Inbox"))
        await settled(pilot)
        assert "Bob: Lunch?" in notes(app)


async def test_junk_arrives_in_silence(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        agent.tell(NewMail("a@b", "x@spam.example", "Win", "Junk"))
        await settled(pilot)
        assert notes(app) == ""


async def test_progress_is_shown_in_the_title_and_goes_when_it_is_over(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        agent.tell(Progress("sending report.pdf", 3, 10))
        await settled(pilot)
        title = mail_screen(app).title_line
        assert "sending report.pdf" in title.render().plain and "30%" in title.render().plain
        agent.tell(Progress("sending report.pdf", 10, 10))
        await settled(pilot)
        assert "report.pdf" not in title.render().plain


async def test_being_offline_stays_in_the_title_until_the_network_is_back(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        title = app.screen.query_one(TitleLine)
        agent.tell(Online(online=False, since=NOW - 600))
        await settled(pilot)
        assert "offline since 14:03, mail waits" in title.render().plain
        agent.tell(Progress("sending The plan", 512, 1024))
        await settled(pilot)
        assert "offline since 14:03" in title.render().plain
        agent.tell(Online(online=True))
        await settled(pilot)
        assert "offline" not in title.render().plain


async def test_trouble_is_told_once(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "o")
        agent.tell(Trouble("Nobody answers."))
        await settled(pilot)
        assert notes(app).count("Nobody answers.") == 1


def keep(root: Path, *texts: str) -> None:
    """Have another process find out what the user must know."""
    state = UserState(Profile(root).state_file)
    for text in texts:
        state.notices.add(text, NOW)
    state.close()


def notice_line(app: MailApp) -> str:
    """The line that stays, "" while there is none."""
    line = mail_screen(app).query_one(NoticeLine)
    return line.render().plain if line.display else ""


async def test_a_lasting_notice_stays_over_a_restart_until_it_is_read(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        assert notice_line(app) == ""
        keep(root, "A message is lost.")
        agent.tell(Trouble("A message is lost.", lasting=True))
        await settled(pilot)
        assert notice_line(app).startswith("A message is lost.")
        await press(pilot, "o", "escape", "j")
        assert notice_line(app).rstrip().endswith("w reads it")
    app = app_on(root)
    async with running(app) as pilot:
        assert notice_line(app).startswith("A message is lost.")
        await press(pilot, "w")
        assert isinstance(app.screen, NoticesScreen)
        assert "A message is lost." in str(app.screen.query_one(Static).content)
        await press(pilot, "escape")
        assert notice_line(app) == ""
        await press(pilot, "w")
        assert "A message is lost." in str(app.screen.query_one(Static).content)
    app = app_on(root)
    async with running(app) as pilot:
        assert notice_line(app) == ""


async def test_what_another_process_found_out_is_seen_at_the_next_look_the_newest_first(root: Path) -> None:
    app = app_on(root)
    async with running(app, (60, 24)) as pilot:
        keep(root, "The first.", "A second one, which is much longer than the line has room for.")
        mail_screen(app)._watch()
        await settled(pilot)
        assert notice_line(app).startswith("A second one, which")
        assert notice_line(app).endswith("and 1 more  w reads them")
        await pilot.click(NoticeLine)
        await settled(pilot)
        text = str(app.screen.query_one(Static).content)
        assert text.index("A second one") < text.index("The first.")
        keep(root, "A third.")
        await press(pilot, "escape")
        assert notice_line(app).startswith("A third.")


def sent(root: Path) -> Outbox:
    """An outbox with one message for two recipients."""
    box = Outbox(Profile(root).outbox_file, now=lambda: NOW)
    recipients = ["bob@village.example", "carol@village.example"]
    minutes = Envelope("message6@village.example", "Minutes", "alice@village.example", recipients, created=NOW)
    box.accept(b"Subject: Minutes\n\n", minutes)
    return box


async def test_the_outbox_tells_each_recipients_state_and_follows_it(root: Path) -> None:
    box = sent(root)
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app, (120, 34)) as pilot:
        await press(pilot, "o")
        assert isinstance(app.screen, OutboxScreen)
        shown = app.screen.query_one(OutboxList)

        def lines() -> str:
            return "\n".join("".join(text for text, _ in shown.line_pieces(y, 118)) for y in range(shown.line_count()))

        assert lines().count("queued") == 2
        box.record([("message6@village.example", Recipient("bob@village.example", (10, 10), (9, 10)))])
        agent.tell(OutboxChanged("message6@village.example"))
        await settled(pilot)
        assert "stored" in lines() and "bodies 10/10  notices 9/10" in lines()
    box.close()


async def test_a_message_that_waits_is_tried_at_once_and_that_is_said(root: Path) -> None:
    box = sent(root)
    box.record_attempt("message6@village.example", NOW + 3600)
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "o", "r")
        assert notes(app).strip() == "tried again now"
        entry = box.entry("message6@village.example")
        assert entry is not None and entry.due(NOW)
    box.close()


async def test_sent_mail_says_how_far_it_has_come(root: Path) -> None:
    box = sent(root)
    box.record([("message6@village.example", Recipient("bob@village.example", (10, 10), (9, 10), proof=b"signed"))])
    app = app_on(root)
    async with running(app) as pilot:
        mail_screen(app).show_folder("Sent")
        await settled(pilot)
        line = "".join(text for text, _ in mail_screen(app).messages.line_pieces(0, 64))
        assert "collected 1/2" in line
    box.close()


async def test_the_outbox_shows_what_was_not_delivered_first_and_what_was_collected_last(root: Path) -> None:
    box = sent(root)
    for number, subject in enumerate(("Failed", "Collected"), 7):
        name = f"message{number}@village.example"
        box.accept(
            b"Subject: x\n\n",
            Envelope(
                name,
                subject=subject,
                sender="alice@village.example",
                recipients=["bob@village.example"],
                created=NOW + number,
            ),
        )
    box.record([("message7@village.example", Recipient("bob@village.example", failed=True, reason="No such address."))])
    box.record([("message8@village.example", Recipient("bob@village.example", proof=b"signed"))])
    box.close()
    app = app_on(root)
    async with running(app, (120, 34)) as pilot:
        await press(pilot, "o")
        shown = app.screen.query_one(OutboxList).entries
        assert [entry.subject for entry in shown or ()] == ["Failed", "Minutes", "Collected"]
        assert "1 not delivered · 1 on the way · 3" in app.screen.query_one(TitleLine).place


async def test_what_is_on_its_way_cannot_be_taken_off_the_outbox(root: Path) -> None:
    box = sent(root)
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "o", "d")
        assert box.entry("message6@village.example") is not None
        assert "settled" in notes(app)
    box.close()


async def test_the_node_is_shown(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "i")
        assert isinstance(app.screen, NodeScreen)
        await until(pilot, lambda: "ab" * 20 in str(app.screen.query_one("#figures", Static).content))


async def test_sync_is_asked_of_the_agent(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "dollar_sign")
        assert agent.synced == 1


async def test_help_opens_anywhere_and_closes(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "question_mark")
        assert [type(screen) for screen in app.screen_stack[1:]] == [MailScreen, Help]
        await press(pilot, "escape")
        assert [type(screen) for screen in app.screen_stack[1:]] == [MailScreen]


async def test_the_palette_finds_an_action_and_does_it(root: Path) -> None:
    app = app_on(root)
    async with running(app) as pilot:
        await press(pilot, "colon")
        type_ahead(pilot, *"archive")
        await until(pilot, lambda: bool(app.screen.query("CommandList > *") or app.screen.query("OptionList")))
        await settled(pilot)
        await press(pilot, "enter")
        await until(pilot, lambda: len(app.session.mailbox.ids("Archive")) == 1)


def test_every_action_is_carried_out_by_something() -> None:
    from tui.screens.compose import Compose
    from tui.widgets.message_list import MessageList
    from tui.widgets.reader import Reader

    owners: dict[Context, type[object]] = {
        Context.ANYWHERE: MailApp,
        Context.MAIL: MailScreen,
        Context.LIST: MessageList,
        Context.READER: Reader,
        Context.COMPOSE: Compose,
        Context.OUTBOX: OutboxScreen,
    }
    for action in ACTIONS:
        assert hasattr(owners[action.context], f"action_{action.id}"), action.id


def test_no_key_means_two_things_in_one_place() -> None:
    for context in (Context.LIST, Context.READER):
        for action in ACTIONS:
            if action.context is not context:
                continue
            for other in ACTIONS:
                if other is not action and other.context in (context, Context.ANYWHERE):
                    assert not set(action.keys) & set(other.keys), (action.id, other.id)


async def test_leaving_stops_the_agent(root: Path) -> None:
    agent = FakeAgent()
    app = app_on(root, agent)
    async with running(app) as pilot:
        type_ahead(pilot, "ctrl+q")
        await settled(pilot)
        assert agent.stopped


async def test_who_founded_the_network_invites_others_from_the_screen(root: Path) -> None:
    agent = FakeAgent()
    agent.is_founder = True
    app = app_on(root, agent)
    async with running(app) as pilot:
        await press(pilot, "I", "=bob@village.example", "enter")
        await until(pilot, lambda: "p2pmail:line-for-bob@village.example" in invite_said(app))
        agent.refuse = ValueError("bob@village.example belongs to somebody.")
        await press(pilot, "enter")
        await until(pilot, lambda: "belongs to somebody" in invite_said(app))


async def test_who_did_not_found_the_network_is_told_so(root: Path) -> None:
    app = app_on(root, FakeAgent())
    async with running(app) as pilot:
        await press(pilot, "I")
        assert mail_screen(app) is app.screen


def invite_said(app: MailApp) -> str:
    """What the invite's dialog shows."""
    return str(app.screen.query_one("#invite-result", Static).content)
