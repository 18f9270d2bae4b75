"""The bottom line: what the most useful keys do here. Made of the bindings that are active now."""

from __future__ import annotations

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.app import RenderResult
from textual.widget import Widget


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
        for item in sorted(active, key=lambda item: item.binding.action in ("help", "command_palette")):
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
