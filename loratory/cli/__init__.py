"""The command line. Each command is a function in a module of its own kind, imported when it is asked for."""
