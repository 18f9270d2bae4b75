"""`p2pmail-tui --node-only`: runs a system node without a screen until a signal. Needs no passphrase."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from mail.agent import node_status, status_document
from mail.cli.errors import CONFIGURATION, OK, SOFTWARE, USAGE, CommandError, exit_code, words
from mail.cli.running import run_loop, stop_requested
from mail.control import ControlServer
from mail.membership.certificate_status import REVOCATIONS_EVERY
from mail.profile_node import open_system_node, read_network_file
from overlay.client import Overlay
from overlay.identity.contact import host_port, parse_host_port, parse_join
from storage.user.profile import Profile

RETRY = 60.0
"""Seconds to the next fetch of the revocation list if no node answered."""


def run(args: argparse.Namespace) -> int:
    """Run a node until SIGTERM or SIGINT; its exit code. Prints `listening on HOST:PORT` when it is ready."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return run_loop(_serve(args))
    except Exception as error:
        code = exit_code(error)
        print(f"p2pmail-tui: {words(error)}", file=sys.stderr)
        if code is None:
            print(
                f"p2pmail-tui: this is a fault of p2pmail ({type(error).__name__}); please report it", file=sys.stderr
            )
            logging.getLogger(__name__).debug("the fault", exc_info=True)
            return SOFTWARE
        return code


async def _serve(args: argparse.Namespace) -> int:
    try:
        if args.listen:
            parse_host_port(args.listen)
        for place in args.join:
            parse_join(place)
    except ValueError as error:
        raise CommandError(USAGE, f"{error}.") from error
    profile = Profile(args.profile)
    source = args.network or profile.network_file
    network = read_network_file(source)
    profile.create()
    with profile.lock("agent"):
        try:
            node = await open_system_node(
                profile, network, listen=args.listen or profile.config.listen, join=(*args.join, *profile.config.join)
            )
        except ValueError as error:
            raise CommandError(CONFIGURATION, str(error)) from error

        async def answer(request: str) -> dict[str, object]:
            if request == "status":
                return status_document(await node_status(node, profile.config, network.k))
            return {"error": f"a node without a user can't {request!r}"}

        control = ControlServer(profile.control_socket, answer)
        overlay = Overlay(node)
        watching = asyncio.create_task(_watch_revocations(overlay))
        try:
            await control.start()
            stopping = asyncio.create_task(stop_requested())
            await asyncio.sleep(0)  # install the signal handlers before saying that it is ready
            logging.getLogger(__name__).info("others join at %s", node.place)
            print(f"listening on {host_port(node.ip, node.port)}", flush=True)
            await stopping
            await node.leave()
        finally:
            watching.cancel()
            await control.close()
            await node.stop()
    return OK


async def _watch_revocations(overlay: Overlay) -> None:
    while True:
        heard = await overlay.refresh_revocations()
        await asyncio.sleep(REVOCATIONS_EVERY if heard else RETRY)
