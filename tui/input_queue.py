"""Handles what is typed one key at a time, in the order in which it was typed.

Theory of operation
-------------------
Textual hands each key to the widget that has the focus. A widget handles a printable key itself; a key that is a
binding of one of its parents travels up from queue to queue first. The next key overtakes it there: of `a b Backspace
c` in one packet the Backspace came last, Tab came after the text for the next field, and text typed right after a
command that opens a screen went to the screen before (Textual issue #6605). A slow line does this to people, since it
delivers what they typed in lumps.

So the application looks at a key or a paste only when everything before it has been done:

    idle        nothing was typed; the next input is handled at once
    travelling  an input was handed on. A `Mark` follows it through the same queues, from the focused widget up to the
                application, and arrives when every handler on the way has run
    settling    what the handlers asked for is carried out: callbacks of the application, then the events of the screen
                that is shown now (a new one composes itself and focuses a widget). If the screen or the focus changes
                while it does, that is waited for once more, at most SETTLE times
    idle        again; the next input that waits is taken

Invariants:

- Inputs are handled in the order in which they arrived, and none is dropped.
- Characters that the focused widget takes as text are handed on together: it handles them in order by itself, and a
  long text that arrives as keys (a terminal without bracketed paste) costs no more than before.
- A mark that is lost, because a widget on the way was removed, holds nothing up: every LOOK seconds it is looked
  whether the widget is still there, and after LONGEST seconds the next input is taken in any case.
- `hold` keeps what follows waiting for something that comes from a thread, such as a message that is being opened,
  until `release`, or until HELD seconds are over.
- Movements of the mouse never wait. Its buttons do, so that a click hits what was on the screen after the keys before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual import events
from textual.message import Message

if TYPE_CHECKING:
    from textual.app import App
    from textual.message_pump import MessagePump
    from textual.screen import Screen
    from textual.timer import Timer
    from textual.widget import Widget

SETTLE = 4
"""How often the screen that is shown is waited for after one input."""

LOOK = 0.1
"""Seconds between looks at whether a mark can still arrive."""

LONGEST = 5.0
"""Seconds after which the next input is taken though the one before isn't done."""


HELD = 1.0
"""The longest time in seconds for which the next input waits for something that comes from a thread."""


class Mark(Message, namespace="input_queue"):
    """Follows an input through the queues that it goes through."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class InputQueue:
    """The keys, pastes and clicks that wait until those before them are done."""

    def __init__(self, app: App[None], handle: Callable[[events.Event], Awaitable[None]]) -> None:
        """`handle` does with an input what Textual does."""
        self._app = app
        self._handle = handle
        self._waiting: deque[events.Event] = deque()
        self._number = 0
        self._busy = False
        self._held: Timer | None = None
        self._round = 0
        self._target: MessagePump | None = None
        self._shown: tuple[Screen[object] | None, Widget | None] = (None, None)
        self._looks = 0
        self._timer: Timer | None = None

    @staticmethod
    def takes(event: events.Event) -> bool:
        """Whether an event is an input whose turn matters."""
        if isinstance(event, events.Paste):
            return not event.is_forwarded
        return isinstance(event, events.InputEvent) and not (event.is_forwarded or isinstance(event, events.MouseMove))

    @property
    def idle(self) -> bool:
        """Whether everything that was typed is done."""
        return not (self._busy or self._waiting)

    def hold(self) -> None:
        """Take no further input until `release`: it may be meant for what comes then."""
        if self._held is not None:
            self._held.stop()
        self._held = self._app.set_timer(HELD, self.release)

    def release(self) -> None:
        """What was waited for is there."""
        if self._held is not None:
            self._held.stop()
            self._held = None
            self._app.call_later(self._go_on)

    async def _go_on(self) -> None:
        if not self._busy:
            await self._next()

    async def put(self, event: events.Event) -> None:
        """Handle an input now if everything before it is done, otherwise when it is."""
        self._waiting.append(event)
        if not self._busy:
            await self._next()

    async def arrived(self, mark: Mark) -> None:
        """A mark has come back to the application."""
        if mark.number == self._number and self._busy:
            await self._settle()

    async def _next(self) -> None:
        if self._held is not None or not self._waiting:
            return
        self._busy = True
        self._round = 0
        focused = self._app.focused
        try:
            text = _is_text(self._waiting[0], focused)
            await self._handle(self._waiting.popleft())
            while text and self._waiting and _is_text(self._waiting[0], focused):
                await self._handle(self._waiting.popleft())
        finally:
            self._follow(focused or self._shown_screen())

    def _shown_screen(self) -> Screen[object] | None:
        return self._app.screen_stack[-1] if self._app.screen_stack else None

    def _follow(self, target: MessagePump | None) -> None:
        """Send a mark after what was handed to `target`."""
        self._number += 1
        self._target = target
        self._looks = 0
        if target is None or not target.post_message(Mark(self._number)):
            self._app.call_later(self._settle)
        if self._timer is None:
            self._timer = self._app.set_interval(LOOK, self._look)
        else:
            self._timer.resume()

    async def _settle(self) -> None:
        """The mark is back: go on when nothing has changed since it was sent, otherwise wait for what is shown now."""
        shown = self._shown_screen(), self._app.focused
        if self._round and (shown == self._shown or self._round >= SETTLE):
            await self._done()
            return
        self._shown = shown
        self._round += 1
        self._number += 1
        number = self._number
        self._app.call_later(self._wait_for_screen, number)

    def _wait_for_screen(self, number: int) -> None:
        """The application's own callbacks have run; now the events of the screen."""
        if number == self._number:
            self._follow(self._shown_screen())

    async def _look(self) -> None:
        self._looks += 1
        gone = self._target is None or not self._target.is_running or not self._target.is_attached
        if gone or self._looks * LOOK >= LONGEST:
            await self._done() if self._round >= SETTLE else await self._settle()

    async def _done(self) -> None:
        self._busy = False
        self._number += 1  # marks that are still under way mean nothing any more
        if self._timer is not None:
            self._timer.pause()
        await self._next()


def _is_text(event: events.Event, focused: Widget | None) -> bool:
    return (
        isinstance(event, events.Key)
        and event.is_printable
        and focused is not None
        and focused.check_consume_key(event.key, event.character)
    )
