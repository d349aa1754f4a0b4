"""The `umons` command, one file per subcommand."""
