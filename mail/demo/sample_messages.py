"""The messages of the demo: a thread, HTML, an attachment of 5 MB, spam, and an infected one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from mail.checks.spam import GTUBE

ALICE = "alice@demo.example"
BOB = "bob@demo.example"

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST" + b"-FILE!$H+H*"
"""The harmless test file for virus scanners, assembled here so that no scanner reports this source file."""

ATTACHMENT_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class DemoMessage:
    """A message ready to be sent."""

    message_id: str
    subject: str
    content: bytes


def sample_messages(now: float) -> Iterator[DemoMessage]:
    """Bob's messages to Alice, oldest first. `now`: epoch seconds."""
    first = _message(1, now - 7200, "A mail system without a server", _THREAD[0])
    second = _message(2, now - 5400, "Re: A mail system without a server", _THREAD[1], answers=(first,))
    yield _ready(first)
    yield _ready(second)
    yield _ready(_message(3, now - 3600, "Re: A mail system without a server", _THREAD[2], answers=(first, second)))
    html = _message(4, now - 1800, "The plan for Saturday", _PLAN)
    html.add_alternative(_PLAN_HTML, subtype="html")
    yield _ready(html)
    photos = _message(5, now - 1200, "The photos, 5 MB of them", _PHOTOS)
    content = random.Random(7).randbytes(ATTACHMENT_BYTES)  # noqa: S311  # the same each time, and not compressible
    photos.add_attachment(content, maintype="application", subtype="octet-stream", filename="photos.bin")
    yield _ready(photos)
    yield _ready(_message(6, now - 600, "You have won", f"Act now!\n\n{GTUBE}\n"))
    infected = _message(7, now - 300, "The invoice you asked for", "See the attached file.\n")
    infected.add_attachment(EICAR, maintype="application", subtype="octet-stream", filename="invoice.com")
    yield _ready(infected)


def _message(number: int, date: float, subject: str, text: str, answers: tuple[EmailMessage, ...] = ()) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = f"Bob <{BOB}>"
    message["To"] = f"Alice <{ALICE}>"
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.fromtimestamp(date, UTC))
    message["Message-ID"] = f"<{number}.{int(date)}@demo.example>"
    if answers:
        message["In-Reply-To"] = answers[-1]["Message-ID"]
        message["References"] = " ".join(str(a["Message-ID"]) for a in answers)
    message.set_content(text)
    return message


def _ready(message: EmailMessage) -> DemoMessage:
    return DemoMessage(str(message["Message-ID"])[1:-1], str(message["Subject"]), message.as_bytes())


_THREAD = (
    "Hello Alice,\n\nthis message is on no server. Ten of the twelve computers of this little\nnetwork keep a copy of"
    " it, sealed, until you have collected it; then they\nforget it.\n\nBob\n",
    "One more thing: switch off as many of them as you like. As long as one copy\nis left, you get your mail.\n\nBob\n",
    "And when you answer, look at the Outbox: it says 'collected' only when my\ncomputer has signed that it has your"
    " message. Press r to try it.\n\nBob\n",
)
_PLAN = "Saturday\n\n10:00 Market\n13:00 Lunch at the river\n16:00 Concert: https://demo.example/concert\n"
_PLAN_HTML = (
    "<h1>Saturday</h1><table><tr><td>10:00</td><td>Market</td></tr><tr><td>13:00</td><td>Lunch at the <b>river</b></td>"
    '</tr><tr><td>16:00</td><td><a href="https://demo.example/concert">Concert</a></td></tr></table>'
)
_PHOTOS = (
    "Here they are. The file was cut into pieces of a megabyte, and came from several\ncomputers at once.\n\nBob\n"
)
