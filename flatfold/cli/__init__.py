"""The verbs of the command line. Loads nothing heavy: `flatfold --help` answers at once."""
