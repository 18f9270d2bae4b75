"""Shows the steps while the demo's private overlay starts."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import ProgressBar, Static

from tui.background import Failed, in_background
from tui.ports import DemoPort, Services

STEPS = 12


class Starting(ModalScreen[DemoPort | None]):
    """Answers with the demo, or None when it couldn't start."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "leave", key_display="Esc")]

    class Step(Message):
        """A step of the start, in words."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Ready(Message):
        """The demo runs."""

        def __init__(self, demo: DemoPort) -> None:
            super().__init__()
            self.demo = demo

    def __init__(self, services: Services) -> None:
        super().__init__()
        self._services = services
        self._steps: list[str] = []

    def compose(self) -> ComposeResult:
        """Lay out progress bar and steps."""
        with Vertical(classes="dialog") as box:
            box.border_title = "A private network on this machine"
            yield Static("12 nodes, two addresses, sample mail. Nothing is kept.\n", markup=False)
            yield ProgressBar(total=None, show_percentage=False, show_eta=False)
            yield Static("", id="steps", markup=False)

    def on_mount(self) -> None:
        """Start the demo in a thread."""
        services = self._services

        def step(text: str) -> None:
            self.post_message(self.Step(text))

        def work() -> Message:
            return self.Ready(services.open_demo(step))

        in_background(self, "start the demo", work)

    @on(Step)
    def _step(self, event: Step) -> None:
        self._steps = [*self._steps, event.text][-8:]
        self.query_one("#steps", Static).update("\n".join(self._steps))

    @on(Ready)
    def _ready(self, event: Ready) -> None:
        self.dismiss(event.demo)

    @on(Failed)
    def _failed(self, event: Failed) -> None:
        self.query_one(ProgressBar).display = False
        self.query_one("#steps", Static).update(f"{event.text}\n\nEsc goes back.")

    def action_leave(self) -> None:
        """Close without a demo."""
        self.dismiss(None)
