"""The colours: a dark and a light theme of our own, and the terminal's own palette where colour is not wanted.

Colours never carry a meaning alone: tui/columns.py and tui/reading.py give each state a sign or a word as well.
"""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="p2pmail",
    primary="#7aa2d6",
    secondary="#93c7a8",
    accent="#e0b36a",
    foreground="#d3d8de",
    background="#12161b",
    surface="#181d24",
    panel="#222932",
    success="#8ec07c",
    warning="#e0b36a",
    error="#e5786d",
    dark=True,
    variables={
        "border": "#39434f",
        "scrollbar": "#2c3540",
        "scrollbar-background": "#12161b",
        "scrollbar-hover": "#43505f",
        "scrollbar-active": "#7aa2d6",
        "block-cursor-background": "#2b3c52",
        "block-cursor-foreground": "#ffffff",
        "input-selection-background": "#7aa2d6 40%",
    },
)

LIGHT = Theme(
    name="p2pmail-light",
    primary="#28598f",
    secondary="#2f7050",
    accent="#8a5a00",
    foreground="#22282f",
    background="#fbfaf7",
    surface="#f3f1ec",
    panel="#e6e3db",
    success="#2f7050",
    warning="#8a5a00",
    error="#b3261e",
    dark=False,
    variables={
        "border": "#bdb8ab",
        "scrollbar": "#d5d0c4",
        "scrollbar-background": "#fbfaf7",
        "scrollbar-hover": "#bdb8ab",
        "scrollbar-active": "#28598f",
        "block-cursor-background": "#cfdcec",
        "block-cursor-foreground": "#10161d",
        "input-selection-background": "#28598f 30%",
    },
)

THEMES = (DARK, LIGHT)
NO_COLOUR = "ansi-dark"
"""With NO_COLOR set: Textual then sends no colour at all, instead of greys, for this theme."""
