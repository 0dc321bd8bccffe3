"""The command line, with a module or package per command."""
