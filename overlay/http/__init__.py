"""HTTPS: objects too large for datagrams, and relay and tunnel for nodes behind strict firewalls."""
