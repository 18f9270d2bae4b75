"""The command palette's entries: every action of the registry that can be done where the user is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui.actions import ACTIONS, Action

HIDDEN = ("command_palette", "suspend_process")


class ActionProvider(Provider):
    """Finds actions by their label, help or id."""

    def _possible(self) -> Iterator[tuple[Action, object]]:
        """Actions with the widget, screen or app that carries them out: from the focus outwards."""
        focused = self.focused
        chain = [*(focused.ancestors_with_self if focused is not None else (self.screen,)), self.app]
        seen = set()
        for action in ACTIONS:
            if action.id in HIDDEN or action.id in seen:
                continue
            for node in chain:
                if hasattr(node, f"action_{action.id}"):
                    seen.add(action.id)
                    yield action, node
                    break

    async def discover(self) -> Hits:
        """Everything, before anything is typed."""
        for action, node in self._possible():
            yield DiscoveryHit(_title(action), partial(self._do, action, node), help=action.help)

    async def search(self, query: str) -> Hits:
        """What fits."""
        matcher = self.matcher(query)
        for action, node in self._possible():
            score = max(matcher.match(action.label), matcher.match(action.help) * 0.7)
            if score > 0:
                title = matcher.highlight(_title(action))
                yield Hit(score, title, partial(self._do, action, node), help=action.help)

    async def _do(self, action: Action, node: object) -> None:
        result = getattr(node, f"action_{action.id}")()
        if hasattr(result, "__await__"):
            await result


def _title(action: Action) -> str:
    return f"{action.label}  ({action.shown_keys})" if action.keys else action.label
