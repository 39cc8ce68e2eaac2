"""The gqa-flax command: one file per subcommand."""
