"""The demo: a private overlay in one process, and a message's whole journey."""
