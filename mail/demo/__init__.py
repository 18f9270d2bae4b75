"""A private overlay in one process, with a letter's whole journey to watch."""
