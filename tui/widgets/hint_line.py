"""The bottom line: what the most useful keys do here. Made of the bindings that are active now."""

from __future__ import annotations

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.app import RenderResult
from textual.binding import Binding
from textual.widget import Widget

from tui.actions import ACTIONS, Context, key_name

GAP = 2
_ACTIONS = {f"{action.context.name.lower()}.{action.id}": action for action in ACTIONS}
ANYWHERE = 1000
_ORDER = {
    f"{action.context.name.lower()}.{action.id}": place + ANYWHERE * (action.context is Context.ANYWHERE)
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
        focused = self.screen.focused

        def _key(binding: Binding) -> str:
            """The first of the action's keys that isn't typed into the line where the cursor is."""
            action = _ACTIONS.get(binding.id or "")
            keys = action.keys if action is not None else (binding.key,)
            free = [key for key in keys if focused is None or not focused.check_consume_key(key, _character(key))]
            return key_name(free[0]) if free else ""

        def _length(binding: Binding) -> int:
            return cell_len(_key(binding)) + 1 + cell_len(binding.description) + GAP

        active = [item.binding for item in self.screen.active_bindings.values() if item.binding.show and item.enabled]
        hints = {binding.action: binding for binding in sorted(active, key=_rank) if _key(binding)}
        room = self.content_size.width
        # What can be done anywhere, help above all, stays in sight: the others share what is left.
        always = [binding for binding in hints.values() if _rank(binding) >= ANYWHERE]
        left = room - sum(map(_length, always))
        line = Text(no_wrap=True, end="")
        for binding in hints.values():
            if binding not in always:
                left -= _length(binding)
                if left < 0:
                    continue
            elif cell_len(line.plain) + _length(binding) > room + GAP:
                continue
            if line:
                line.append(" " * GAP)
            line.append(_key(binding), "bold")
            line.append(f" {binding.description}", Style(meta={"@click": f"app.simulate_key('{binding.key}')"}))
        return line


def _rank(binding: Binding) -> int:
    return _ORDER.get(binding.id or "", 0)


def _character(key: str) -> str | None:
    name = key_name(key)
    return name if len(name) == 1 else None
