"""The command `umons`, one file per subcommand."""
