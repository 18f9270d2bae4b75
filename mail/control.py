"""The control socket: commands send requests to the process that runs a profile's agent (design, section 6).

A Unix socket in the profile. Each request and each answer is one line of JSON. Only the profile's owner can open it
(mode 0600 in a folder of mode 0700). The caller supplies the function that answers requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from overlay.errors import OverlayError
from storage.database import DatabaseError
from storage.errors import UNAVAILABLE, P2PMailError
from storage.user.keyring import KeyringError

log = logging.getLogger(__name__)

LINE = 64 * 1024
"""Most bytes of a line."""
ANSWER_WITHIN = 60.0
"""Seconds after which a request without an answer fails."""
CONNECT_WITHIN = 2.0
"""Seconds after which connecting fails."""

Handler = Callable[[str], Awaitable[dict[str, object]]]


class NotRunning(P2PMailError):
    """No process runs this profile now."""

    exit_code = UNAVAILABLE
    advice = "Start the reader, or `p2pmail sync --watch`."


class ControlServer:
    """Answers requests on the socket at `path` until closed."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.AbstractServer | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the socket, replacing one that a killed process left behind. Raises OSError."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=LINE)
        self._path.chmod(0o600)

    async def close(self) -> None:
        """Close and remove the socket. Cancels requests that are being answered."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            answer = await self._answer(reader)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except ConnectionError:
            pass
        except asyncio.CancelledError:  # by `close`. Python 3.11's streams log a task that ends as cancelled
            pass
        finally:
            self._answering.discard(task)
            await _closed(writer)

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, object]:
        try:
            line = await reader.readline()
            request = json.loads(line)["request"]
            return await self._handler(str(request))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return {"error": f"not a request: {error}"}
        except ConnectionError:
            raise
        except (OverlayError, DatabaseError, KeyringError, OSError) as error:  # its message is for the user
            log.info("a control request failed: %s", error)
            return {"error": str(error)}
        except Exception as error:  # a bug: report it to the caller and keep the node running
            log.exception("a control request failed")
            return {"error": str(error) or type(error).__name__}


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def ask(path: Path, request: str) -> dict[str, object]:
    """Send a request to the process that runs this profile, and return its answer. Raises NotRunning."""
    try:
        connecting = asyncio.open_unix_connection(str(path), limit=LINE)
        reader, writer = await asyncio.wait_for(connecting, CONNECT_WITHIN)
    except (TimeoutError, OSError) as error:
        raise NotRunning("No process runs this profile now.") from error
    try:
        writer.write(json.dumps({"request": request}).encode() + b"\n")
        await writer.drain()
        line = await asyncio.wait_for(reader.readline(), ANSWER_WITHIN)
        answer = json.loads(line)
    except (TimeoutError, OSError, ValueError) as error:
        raise NotRunning("The process that runs this profile doesn't answer.") from error
    finally:
        await _closed(writer)
    return answer if isinstance(answer, dict) else {}
