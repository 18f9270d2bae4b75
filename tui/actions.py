"""Everything a user can do, once: its id, keys, words and where it applies.

Bindings, the help screen and the command palette are all made of this list, so none of them can lack an action or
tell another key. What an action does is the method `action_<id>` of the screen or widget of its context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.binding import BindingType


class Context(StrEnum):
    """Where an action applies; the value is its heading in the help."""

    ANYWHERE = "Anywhere"
    MAIL = "Mail"
    LIST = "In the list"
    READER = "In a message"
    COMPOSE = "While writing"
    OUTBOX = "Outbox"
    DIALOG = "In questions and forms"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `keys` in Textual's names; `hint`: worth a place in the bottom line; `label`: few words."""

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    context: Context
    hint: str = ""
    priority: bool = False

    @property
    def shown_keys(self) -> str:
        """The keys as a person writes them."""
        return " ".join(key_name(key) for key in self.keys)


_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "colon": ":",
    "exclamation_mark": "!",
    "backslash": "\\",
    "vertical_line": "|",
    "dollar_sign": "$",
    "asterisk": "*",
    "equals_sign": "=",
    "escape": "Esc",
    "enter": "Enter",
    "space": "Space",
    "tab": "Tab",
    "shift+tab": "Shift+Tab",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "end": "End",
    "delete": "Del",
    "minus": "-",
}


def key_name(key: str) -> str:
    """A key of Textual's as it is written for people: "ctrl+g" is "^G"."""
    if key in _NAMES:
        return _NAMES[key]
    if key.startswith("ctrl+") and len(key) == len("ctrl+") + 1:
        return "^" + key[-1].upper()
    return key.upper() if len(key) > 1 and key[0] == "f" and key[1:].isdigit() else key


_M, _L, _R, _C, _O = Context.MAIL, Context.LIST, Context.READER, Context.COMPOSE, Context.OUTBOX

