"""The command line: a table of commands, each a thin file over one function."""
