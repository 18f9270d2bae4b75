"""The bottom line: what the most useful keys do here. Made of the bindings that are active now."""

from __future__ import annotations

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.app import RenderResult
from textual.widget import Widget

from tui.actions import ACTIONS, Context

_ORDER = {
    f"{action.context.name.lower()}.{action.id}": place + 1000 * (action.context is Context.ANYWHERE)
    for place, action in enumerate(ACTIONS)
}
"""As in the registry, but what can be done anywhere comes last."""


class HintLine(Widget):
    """As many hints as fit; a click does the same as the key."""

    def on_mount(self) -> None:
        """Follow the focus, which changes the bindings."""
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> RenderResult:
        """The line."""
        line = Text(no_wrap=True, end="")
        used = 0
        seen: set[str] = set()
        active = [item for item in self.screen.active_bindings.values() if item.binding.show and item.enabled]
        for item in sorted(active, key=lambda item: _ORDER.get(item.binding.id or "", 0)):
            binding = item.binding
            if binding.action in seen:
                continue
            seen.add(binding.action)
            key = binding.key_display or binding.key
            length = cell_len(key) + cell_len(binding.description) + 3
            if used + length > self.size.width:
                continue
            used += length
            if line:
                line.append("  ")
            line.append(key, "bold")
            line.append(f" {binding.description}", Style(meta={"@click": f"app.simulate_key('{binding.key}')"}))
        return line
