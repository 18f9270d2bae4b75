"""Requests too large for datagrams, over HTTPS; the relay for clients whom only HTTPS lets out."""
