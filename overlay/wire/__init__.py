"""Sealed datagrams and the messages in them, request and response matching (RPC)."""
