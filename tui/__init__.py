"""The screen: a Textual mail reader. Knows the user agent, never the network."""
