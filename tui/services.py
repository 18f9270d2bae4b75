"""Where the screen gets its agent and its demo from: imported only when they are asked for, after the first paint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.ports import AgentPort, DemoPort, Options


class RealServices:
    """The user agent of mail/; see tui.ports.Services."""

    def open_agent(self, profile: Path, options: Options) -> AgentPort:
        """The agent of this profile, not started yet."""
        from mail.agent_thread import open_agent

        return open_agent(profile, options)

    def open_demo(self, progress: Callable[[str], None]) -> DemoPort:
        """Start a private overlay."""
        from mail.demo.journey import open_demo

        return open_demo(progress)
