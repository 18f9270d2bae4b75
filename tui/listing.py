"""The state of the message list: which messages, which is selected, which are marked, which rows are cached.

Selection and marks belong to messages, never to line numbers. Nothing is drawn or fetched here; the theory of
operation is in tui/widgets/message_list.py.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mail.mailbox import Row

CACHE = 1000
"""Rows cached: about 20 screens, 1 MB."""
AHEAD = 40
"""Rows fetched beyond what is visible, so that scrolling finds them here."""


@dataclass(slots=True)
class Listing:
    """The state behind a message list. `ids` are rows of the index, in the order in which they are shown."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    selected: int | None = None
    """The row of the selected message; None when nothing is, as when it was taken away by another program."""
    place: int = 0
    """Where the cursor is, or was when its message vanished."""
    marked: set[int] = field(default_factory=set)
    _rows: OrderedDict[int, Row] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.ids)

    # -- what is shown

    def replace(self, ids: array[int], *, selected: int | None = None) -> None:
        """Show these messages. The selection stays with its message (or goes to `selected`); else nothing is.

        A message that is gone takes its mark with it.
        """
        wanted = self.selected if selected is None else selected
        empty_before = not self.ids and self.selected is None
        self.ids = ids
        place = _index(ids, wanted)
        if place is not None:
            self.selected, self.place = wanted, place
        elif empty_before and ids:
            self.selected, self.place = ids[0], 0
        else:
            self.selected = None
            self.place = max(0, min(self.place, len(ids) - 1))
        if self.marked:
            self.marked.intersection_update(ids)

    def remove(self, gone: Iterable[int]) -> None:
        """Take out messages that the user moved or deleted; selects the next one, or else the last."""
        away = set(gone)
        place = self.place
        if self.selected in away or self.selected is None:
            following = (number for number in self.ids[place:] if number not in away)
            before = (number for number in reversed(self.ids[:place]) if number not in away)
            self.selected = next(following, None) or next(before, None)
        self.ids = array("q", (number for number in self.ids if number not in away))
        found = _index(self.ids, self.selected)
        self.place = 0 if found is None else found
        self.marked -= away
        for number in away:
            self._rows.pop(number, None)

    def select(self, place: int) -> bool:
        """Move the cursor to this place, clamped to the list; returns whether the selection changed."""
        if not self.ids:
            return False
        place = max(0, min(place, len(self.ids) - 1))
        changed = self.selected != self.ids[place]
        self.place, self.selected = place, self.ids[place]
        return changed

    # -- marks

    def mark(self, number: int) -> None:
        """Mark, or take the mark off."""
        self.marked ^= {number}

    def chosen(self) -> list[int]:
        """What an action is for: the marked messages in their order, else the selected one."""
        if self.marked:
            return [number for number in self.ids if number in self.marked]
        return [] if self.selected is None else [self.selected]

    # -- rows

    def row(self, number: int) -> Row | None:
        """What is known of a message, if it was fetched."""
        row = self._rows.get(number)
        if row is not None:
            self._rows.move_to_end(number)
        return row

    def keep(self, rows: Iterable[Row]) -> None:
        """Cache rows that were fetched; the least recently used ones are dropped."""
        for row in rows:
            self._rows[row.id] = row
            self._rows.move_to_end(row.id)
        while len(self._rows) > CACHE:
            self._rows.popitem(last=False)

    def forget(self) -> None:
        """The rows may have changed: fetch them again when they are shown."""
        self._rows.clear()

    def missing(self, first: int, count: int) -> list[int]:
        """What must be fetched to show `count` messages from place `first`; empty when nothing visible is missing."""
        visible = self.ids[max(0, first) : first + count]
        if all(number in self._rows for number in visible):
            return []
        around = self.ids[max(0, first - AHEAD) : first + count + AHEAD]
        return [number for number in around if number not in self._rows]


def _index(ids: Sequence[int], number: int | None) -> int | None:
    if number is None:
        return None
    try:
        return ids.index(number)
    except ValueError:
        return None
