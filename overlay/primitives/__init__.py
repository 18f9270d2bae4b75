"""Store, fetch, delete, append-inbox and read-inbox as one node serves them (paper, 2.2), over whichever transport."""
