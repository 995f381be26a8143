"""The command line. The commands of each group are functions in one module, imported when they are called."""
