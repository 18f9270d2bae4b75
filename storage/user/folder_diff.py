"""What changed in a folder since the index last looked: names against names, nothing opened.

Pure functions. Reading the folder is done in storage/user/folders.py, changing the index in storage/user/index.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.user.folders import entry_of


@dataclass(slots=True)
class Difference:
    """What the index must do about one folder. `id` is a row of the index, `place` a path in the folder."""

    added: list[str] = field(default_factory=list)
    renamed: list[tuple[int, str]] = field(default_factory=list)
    """Rows whose message has other flags now, or came from new/ to cur/; and the new place."""
    removed: dict[int, str] = field(default_factory=dict)
    """Rows whose message is gone, and where it was."""

    def __bool__(self) -> bool:
        return bool(self.added or self.renamed or self.removed)


def difference(known: Mapping[str, int], found: set[str]) -> Difference:
    """Compare the places that the index knows (place -> row) with those found in the folder.

    Two places with one unique name are the same message before and after a rename, seen twice by one scan, or
    two messages (copies, or a program that numbers its files). A row follows a rename only where there is one such
    row and one such place; else each place counts as a message of its own, so that none is hidden or taken for
    another, and the next look drops what was only a shadow.
    """
    result = Difference()
    missing = {place: row for place, row in known.items() if place not in found}
    rows: dict[str, list[int]] = {}
    for place, row in missing.items():
        rows.setdefault(entry_of(place).unique, []).append(row)
    fresh = [(place, entry_of(place).unique) for place in found.difference(known)]
    names = Counter(unique for _, unique in fresh)
    for place, unique in fresh:
        candidates = rows.get(unique, [])
        if len(candidates) == names[unique] == 1:
            result.renamed.append((candidates[0], place))
        else:
            result.added.append(place)
    renamed = {row for row, _ in result.renamed}
    result.removed = {row: place for place, row in missing.items() if row not in renamed}
    return result
