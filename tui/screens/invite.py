"""Makes an invite for an address, for the founder of a network."""

from __future__ import annotations

from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from tui.background import explain
from tui.ports import AgentPort


class InviteScreen(ModalScreen[None]):
    """Asks for an address, and shows the invite as one line to send."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave it", key_display="Esc"),
        Binding("f6", "copy", "copy", key_display="F6"),
    ]

    def __init__(self, agent: AgentPort) -> None:
        super().__init__()
        self._agent = agent
        self._line = ""

    def compose(self) -> ComposeResult:
        """Lay out the input and the result."""
        with Vertical(classes="dialog") as box:
            box.border_title = "Invite somebody"
            yield Label("The address that the new member will have", markup=False)
            yield Input(compact=True, id="invite-address")
            yield Static("", id="invite-result", markup=False)
            yield Label("Enter makes the invite · Esc leaves", classes="dim", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Make the invite."""
        if event.value.strip():
            self._make(event.value.strip())

    @work(exclusive=True)
    async def _make(self, address: str) -> None:
        result = self.query_one("#invite-result", Static)
        try:
            self._line = await self._agent.invite(address)
        except Exception as error:
            result.update(explain("make an invite", error))
            return
        result.update(
            f"Send this to {address}, over something you trust. It is good for one use in 14 days:\n\n{self._line}\n\n"
            "F6 asks the terminal to copy it; not every terminal does."
        )

    def action_copy(self) -> None:
        """Ask the terminal to copy the line (OSC 52). The terminal doesn't answer, so success is unknown."""
        if self._line:
            self.app.copy_to_clipboard(self._line)

    def action_leave(self) -> None:
        """Done."""
        self.dismiss()
