"""Joins the lines of format=flowed text into paragraphs (RFC 3676)."""

from __future__ import annotations

SIGNATURE = "-- "
"""The line above a signature; it ends with a space and is never joined (RFC 3676, section 4.3)."""


def unflowed(text: str, *, delete_space: bool = False) -> str:
    """`text` (\\n line ends) with soft line breaks joined and space-stuffing removed; `delete_space`: DelSp=yes."""
    lines: list[str] = []
    open_depth = -1
    for line in text.split("\n"):
        depth = len(line) - len(line.lstrip(">"))
        rest = line[depth:].removeprefix(" ")
        joins = depth == open_depth and rest != SIGNATURE
        soft = rest.endswith(" ") and rest != SIGNATURE
        if soft and delete_space:
            rest = rest[:-1]
        if joins:
            lines[-1] += rest
        else:
            lines.append(">" * depth + (f" {rest}" if depth and rest else rest))
        open_depth = depth if soft else -1
    return "\n".join(lines)
