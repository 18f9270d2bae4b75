"""The contacts that a node saves, so that after a restart it finds the overlay without an address to join at."""

from __future__ import annotations

import logging
from pathlib import Path

from overlay.errors import Malformed
from overlay.identity.contact import Contact
from overlay.node.membership import SAVED_CONTACTS, decode_contacts, encode_contacts
from overlay.protocol import OverlayProtocol
from storage import durable

log = logging.getLogger(__name__)


class SavedContacts:
    """The file at `path`; without a path nothing is loaded or saved."""

    def __init__(self, protocol: OverlayProtocol, path: Path | None = None) -> None:
        self._protocol = protocol
        self.path = path
        self._saved = False

    def load(self) -> list[Contact]:
        """Contacts of an earlier run; a file that can't be read counts as none."""
        if self.path is None:
            return []
        presence = self._protocol.presence
        try:
            contacts = decode_contacts(self.path.read_bytes(), self._protocol)
            presence.met |= any(contact.id != self._protocol.own_id for contact in contacts)
            return contacts
        except FileNotFoundError:
            return []
        except (OSError, Malformed) as error:
            presence.met = True
            log.warning(
                "the saved contacts in %s can't be read (%s); starting from the places to join", self.path, error
            )
            return []

    async def save(self) -> None:
        """Write the best known contacts now."""
        self._saved |= save_contacts(self._protocol, self.path)

    async def save_first(self) -> None:
        """Save at once when the first contact is met: from then on this node knows that it isn't the whole network."""
        if not self._saved:
            await self.save()


def save_contacts(protocol: OverlayProtocol, path: Path | None) -> bool:
    """Write the best known contacts as JSON, durably, and the lost ones, which may return; whether that was done."""
    router, own = protocol.router, protocol.own_id
    known = [*router.closest(own, SAVED_CONTACTS, healthy=True), *router.closest(own, SAVED_CONTACTS)]
    contacts = list(dict.fromkeys([*known, *reversed(router.lost.values())]))
    if path is None or not contacts:
        return False
    try:
        durable.write(path, encode_contacts(contacts))
    except OSError as error:
        log.warning("can't save the known contacts: %s", error)
        return False
    return True