ACTIONS: tuple[Action, ...] = (
    Action("help", ("question_mark", "f1"), "Help", "Show all keys", Context.ANYWHERE, "help"),
    Action("command_palette", ("colon", "ctrl+p"), "Commands", "Find any action by its name", Context.ANYWHERE, "do"),
    Action("suspend_process", ("ctrl+z",), "Suspend", "Back to the shell; `fg` returns", Context.ANYWHERE),
    Action("quit", ("ctrl+q",), "Quit", "Leave; what you were writing is kept as a draft", Context.ANYWHERE),
    Action("compose", ("c", "m"), "Write", "Write a new message", _M, "write"),
    Action("reply", ("r",), "Reply", "Reply to the sender", _M, "reply"),
    Action("reply_all", ("R", "g"), "Reply to all", "Reply to the sender and everybody it was sent to", _M),
    Action("forward", ("f",), "Forward", "Pass the message on, with its attachments", _M),
    Action(
        "delete", ("d", "delete"), "Delete", "Move to Trash; in Trash and Quarantine: delete for good", _M, "delete"
    ),
    Action("archive", ("a",), "Archive", "Move to Archive", _M, "archive"),
    Action("move", ("M",), "Move to ...", "Move to another folder", _M),
    Action("spam", ("s",), "Spam / not spam", "Mark as spam (in Junk: as not spam) and learn from it", _M, "spam"),
    Action("undo", ("u",), "Undo", "Take the last change back, and the one before it ...", _M, "undo"),
    Action("flag", ("exclamation_mark", "F"), "Flag", "Flag the message, or take the flag off", _M),
    Action("toggle_read", ("N",), "Read / unread", "Mark as unread, or as read", _M),
    Action(
        "release", ("ctrl+r",), "Release from Quarantine", "Take the message out of Quarantine, if you are sure", _M
    ),
    Action(
        "search", ("slash",), "Search", "Search all folders: words, from: subject: is:unread has:attachment", _M, "find"
    ),
    Action("sync", ("dollar_sign", "ctrl+l"), "Send and collect", "Send what waits and collect what has come, now", _M),
    Action("outbox", ("o",), "Outbox", "How far each sent message has come", _M, "outbox"),
    Action("notices", ("w",), "Notices", "Read what you must know: what failed, what was lost, what ends soon", _M),
    Action("node", ("i",), "Node and overlay", "This node and what it sees of the overlay", _M),
    Action("layout", ("vertical_line",), "Change layout", "Reader below, beside, or over the list", _M),
    Action("join", (), "Join a network", "Paste an invite, or found a network of your own", _M),
    Action("invite", ("I",), "Invite somebody", "Make an invite, in a network that you founded", _M),
    Action("back", ("q", "escape"), "Back", "Close the message, the search, or the reader", _M, "back"),
    Action("cursor_down", ("j", "down"), "Next", "Next message", _L),
    Action("cursor_up", ("k", "up"), "Previous", "Previous message", _L),
    Action("page_down", ("pagedown", "ctrl+f"), "Page down", "A page down", _L),
    Action("page_up", ("pageup", "ctrl+b"), "Page up", "A page up", _L),
    Action("first", ("home", "equals_sign"), "First", "To the newest message", _L),
    Action("last", ("end", "G", "asterisk"), "Last", "To the oldest message", _L),
    Action("open", ("enter", "l", "right"), "Open", "Read the message; in Drafts: go on writing", _L),
    Action("mark", ("x", "space"), "Mark", "Mark for doing something with several messages at once", _L, "mark"),
    Action("mark_to", ("X",), "Mark up to here", "Mark everything between the last mark and here", _L),
    Action("unmark_all", ("ctrl+u",), "Unmark all", "Take all marks off", _L),
    Action("next_unread", ("n",), "Next unread", "To the next unread message", _L),
    Action("to_folders", ("h", "left"), "To the folders", "Go to the list of folders", _L),
    Action("line_down", ("j", "down"), "Down", "A line down", _R),
    Action("line_up", ("k", "up"), "Up", "A line up", _R),
    Action("text_down", ("space", "pagedown"), "Page down", "A page down; at the end: the next message", _R),
    Action("text_up", ("minus", "pageup"), "Page up", "A page up", _R),
    Action("text_home", ("home",), "Top", "To the beginning", _R),
    Action("text_end", ("end", "G"), "End", "To the end", _R),
    Action("next_message", ("J",), "Next message", "Read the next message", _R),
    Action("previous_message", ("K",), "Previous message", "Read the previous message", _R),
    Action("attachments", ("v",), "Attachments", "Open or save what is attached", _R, "attached"),
    Action("find", ("slash",), "Find in message", "Find words in this message", _R),
    Action("find_next", ("n",), "Find next", "Next place where the words occur", _R),
    Action("find_previous", ("p",), "Find previous", "Previous place where the words occur", _R),
    Action("source", ("backslash", "V"), "Source", "The message as it came, with all header fields", _R),
    Action("to_list", ("h", "left"), "To the list", "Back to the list", _R),
    Action("send", ("f5", "ctrl+g"), "Send", "Send the message", _C, "send", True),
    Action("attach", ("f6", "ctrl+t"), "Attach", "Attach a file", _C, "attach", True),
    Action("editor", ("f7", "ctrl+o"), "Editor", "Write the text in $EDITOR", _C, "editor", True),
    Action("detach", ("f8",), "Remove attachment", "Take the last attachment off again", _C),
    Action("discard", ("f9",), "Discard", "Throw the draft away, after a question", _C),
    Action("close", ("escape",), "Close", "Close; the draft stays in Drafts", _C, "keep as draft"),
    Action("retry", ("r",), "Try again", "Try the failed or expired recipients again", _O, "try again"),
    Action(
        "forget", ("d",), "Take off the list", "Take a settled message off the list (it stays in Sent)", _O, "remove"
    ),
    Action("sync_now", ("dollar_sign",), "Send now", "Send what waits, now", _O, "send now"),
    Action("dismiss", ("escape", "q"), "Close", "Close this view", _O, "back"),
)


def of(context: Context) -> Iterator[Action]:
    """The actions of one context, in their order."""
    return (action for action in ACTIONS if action.context is context)


def bindings(context: Context) -> list[BindingType]:
    """What Textual needs to bind them; each has the action's id, by which a user's key map can name it."""
    from textual.binding import Binding

    return [
        Binding(
            ",".join(action.keys),
            action.id,
            action.hint or action.label,
            show=bool(action.hint),
            key_display=key_name(action.keys[0]),
            id=f"{context.name.lower()}.{action.id}",
            priority=action.priority,
        )
        for action in of(context)
        if action.keys
    ]
