"""The limits that others rely on: literals here, a table in docs/protocol.md, constants in the code.

A constant that is changed by mistake makes a test fail; a deliberate change needs all three places. `make mutants`
changes each constant of the tables in turn, and expects a failure each time.
"""

from __future__ import annotations

import ast
import importlib
import re
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "protocol.md"
SHARED = ("storage.limits", "overlay.protocol_limits")
"""The modules that hold nothing but shared limits."""
NO_LIMITS = frozenset({"HOUR", "DAY", "INBOX"})
"""Units of time, and the kind of an inbox."""
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "min": 60, "h": 3600, "d": 86_400}

Value = float | tuple[float, ...]

LIMITS: dict[str, Value] = {
    "storage.limits.KEY_BYTES": 20,
    "storage.limits.DIGEST_BYTES": 32,
    "overlay.protocol_limits.PUBLIC_KEY_BYTES": 32,
    "overlay.protocol_limits.SIGNATURE_BYTES": 64,
    "overlay.protocol_limits.SALT_BYTES": 16,
    "overlay.protocol_limits.TOKEN_BYTES": 16,
    "overlay.protocol_limits.ENCRYPTION_KEY_SIZE": 1_216,
    "overlay.identity.card.KEY_ID_SIZE": 8,
    "overlay.identity.address.LOCAL_LIMIT": 64,
    "overlay.identity.address.DOMAIN_LIMIT": 253,
    "overlay.identity.address.ADDRESS_LIMIT": 254,
    "mail.sealed.notification.MESSAGE_ID_LIMIT": 512,
    "overlay.protocol_limits.DEFAULT_K": 10,
    "overlay.protocol_limits.MAX_COPIES": 20,
    "overlay.protocol_limits.MAX_K": 40,
    "overlay.protocol_limits.MAX_WIDTH": 64,
    "overlay.identity.network.MAX_PUZZLE_BITS": 40,
    "overlay.identity.network.NAME_LIMIT": 100,
    "storage.limits.RETENTION": 2_592_000,
    "overlay.protocol_limits.CLOCK_MARGIN": 86_400,
    "overlay.identity.admission.NODES_OF_CERTIFICATE": 4,
    "overlay.identity.admission.GOOD_FOR": 3_600,
    "overlay.protocol_limits.MAX_DATAGRAM": 1_200,
    "overlay.wire.fragments.MAX_FRAGMENTS": 9,
    "overlay.wire.fragments.MAX_MESSAGE": 10_152,
    "overlay.wire.fragments.PARTIAL_PER_PEER": 4,
    "overlay.wire.fragments.PARTIAL_IN_ALL": 1_024,
    "overlay.wire.fragments.PARTIAL_SECONDS": 5,
    "overlay.protocol_limits.MAX_DATAGRAM_OBJECT": 8_192,
    "overlay.protocol_limits.MAX_DATAGRAM_READ": 8_192,
    "overlay.protocol_limits.MAX_HASHES": 200,
    "overlay.wire.messages.MAX_PADDING": 1_024,
    "overlay.wire.write_tokens.EPOCH": 300,
    "overlay.wire.rpc.KEY_ANSWERS_A_SECOND": 200,
    "overlay.wire.rpc.TASKS": 1_024,
    "overlay.wire.rpc.TASKS_OF_ADDRESS": 128,
    "overlay.limits.rate_limits.STRANGERS_IN_ALL.each_second": 500,
    "overlay.limits.rate_limits.STRANGERS_IN_ALL.at_once": 1_000,
    "overlay.limits.rate_limits.STRANGERS_OF_RANGE.each_second": 60,
    "overlay.limits.rate_limits.STRANGERS_OF_RANGE.at_once": 200,
    "overlay.limits.rate_limits.STRANGERS_OF_ADDRESS.each_second": 20,
    "overlay.limits.rate_limits.STRANGERS_OF_ADDRESS.at_once": 60,
    "overlay.limits.rate_limits.KNOWN_OF_ADDRESS.each_second": 3_000,
    "overlay.limits.rate_limits.KNOWN_OF_ADDRESS.at_once": 6_000,
    "overlay.reachability.dial_back.AT_ONCE": 8,
    "overlay.reachability.dial_back.AT_ONCE_EACH": 1,
    "overlay.protocol_limits.MAX_OBJECT": 67_108_864,
    "overlay.protocol_limits.MAX_SIGNED_OBJECT": 1_048_576,
    "overlay.protocol_limits.MAX_CARD": 8_192,
    "overlay.protocol_limits.MAX_ENROLMENT_ANSWER": 8_192,
    "overlay.protocol_limits.MAX_CERTIFICATE": 2_048,
    "storage.limits.MAX_PROOF": 4_096,
    "overlay.protocol_limits.MAX_DELETERS": 1_000,
    "storage.node.objects.MAX_UNITED_DELETERS": 2_000,
    "storage.node.objects.MAX_VARIANTS": 8,
    "storage.node.objects.MAX_TOMBSTONES": 4_000,
    "storage.node.quota_shares.PEER_SHARE": 0.125,
    "storage.node.quota_shares.RANGE_SHARE": 0.25,
    "storage.node.quota_shares.HALVED_ABOVE": 0.75,
    "overlay.protocol_limits.MAX_NOTIFICATION": 65_536,
    "storage.limits.MAX_INBOX_NOTIFICATIONS": 1_000,
    "storage.node.inboxes.MAX_INBOX_BYTES": 16_777_216,
    "storage.node.inboxes.INBOX_SHARE": 0.5,
    "storage.node.inboxes.MAX_REMEMBERED": 10_000,
    "overlay.protocol_limits.LEASE": 60,
    "overlay.protocol_limits.MAX_HTTP_READ": 4_194_304,
    "overlay.protocol_limits.MAX_HTTP_HASHES": 1_000,
    "overlay.limits.stamps.STAMP_BYTES": 12,
    "overlay.limits.stamps.GOOD_FOR": 30,
    "overlay.limits.stamps.ASKED_FROM": 0.5,
    "overlay.limits.stamps.FEWEST": 16,
    "overlay.limits.stamps.MOST": 22,
    "overlay.limits.stamps.ITERATIONS": 128,
    "overlay.http.server_limits.ServerLimits.connections": 256,
    "overlay.http.server_limits.ServerLimits.connections_each": 16,
    "overlay.http.server_limits.ServerLimits.spool": 536_870_912,
    "overlay.http.server_limits.ServerLimits.spool_each": 134_217_728,
    "overlay.http.server_limits.ServerLimits.inboxes": 67_108_864,
    "overlay.http.server_limits.ServerLimits.inboxes_each": 20_971_520,
    "overlay.http.server_limits.ServerLimits.lookups": 32,
    "overlay.http.server_limits.ServerLimits.lookups_each": 4,
    "overlay.http.server_limits.ServerLimits.handshake": 10,
    "overlay.http.server_limits.ServerLimits.idle": 15,
    "overlay.protocol_limits.MIN_RATE": 1_024,
    "overlay.protocol_limits.RATE_WINDOW": 30,
    "overlay.http.listener._MAX_HEADERS": 32,
    "overlay.http.listener._MAX_FIELD": 8_190,
    "overlay.http.relay.SESSIONS": 64,
    "overlay.http.relay.SESSIONS_EACH": 8,
    "overlay.http.relay.DATAGRAMS.each_second": 200,
    "overlay.http.relay.DATAGRAMS.at_once": 600,
    "overlay.http.relay.VERIFYING": 8,
    "overlay.http.relay.PROVEN_FOR": 600,
    "overlay.http.relay.IDLE": 120,
    "overlay.http.request_forwarding.REQUESTS": 32,
    "overlay.http.request_forwarding.REQUESTS_EACH": 8,
    "overlay.http.request_forwarding.LONGEST": 14_400,
    "mail.sealed.segments.SEGMENT_SIZE": 1_048_576,
    "mail.sealed.segments.MAX_SEGMENTS": 1_024,
    "mail.sealed.body.SEALED_LIMIT": 1_073_741_824,
    "mail.sealed.body.ORIGINAL_LIMIT": 1_006_632_960,
    "mail.sealed.body.FRAME_CONTENT": 65_520,
    "mail.sealed.padding.MINIMUM": 1_024,
    "storage.user.outbox_entry.SESSION_KEY_SIZE": 32,
    "mail.sealed.body.SALT_SIZE": 32,
    "mail.sealed.erasure_shares.HEADER": 72,
    "mail.sealed.notification.GROUP_SIZE": 16,
    "mail.sealed.notification.BUCKETS": (3_072, 4_096, 6_144, 8_192, 12_288, 16_384, 24_576, 32_768, 49_152, 65_536),
    "mail.sealed.notification.SUBJECT_LIMIT": 256,
    "mail.sealed.notification.RECIPIENTS_LIMIT": 640,
    "mail.sealed.notification.LEFT_OUT_LIMIT": 1_000_000,
    "mail.sealed.notification.DATE_LIMIT": 253_402_128_000,
    "mail.membership.messages.REQUEST_SIZE": 3_072,
    "mail.membership.messages.ANSWER_SIZE": 4_096,
    "mail.membership.invite.MIN_CODE": 8,
    "mail.membership.invite.MAX_CODE": 64,
    "mail.membership.messages.REASON_LIMIT": 400,
    "mail.membership.invite.JOIN_LIMIT": 8,
    "mail.membership.authority.INVITE_LIFE": 1_209_600,
    "mail.membership.authority.RENEWAL": 5_184_000,
    "mail.membership.authority.GRACE": 5_184_000,
    "mail.send.enqueue.RECIPIENT_LIMIT": 10_000,
    "mail.availability.erasure_code.CODED_FROM": 65_536,
    "mail.availability.erasure_code.MOST_SHARES": 60,
    "mail.membership.x509.CERTIFICATE_LIFE": 31_536_000,
    "mail.membership.x509.ROOT_LIFE": 315_532_800,
    "mail.membership.x509.REVOCATIONS_LIFE": 2_592_000,
    "mail.sealed.keys.ROTATION": 604_800,
    "mail.sealed.keys.MARGIN": 604_800,
    "storage.user.state.REMEMBERED": 7_776_000,
    "storage.user.state.OWED": 2_678_400,
    "mail.directory.PUBLISH_EVERY": 86_400,
    "mail.membership.certificate_status.REVOCATIONS_EVERY": 3_600,
    "overlay.kademlia.lookup.ALPHA": 3,
    "overlay.kademlia.lookup.DEADLINE": 10,
    "overlay.kademlia.lookup.WIDTH": 2,
    "overlay.kademlia.lookup.CANDIDATES": 512,
    "overlay.kademlia.lookup.ADDRESSES": 3,
    "overlay.kademlia.disjoint_lookup.PATHS": 4,
    "overlay.kademlia.routing.BUCKET": 20,
    "overlay.kademlia.routing.REPLACEMENTS": 20,
    "overlay.kademlia.routing.FAILURES": 3,
    "overlay.kademlia.routing.FAILURES_ALONE": 5,
    "overlay.kademlia.routing.RANGE_IN_BUCKET": 2,
    "overlay.kademlia.routing.RANGE_IN_TABLE": 10,
    "overlay.kademlia.inbox_node_cache.KNOWN_FOR": 300,
    "overlay.wire.rpc.TRIES": 3,
    "overlay.wire.rtt.FIRST_TIMEOUT": 0.5,
    "overlay.wire.rtt.SHORTEST_TIMEOUT": 0.04,
    "overlay.wire.rtt.LONGEST_TIMEOUT": 2,
    "overlay.wire.rpc.LATE": 2,
    "overlay.replication.node_client.PATIENCE": 5,
    "overlay.replication.node_client.FETCH_PATIENCE": 2,
    "overlay.client.SPARE": 3,
    "overlay.client.BEYOND": 3,
    "overlay.client.WIDER": 4,
    "overlay.replication.repair.ROUND_EVERY": 3_600,
    "mail.availability.estimate.FEWEST": 3,
    "mail.availability.estimate.MOST": 20,
    "mail.availability.probes.PROBE_BYTES": 64,
    "mail.availability.probes.EVERY": 1_800,
    "mail.availability.probes.WAITS": (1_800, 7_200, 28_800, 86_400),
    "mail.availability.probes.LATE": 7_200,
}


