"""Figures of this node and its view of the overlay. Asks the agent every 3 s and redraws only changes."""

from __future__ import annotations

import math
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from mail.events import NodeStatus
from tui.columns import when
from tui.reading import size
from tui.session import Session

EVERY = 3.0
BAR = 30


class NodeScreen(ModalScreen[None]):
    """A page of figures."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,i", "dismiss", "close", key_display="Esc")]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._shown: NodeStatus | str = ""

    def compose(self) -> ComposeResult:
        """One text."""
        with Vertical(classes="dialog wide") as box:
            box.border_title = "Node and overlay"
            box.border_subtitle = "Esc closes"
            yield Static("asking ...", id="figures", markup=False)

    def on_mount(self) -> None:
        """Ask now, and every `EVERY` seconds."""
        self._ask()
        self.set_interval(EVERY, self._ask)

    def _ask(self) -> None:
        self.run_worker(self._update(), group="status", exclusive=True, exit_on_error=False)

    async def _update(self) -> None:
        shown: NodeStatus | str
        if self._session.agent is None or not self._session.started:
            shown = "Nothing runs yet: without an address there is no node here.\nThe palette (:) has Join a network."
        else:
            try:
                shown = await self._session.agent.status()
            except Exception as error:
                shown = f"The node gave no status: {error}"
        if shown != self._shown:
            self._shown = shown
            text = shown if isinstance(shown, str) else status_text(shown)
            self.query_one("#figures", Static).update(text)


REACHED = {True: "others reach it", False: "others can't reach it", None: ""}


def availability(status: NodeStatus) -> tuple[str, str]:
    """The measured availability p of nodes, with its interval."""
    if status.availability is None or status.interval is None:
        return "not measured yet", "probes are on their way"
    low, high = status.interval
    return f"{status.availability:.1%} of nodes are up", f"{low:.0%} to {high:.0%} (90%), {status.observations} probed"


def copies(status: NodeStatus) -> tuple[str, str]:
    """The number of copies k, and the delivery probability that it gives."""
    target = f"{100 * status.target:.6g}%"
    if status.reached is None:
        return str(status.k), f"until p is known; the target is {target}"
    if status.reached < status.target:
        return str(status.k), f"reach {exact_percent(status.reached)} here, not the target of {target}"
    return str(status.k), f"reach the target of {target}"


def exact_percent(share: float) -> str:
    """A probability in percent, never rounded up, with two digits of the shortfall: 0.99876 gives 99.87%."""
    lacking = max((1 - share) * 100, 1e-5)
    digits = max(1, 1 - math.floor(math.log10(lacking) + 1e-9))
    scale = 10**digits
    return f"{math.floor(share * 100 * scale + 1e-6) / scale:.{digits}f}".rstrip("0").rstrip(".") + "%"


def network(status: NodeStatus) -> tuple[str, str]:
    """Whether other nodes answer."""
    if status.alone:
        return "this node alone", "nobody else has been in it yet"
    if status.online is None:
        return "not known yet", ""
    if status.online or status.offline_since is None:
        return "online", ""
    since = when(status.offline_since, status.offline_since, 12)
    return "offline", f"since {since}: mail waits until somebody answers"


def status_text(status: NodeStatus) -> Text:
    """The figures, each with its meaning."""
    share = status.bytes / status.quota if status.quota else 0.0
    full = round(min(1.0, share) * BAR)
    node = status.mode == "node"
    mode = "node: keeps mail for others" if node else "client: asks the nodes, keeps nothing for others"
    way = "HTTPS, by way of one node: nothing answers by UDP" if status.transport == "https" else "UDP"
    rows = [
        ("Node id", status.node_id, ""),
        ("Mode", mode, ""),
        ("Listening on", status.listening or "nothing", REACHED[status.reachable]),
        ("Goes by", way, ""),
        ("Network", *network(status)),
        ("Contacts", str(status.contacts), "nodes known and alive"),
        ("Availability", *availability(status)),
        ("Copies (k)", *copies(status)),
        ("", "", ""),
        ("Kept here", f"{status.objects} objects for others, {status.inboxes} inboxes", ""),
        ("Space", f"{'━' * full}{'╌' * (BAR - full)} {size(status.bytes)} of {size(status.quota)}", ""),
        ("", "", ""),
        ("Version", status.version, ""),
    ]
    text = Text()
    for label, value, meaning in rows:
        text.append(f"{label:<14}", "dim")
        text.append(value, "bold" if label else "")
        text.append(f"   {meaning}\n" if meaning else "\n", "dim")
    return text
