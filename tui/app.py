"""The application: holds the session, pushes screens, and passes on the agent's events.

What a screen shows is in its own file in tui/screens/. Nothing slow runs here, and nothing here knows the network.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.color import Color
from textual.events import Event as TextualEvent
from textual.screen import Screen

from mail.events import Event, NewMail, Online, OutboxChanged, Progress, Trouble
from mail.mailbox import Row
from tui.actions import Context, bindings
from tui.background import Failed
from tui.columns import person, when
from tui.ending import listen
from tui.input_queue import InputQueue, Mark
from tui.messages import Heard
from tui.pauses import Pauses, after
from tui.ports import DemoPort, Options, Services
from tui.screens.mail import MailScreen
from tui.services import RealServices
from tui.session import Session
from tui.theme import DARK, NO_COLOUR, THEMES

if TYPE_CHECKING:
    from textual.command import Provider

    from mail.mime.addresses import Address
    from mail.write.drafts import DraftForm


NAMED = 4
"""Messages named in one notification of new mail."""


def _provider() -> type[Provider]:
    from tui.palette import ActionProvider

    return ActionProvider


class MailApp(App[None]):
    """The mail reader."""

    TITLE = "p2pmail"
    CSS_PATH = "theme.tcss"
    BINDINGS = bindings(Context.ANYWHERE)
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_provider}
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(
        self,
        options: Options | None = None,
        services: Services | None = None,
        *,
        demo: bool = False,
        now: Callable[[], float] = time.time,
        pauses: Pauses | None = None,
    ) -> None:
        without_colour = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if without_colour else None)
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = NO_COLOUR if without_colour else DARK.name
        self.now = now
        self.pauses = pauses or Pauses()
        self.services: Services = services or RealServices()
        self.options = options or Options()
        self.session = Session.of(self.services, self.options)
        self._demo = demo
        self._listed = False
        self._leaving = False
        self._arrived: list[NewMail] = []
        self.typed = InputQueue(self, super().on_event)
        self.offline = ""
        """The title's words while no other node answers, with the time since when; "" while one does."""

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Define `muted`, our colour for secondary text, for every theme."""
        theme = self.current_theme
        if theme.ansi:
            return {"muted": "ansi_bright_black"}
        back = Color.parse(theme.background or ("#121212" if theme.dark else "#efefef"))
        ink = Color.parse(theme.foreground or ("#e0e0e0" if theme.dark else "#1f1f1f"))
        return {"muted": back.blend(ink, 0.62).hex}

    # -- keys

    async def on_event(self, event: TextualEvent) -> None:
        """Handle keys, pastes and clicks one after the other."""
        await (self.typed.put(event) if self.typed.takes(event) else super().on_event(event))

    def hold_keys(self) -> None:
        """Let keys wait for what a thread is about to bring, since they may be meant for it (at most a second)."""
        self.typed.hold()

    def release_keys(self) -> None:
        """It is there."""
        self.typed.release()

    async def on_input_queue_mark(self, mark: Mark) -> None:
        """An input has been handled."""
        await self.typed.arrived(mark)

    # -- beginning

    def on_mount(self) -> None:
        """Show the mail first; the agent starts once the first list is drawn."""
        listen(self.keep_unsent, lambda: self.session, self._told_to_stop)
        if self._demo:
            self.try_it()
        elif self.session.new:
            self.set_up()
        else:
            self.push_screen(MailScreen(self))

    def first_list(self) -> None:
        """The first list is drawn: open the agent, and bring the index up to date."""
        if not self._listed:
            self._listed = True
            self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, MailScreen):
                screen.begin_watching()
        self.run_worker(self._start_agent(), group="agent", exit_on_error=False)

    async def _start_agent(self) -> None:
        session = self.session
        self._title("starting ...")
        try:
            if session.agent is None:
                session.agent = await asyncio.to_thread(self.services.open_agent, session.profile.root, self.options)
            if not session.agent.joined():
                self._title("no address yet (: join)")
                return
            passphrase = await asyncio.to_thread(session.passphrase)
            while True:
                if session.agent.locked() and passphrase is None:
                    from tui.screens.passphrase import Passphrase

                    passphrase = await self.push_screen_wait(Passphrase())
                    if passphrase is None:
                        self._title("locked: not sending, not collecting")
                        return
                try:
                    await session.start(passphrase, self.hear)
                except Exception as error:
                    if session.agent.locked() and session.options.passphrase_file is None:
                        self.notify(str(error), severity="error", markup=False)
                        passphrase = None
                        continue
                    raise
                break
            self._title(session.address)
        except Exception as error:
            self._title("not connected")
            self.post_message(Failed("start sending and collecting", error))

    def _title(self, whose: str) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, MailScreen) and screen.is_mounted:
                screen.title_line.whose = whose

    # -- first steps

    def set_up(self) -> None:
        """The first start, or later: try it, paste an invite, found a network."""
        from tui.screens.setup import Setup

        self.push_screen(Setup(self.session))

    def try_it(self) -> None:
        """A private overlay on this machine."""
        from tui.screens.starting import Starting

        self.push_screen(Starting(self.services), self.enter_demo)

    def enter_demo(self, demo: DemoPort | None) -> None:
        """Show the demo's mail."""
        if demo is None:
            if len(self.screen_stack) <= 1:
                self.exit()
            return
        self.run_worker(self.enter(Session.of(self.services, self.options, demo)), exit_on_error=False)

    async def enter(self, session: Session) -> None:
        """Show another session's mail in place of this one's."""
        if session is not self.session:
            await self.session.close()
        self.session = session
        self._listed = False
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        await self.push_screen(MailScreen(self))

    # -- events of the agent

    def hear(self, event: Event) -> None:
        """Take an event; called from the agent's thread."""
        self.post_message(Heard(event))

    def on_heard(self, message: Heard) -> None:
        """Pass an event of the agent to the mail screens, and post it to every other screen."""
        screens = [screen for screen in self.screen_stack if isinstance(screen, MailScreen)]
        match message.event:
            case NewMail():
                self._announce_later(message.event)
            case Online(online, since):
                away = "" if since is None else f" since {when(since, self.now(), 5)}"
                self.offline = "" if online else f"offline{away}, mail waits"
            case Trouble(text):
                self.notify(text, severity="warning", timeout=10, markup=False)
        for screen in screens:
            self._show_event(screen, message.event)
        for other in self.screen_stack:
            if not isinstance(other, MailScreen):
                other.post_message(Heard(message.event))

    def _show_event(self, screen: MailScreen, event: Event) -> None:
        """Have one mail screen show what the event changed."""
        match event:
            case NewMail():
                screen.refresh_index()
            case OutboxChanged():
                screen.load_counts()
            case Progress(what, done, total):
                screen.show_progress(what, done, total)
            case Online():
                screen.title_line.offline = self.offline
            case Trouble():
                screen.load_notices()

    def _announce_later(self, mail: NewMail) -> None:
        """Collect arrivals for `Pauses.together` seconds, so that many become one notice."""
        self._arrived.append(mail)
        if len(self._arrived) == 1:
            after(self, self.pauses.together, self._tell_arrived)

    def on_failed(self, message: Failed) -> None:
        """Show a failure that belongs to no screen."""
        self.notify(message.text, severity="error", timeout=10, markup=False)

    def _tell_arrived(self) -> None:
        """Notify of the messages that arrived: sender and subject of the first few. Junk is left out."""
        from mail.mime import sanitize

        arrived, self._arrived = [mail for mail in self._arrived if mail.folder != "Junk"], []
        lines = []
        for mail in arrived[:NAMED]:
            where = "" if mail.folder == "Inbox" else f"[{mail.folder}] "
            lines.append(sanitize.line(f"{where}{person(mail.sender)}: {mail.subject or '(no subject)'}"))
        if len(arrived) > NAMED:
            lines.append(f"and {len(arrived) - NAMED} more")
        if lines:
            title = "New mail" if len(arrived) == 1 else f"{len(arrived)} new messages"
            self.notify("\n".join(lines), title=title, markup=False)

    # -- writing

    @property
    def me(self) -> Address:
        """The user as the sender. Without an address, drafts can still be written."""
        from mail.mime.addresses import Address

        return Address("", self.session.address)

    def write(self) -> None:
        """Begin a new message."""
        from tui.screens.compose import Compose

        self.push_screen(Compose(self.session, self.pauses, self.me))

    def answer(self, row: Row, *, everybody: bool) -> None:
        """Reply to a message."""
        from tui.screens.compose import Compose

        mailbox, me = self.session.mailbox, self.me

        def prepare() -> DraftForm:
            from mail.write.drafts import form_of
            from mail.write.reply import reply

            return form_of(reply(mailbox.open(row), me, all=everybody), row.message_id)

        self.push_screen(Compose(self.session, self.pauses, me, prepare, begin="#text"))

    def pass_on(self, row: Row) -> None:
        """Forward a message."""
        from tui.screens.compose import Compose

        mailbox, me = self.session.mailbox, self.me

        def prepare() -> DraftForm:
            from mail.write.drafts import form_of
            from mail.write.reply import forward

            return form_of(forward(mailbox.hold(row), me), row.message_id)

        self.push_screen(Compose(self.session, self.pauses, me, prepare))

    def continue_draft(self, row: Row) -> None:
        """Go on writing."""
        from tui.screens.compose import Compose

        mailbox = self.session.mailbox
        prepare = partial(mailbox.open_draft, row)
        self.push_screen(Compose(self.session, self.pauses, self.me, prepare, draft=row.unique, begin="#text"))

    def sync(self) -> None:
        """Send and collect now."""
        agent = self.session.agent
        if agent is None or not self.session.started:
            self.notify("Not connected yet: nothing can be sent or collected.", severity="warning")
            return
        self.run_worker(self._sync(), group="sync", exclusive=True, exit_on_error=False)

    async def _sync(self) -> None:
        agent = self.session.agent
        assert agent is not None
        self.hear(Progress("sending and collecting", 0, 0))
        try:
            await agent.sync()
        except Exception as error:
            self.post_message(Failed("send and collect", error))
        finally:
            self.hear(Progress("", 1, 1))

    # -- anywhere

    def action_help(self) -> None:
        """Show all keys."""
        from tui.screens.help import Help

        if not isinstance(self.screen, Help):
            self.push_screen(Help())

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Textual's own commands, without those that tui/actions.py has."""
        return (item for item in super().get_system_commands(screen) if item.title in ("Theme", "Screenshot"))

    # -- leaving

    async def action_quit(self) -> None:
        """Leave: drafts are kept, the agent stops in good order."""
        if self._leaving:
            return
        self._leaving = True
        self._title("closing ...")
        self.keep_unsent()
        self.run_worker(self._leave(), exit_on_error=False)

    async def _leave(self) -> None:
        try:
            await self.session.close()
        finally:
            self.exit()

    def _told_to_stop(self) -> None:
        self.run_worker(self.action_quit(), exit_on_error=False)

    def keep_unsent(self) -> None:
        """Save every open message as a draft, synchronously."""
        from tui.screens.compose import Compose

        for screen in self.screen_stack:
            if isinstance(screen, Compose):
                screen.keep_now()

    def _handle_exception(self, error: Exception) -> None:
        with suppress(Exception):
            self.keep_unsent()
        super()._handle_exception(error)


def run_screen(args: argparse.Namespace) -> int:
    """Run the screen until the user leaves; the exit code."""
    options = Options(args.profile, args.passphrase_file, args.listen, tuple(args.join), args.network)
    app = MailApp(options, demo=args.demo)
    app.run(mouse="P2PMAIL_NO_MOUSE" not in os.environ)
    return app.return_code or 0
