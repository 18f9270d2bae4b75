"""Reading messages that strangers wrote, without ever raising."""
