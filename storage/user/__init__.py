"""What a user keeps: folders, outbox, keys, state and the index."""
