"""Opens the real user agent and the demo. Tests hand the application another `Services` instead.

The imports are inside the methods because they load the overlay and the cryptography. The
screen calls them in threads after the first paint, so the mail on disk is shown before any of it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.ports import AgentPort, DemoPort, Options


class RealServices:
    """Implements tui.ports.Services with mail/agent_thread.py and mail/demo/journey.py."""

    def open_agent(self, profile: Path, options: Options) -> AgentPort:
        """The agent of this profile, not started yet."""
        from mail.agent_thread import open_agent

        return open_agent(profile, options)

    def open_demo(self, progress: Callable[[str], None]) -> DemoPort:
        """Start a private overlay with sample mail; blocks for several seconds."""
        from mail.demo.journey import open_demo

        return open_demo(progress)
