"""Parses received messages; never raises on their content."""
