"""The set-up screen: start the demo, join with an invite, or found a network."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, ContentSwitcher, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from mail.events import Progress, Trouble
from tui.application import application
from tui.background import explain
from tui.messages import Heard
from tui.session import Session

WELCOME = (
    "Mail without a server: messages are sealed on your computer, kept in copies by the computers of your community "
    "until the recipient collects them, and then deleted."
)
WAYS = (
    (1, "try", "Try it", "a private network on this machine; nothing is kept"),
    (2, "invite", "Paste an invite", "you were sent a line to join with"),
    (3, "found", "Found a network", "be the first, and invite the others"),
)


class FoldedInput(Input):
    """A line that takes the whole of a paste: Textual's takes its first line, and mail programs fold what is long."""

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        self.insert_text_at_cursor(" ".join(event.text.split()))


class Setup(Screen[None]):
    """Offers three ways to start, with a form for two of them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1,t", "go('try')", "try it", show=False),
        Binding("2,i", "go('invite')", "invite", show=False),
        Binding("3,f", "go('found')", "found", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("escape", "back", "back", key_display="Esc"),
        Binding("ctrl+q", "app.quit", "leave"),
    ]
    AUTO_FOCUS = "#ways"

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._working = False

    def compose(self) -> ComposeResult:
        """Lay out the ways and the forms."""
        with VerticalScroll(id="setup"), Vertical(id="setup-box"):
            yield Static("p2pmail", id="setup-title")
            yield Static(WELCOME, id="setup-welcome")
            with ContentSwitcher(initial="ways"):
                yield OptionList(*(_way(*way) for way in WAYS), id="ways")
                with Vertical(id="invite-form", classes="form"):
                    yield Label("Invite (folded lines are put together)")
                    yield FoldedInput(id="invite-line", compact=True, select_on_focus=False)
                    yield from _passphrase("invite")
                    with Horizontal(classes="buttons"):
                        yield Button("Join", id="join-now", variant="primary", compact=True)
                        yield Button("Back", classes="back", compact=True)
                with Vertical(id="found-form", classes="form"):
                    yield Label("Name of the network (letters, digits, dots)")
                    yield Input(id="network-name", placeholder="village.example", compact=True)
                    yield Label("Your address in it")
                    yield Input(id="own-address", placeholder="you@village.example", compact=True)
                    yield from _passphrase("found")
                    with Horizontal(classes="buttons"):
                        yield Button("Found it", id="found-now", variant="primary", compact=True)
                        yield Button("Back", classes="back", compact=True)
            yield Static("", id="setup-said", markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open the chosen way."""
        self.action_go(event.option_id or "")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Submit a form, or go back."""
        if self._working:
            return
        match event.button.id:
            case "join-now":
                self._join()
            case "found-now":
                self._found()
            case _:
                self.action_back()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to the next field; submit from the last one."""
        if self._working:
            return
        match event.input.id:
            case "invite-line":
                self._check_invite()
            case "invite-again":
                self._join()
            case "found-again":
                self._found()
            case _:
                self.focus_next()

    def _check_invite(self) -> None:
        """Go on once the invite is whole: where a paste arrives as keys, each of its lines ends with Enter."""
        from mail.membership.invite import InviteError, read_invite

        try:
            read_invite(self.query_one("#invite-line", Input).value)
        except InviteError as error:
            self._say(str(error))
        else:
            self._say("")
            self.focus_next()

    def action_go(self, way: str) -> None:
        """Start the demo, or show a form."""
        switcher = self.query_one(ContentSwitcher)
        if self._working or switcher.current != "ways":
            return
        if way == "try":
            application(self).try_it()
            return
        switcher.current = f"{way}-form"
        self.query_one("#invite-line" if way == "invite" else "#network-name", Input).focus()

    def action_back(self) -> None:
        """Go back to the ways, or from there to the mail screen if there is one."""
        switcher = self.query_one(ContentSwitcher)
        if switcher.current != "ways":
            switcher.current = "ways"
            self._say("")
            self.query_one("#ways").focus()
        elif len(self.app.screen_stack) > 2:
            self.dismiss(None)

    # -- joining and founding

    def _join(self) -> None:
        line = " ".join(self.query_one("#invite-line", Input).value.split())
        passphrase = self._passphrase("invite")
        if not line:
            self._say("Paste the invite first: the whole line.")
        elif isinstance(passphrase, str):
            self._begin(lambda agent: agent.join(line, passphrase or None), "Asking for your certificate ...")
            self._session.given = passphrase or None

    def _found(self) -> None:
        name = self.query_one("#network-name", Input).value.strip()
        address = self.query_one("#own-address", Input).value.strip()
        passphrase = self._passphrase("found")
        if not name or "@" not in address:
            self._say("A name for the network and an address such as you@village.example, please.")
        elif isinstance(passphrase, str):
            self._begin(lambda agent: agent.found(name, address, passphrase or None), "Making keys ...")
            self._session.given = passphrase or None

    def _passphrase(self, form: str) -> str | None:
        first = self.query_one(f"#{form}-passphrase", Input).value
        if first == self.query_one(f"#{form}-again", Input).value:
            return first
        self._say("The two passphrases differ.")
        return None

    def _begin(self, act: object, words: str) -> None:
        self._working = True
        self._say(words)
        self.run_worker(self._do(act), group="setup", exclusive=True, exit_on_error=False)

    async def _do(self, act: object) -> None:
        assert callable(act)
        session = self._session
        try:
            if session.agent is None:
                session.agent = await asyncio.to_thread(
                    session.services.open_agent, session.profile.root, session.options
                )
            end = session.agent.subscribe(application(self).hear)
            try:
                answer = await act(session.agent)
            finally:
                end()
        except Exception as error:
            self._say(explain("do that", error))
            return
        finally:
            self._working = False
        self.app.notify(str(answer), title="Ready", markup=False)
        # A worker of the application: this screen can't wait for its own end.
        self.app.run_worker(application(self).enter(session), exit_on_error=False)

    @on(Heard)
    def _heard(self, event: Heard) -> None:
        match event.event:
            case Progress(what, _, _):
                self._say(what)
            case Trouble(text):
                self._say(text)

    def _say(self, text: str) -> None:
        self.query_one("#setup-said", Static).update(text)


def _way(number: int, id: str, title: str, text: str) -> Option:  # noqa: A002
    return Option(Content.assemble((f"{number}  {title}\n", "bold"), (f"   {text}\n", "dim")), id=id)


def _passphrase(form: str) -> ComposeResult:
    yield Label("A passphrase for your keys (empty: not protected)")
    yield Input(id=f"{form}-passphrase", password=True, compact=True)
    yield Label("The same again")
    yield Input(id=f"{form}-again", password=True, compact=True)
