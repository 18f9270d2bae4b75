"""The `p2pmail` command: parses the arguments and calls the command's function. Exit codes as in sysexits.h."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mail.version import Version

USAGE = os.EX_USAGE


class Parser(argparse.ArgumentParser):
    """argparse with the exit code of sysexits.h for usage errors."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parser() -> Parser:
    """The parser of all commands and their options."""
    common = Parser(add_help=False)
    common.add_argument("--profile", type=Path, default=argparse.SUPPRESS, help="the profile's folder")
    common.add_argument(
        "--passphrase-file",
        type=Path,
        default=argparse.SUPPRESS,
        help="a file whose first line is the passphrase of the keys",
    )
    top = Parser(
        prog="p2pmail", description="Serverless e-mail for scripts; the reader is p2pmail-tui.", parents=[common]
    )
    top.add_argument("--version", action=Version)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, answer: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(answer=answer)
        return made

    join = command("join", "user:join_", "join a network: make keys, get a certificate, publish the card")
    join.add_argument("invite", metavar="INVITE", nargs="*", help="the line that begins with p2pmail:")
    offline = join.add_argument_group("without a network", "see `p2pmail authority issue`")
    offline.add_argument(
        "--request", type=Path, metavar="FILE", help="write a certificate request for ADDRESS (given instead of INVITE)"
    )
    offline.add_argument(
        "--certificate", type=Path, metavar="FILE", help="the certificate that the authority issued for it"
    )
    offline.add_argument(
        "--network", type=Path, metavar="FILE", help="the authority's network file, with --certificate"
    )
    send = command("send", "user:send", "send a message (RFC 5322) from standard input")
    _add_sendmail_options(send)
    send.add_argument("address", metavar="ADDRESS", nargs="*")
    sync = command("sync", "user:sync", "send unsent mail, collect new mail")
    sync.add_argument("--watch", action="store_true", help="keep running until interrupted")
    listing = command("list", "local:list_", "list the messages of a folder")
    listing.add_argument("folder", metavar="FOLDER", nargs="?", default="Inbox")
    listing.add_argument("--json", action="store_true")
    show = command("show", "local:show", "print one message")
    show.add_argument("id", metavar="ID", help="a Message-ID")
    show.add_argument("--raw", action="store_true", help="the original bytes")
    search = command("search", "local:search", "search the mail")
    search.add_argument("query", metavar="QUERY", nargs="+")
    search.add_argument("--json", action="store_true")
    command("unread-count", "local:unread_count", "print the number of unread messages in the Inbox")
    command("outbox", "local:outbox", "show the state of sent mail").add_argument("--json", action="store_true")
    notices = command("notices", "local:notices", "show notices that you haven't seen yet")
    notices.add_argument("--all", action="store_true", help="also notices that you have seen")
    notices.add_argument("--json", action="store_true")
    notices.add_argument("--seen", action="store_true", help="mark the printed notices as seen")
    command("status", "user:status", "show the state of this node and its network").add_argument(
        "--json", action="store_true"
    )

    analyse = command("analyse", "analyse:analyse", "compare the paper's analysis with its figures and a simulation")
    analyse.add_argument("--trials", type=_trials, default=20_000, metavar="N", help="simulated trials for each figure")
    analyse.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed gives the same figures")
    analyse.add_argument("--svg", type=Path, metavar="FILE", help="also write Figure 2 to FILE")
    analyse.add_argument("--json", action="store_true")

    authority = commands.add_parser("authority", help="create a network and certify its members' addresses")
    actions = authority.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(answer=f"authority:{name}")
        made.add_argument("dir", metavar="DIR", type=Path, help="the authority's folder")
        return made

    init = action("init", "create a network: its authority and its network file")
    init.add_argument("--name", required=True)
    init.add_argument("--join", action="append", default=[], metavar="HOST:PORT[/KEY]")
    scope = init.add_mutually_exclusive_group()
    scope.add_argument(
        "--private", action="store_true", default=None, help="accept private addresses, whatever --join is"
    )
    scope.add_argument(
        "--public", dest="private", action="store_false", help="accept global addresses only, whatever --join is"
    )
    init.add_argument("--certified", action="store_true", help="admit only members' nodes")
    action("invite", "make an invite for a new member, one line to paste").add_argument("address", metavar="ADDRESS")
    serve = action("serve", "answer requests to join and to renew")
    serve.add_argument("--join", action="append", default=[], metavar="HOST:PORT[/KEY]")
    issue = action("issue", "issue a certificate without a server")
    issue.add_argument("address", metavar="ADDRESS")
    issue.add_argument("--request", type=Path, required=True, metavar="FILE")
    issue.add_argument("--out", type=Path, required=True, metavar="FILE")
    action("revoke", "revoke the certificates of an address").add_argument("address", metavar="ADDRESS")
    return top


def _add_sendmail_options(send: argparse.ArgumentParser) -> None:
    """The options of sendmail that programs pass: what they mean is done, the rest is accepted and ignored."""
    send.add_argument("-t", dest="from_headers", action="store_true", help="take recipients from To, Cc and Bcc")
    send.add_argument("-f", "-r", dest="sender", metavar="ADDRESS", help="the sender, which must be you")
    send.add_argument("-F", dest="name", metavar="NAME", default="", help="your display name, where From is missing")
    send.add_argument("-b", dest="mode", metavar="MODE", default="m", help="as in sendmail: m (the default) or p")
    for letter, words in (("i", "a line with one dot is text in any case"), ("v", ""), ("n", ""), ("G", ""), ("U", "")):
        send.add_argument(f"-{letter}", action="store_true", help=words or argparse.SUPPRESS)
    ignored = "accepted as in sendmail, with a value; has no effect"
    for letter in "oeNRBVOXLCp":
        send.add_argument(
            f"-{letter}", dest="ignored", metavar="VALUE", help=ignored if letter == "o" else argparse.SUPPRESS
        )


def _trials(text: str) -> int:
    count = int(text)
    if not 100 <= count <= 10_000_000:
        raise argparse.ArgumentTypeError("trials are 100 to 10,000,000")
    return count


def sendmail(argv: Sequence[str] | None = None) -> int:
    """`p2pmail-sendmail`: `p2pmail send` under the name and with the options that programs call sendmail with."""
    return main(["send", *(sys.argv[1:] if argv is None else argv)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback reaches the user."""
    # Not as defaults of the options: a command's default would override an option given before the command.
    args = parser().parse_args(argv, argparse.Namespace(profile=None, passphrase_file=None))
    from storage.user.profile import Profile

    module, name = args.answer.split(":")
    answer = getattr(importlib.import_module(f"mail.cli.{module}"), name)
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # any text in mail can be printed on any terminal
                stream.reconfigure(errors="backslashreplace")
        code = int(answer(args, Profile(args.profile)))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from mail.cli.errors import SOFTWARE, exit_code, words

        meaning = exit_code(error)
        print(f"p2pmail: {words(error)}", file=sys.stderr)
        if meaning is None:
            print(f"p2pmail: this is a fault of p2pmail ({type(error).__name__}); please report it", file=sys.stderr)
            if os.environ.get("P2PMAIL_DEBUG"):
                raise
            return SOFTWARE
        return meaning