def module_of(constant: str) -> str:
    """The module of a constant's dotted name: its longest part that is a file."""
    parts = constant.split(".")
    for count in range(len(parts) - 1, 0, -1):
        if (ROOT / Path(*parts[:count])).with_suffix(".py").is_file():
            return ".".join(parts[:count])
    raise ValueError(f"{constant} is in no module")


def value_of(constant: str) -> object:
    """The constant's value in the code."""
    name = module_of(constant)
    found: object = importlib.import_module(name)
    for part in constant.removeprefix(f"{name}.").split("."):
        found = getattr(found() if isinstance(found, type) else found, part)
    return found


def table() -> dict[str, Value]:
    """The tables of docs/protocol.md: each constant's value, in bytes, seconds, or the unit of the row."""
    text = DOCUMENT.read_text("utf-8")
    _, _, section = text.partition("\n## 13. Limits\n")
    section, _, _ = section.partition("\n## ")
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| ([^|]*) \| `([\w.]+)` \|[^|]*\|$", section, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| .*`.*`.*\|$", section, re.MULTILINE)), "a row can't be read"
    assert len({constant for _, _, constant in rows}) == len(rows), "a constant is named twice"
    return {constant: _read(value, unit.strip()) for value, unit, constant in rows}


def _read(text: str, unit: str) -> Value:
    values = [float(Fraction(part.replace(",", "")) * UNITS.get(unit, 1)) for part in text.split(", ")]
    return values[0] if len(values) == 1 else tuple(values)


