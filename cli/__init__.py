"""The command line: one file a command, its parts beside it."""
