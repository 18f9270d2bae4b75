"""The primitives of one node, over any transport: store, fetch, delete, append-inbox, read-inbox (paper, 2.2)."""