@pytest.mark.parametrize("constant", LIMITS)
def test_each_limit_has_its_value(constant: str) -> None:
    assert value_of(constant) == LIMITS[constant]


def test_the_table_of_the_protocol_says_the_same() -> None:
    assert table() == LIMITS


def test_every_shared_limit_is_in_the_table() -> None:
    for name in SHARED:
        for constant in _defined(name):
            assert f"{name}.{constant}" in LIMITS, f"{name}.{constant} is missing in docs/protocol.md, section 13"


def test_a_shared_limit_is_defined_nowhere_else() -> None:
    shared = {constant: name for name in SHARED for constant in _defined(name)}
    for room in ("storage", "overlay", "mail", "tui"):
        for path in (ROOT / room).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for constant in set(_defined(name)) & set(shared):
                assert shared[constant] == name, f"{name}.{constant} is {shared[constant]}'s"


def test_overlay_hands_on_the_limits_of_the_store() -> None:
    storage, overlay = (importlib.import_module(name) for name in SHARED)
    names = set(_public(storage)) - NO_LIMITS
    assert {name: getattr(overlay, name) for name in names} == {name: getattr(storage, name) for name in names}


def _defined(name: str) -> list[str]:
    """The limits that a module assigns at its top level."""
    tree = ast.parse((ROOT / (name.replace(".", "/") + ".py")).read_text("utf-8"))
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    names = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
    return [one for one in names if one.isupper() and not one.startswith("_") and one not in NO_LIMITS]


def _public(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if name.isupper()]
