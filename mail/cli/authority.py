"""The commands of an authority: init, invite, serve, issue, revoke (docs/commands.md)."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from contextlib import suppress
from pathlib import Path

from mail.cli.errors import CONFIGURATION, OK, PERMISSION, USAGE, CommandError
from mail.cli.passphrase import from_file, new_passphrase
from mail.cli.running import run_loop, stop_requested
from mail.membership.authority_service import AuthorityService
from mail.membership.create_network import create_network, make_invite, network_file
from mail.membership.create_network import revoke as revoke_address
from mail.membership.offline import issue_offline
from mail.mime import sanitize
from mail.profile_node import read_network_file
from overlay.identity.contact import parse_join
from overlay.identity.network_scope import Scope, decide
from storage.user.profile import Profile


def init(args: argparse.Namespace, _: Profile) -> int:
    """`p2pmail authority init DIR --name NAME [--join HOST:PORT]... [--private | --public]`."""
    _check_places(args.join)
    scope = decide(args.join, args.private)
    create_network(
        args.dir, args.name, args.join, new_passphrase(args), private_addresses=scope.private, certified=args.certified
    )
    print(f"founded {args.name}: {network_file(args.dir)}")
    _say(scope.words)
    _warn(scope)
    return OK


def invite(args: argparse.Namespace, _: Profile) -> int:
    """`p2pmail authority invite DIR ADDRESS`."""
    print(make_invite(args.dir, args.address, _passphrase(args)))
    network = read_network_file(network_file(args.dir))
    _warn(decide(network.join, network.private_addresses))
    return OK


def issue(args: argparse.Namespace, _: Profile) -> int:
    """`p2pmail authority issue DIR ADDRESS --request FILE --out FILE`."""
    certificate = issue_offline(args.dir, args.address, args.request, args.out, _passphrase(args))
    print(f"certified {certificate.address}: {args.out}")
    return OK


def revoke(args: argparse.Namespace, _: Profile) -> int:
    """`p2pmail authority revoke DIR ADDRESS`."""
    count = revoke_address(args.dir, args.address, _passphrase(args))
    print(f"revoked {count} certificate{'s' if count != 1 else ''} of {args.address}; `serve` publishes the list")
    return OK


def serve(args: argparse.Namespace, _: Profile) -> int:
    """`p2pmail authority serve DIR [--join HOST:PORT]`: answer until SIGTERM or SIGINT."""
    _check_places(args.join)
    return run_loop(_serve(args.dir, _passphrase(args), args.join))


async def _serve(folder: Path, passphrase: str | None, join: list[str]) -> int:
    service = AuthorityService(folder, passphrase, join=join, tell=_say)
    await service.start()
    network = service.network
    _warn(await asyncio.to_thread(decide, [*join, *network.join], network.private_addresses))
    print(f"answering for {service.network.name}", flush=True)
    working = asyncio.create_task(service.run())
    stopping = asyncio.create_task(stop_requested())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()  # a bug: fail instead of running on without answering
    finally:
        for task in (working, stopping):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await service.stop()
    return OK


def _warn(scope: Scope) -> None:
    if scope.warning:
        _say(f"warning: {scope.warning}")


def _say(words: str) -> None:
    print(sanitize.line(words), file=sys.stderr)


def _passphrase(args: argparse.Namespace) -> str | None:
    """The passphrase of the authority's key; None if it isn't protected. Raises CommandError."""
    try:
        protected = b"ENCRYPTED" in (args.dir / "authority.key").read_bytes()
    except OSError as error:
        raise CommandError(CONFIGURATION, f"There is no authority in {args.dir}: {error.strerror}.") from error
    if not protected:
        return None
    if args.passphrase_file:
        return from_file(args.passphrase_file)
    if not sys.stdin.isatty():
        raise CommandError(PERMISSION, "The authority's key is protected: name a --passphrase-file.")
    return getpass.getpass("Passphrase of the authority: ")


def _check_places(places: list[str]) -> None:
    for place in places:
        try:
            parse_join(place)
        except ValueError as error:
            raise CommandError(USAGE, f"--join: {error}.") from error
