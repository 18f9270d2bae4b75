"""The `p2pmail` command: one file a group of subcommands; scripts depend on it (docs/commands.md)."""
