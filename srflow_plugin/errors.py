"""The exceptions that a command answers with a line instead of a traceback."""


class UserError(ValueError):
    """Something that the user can put right; its text says what and how. Commands print it and exit with code 2."""


class TrainingError(RuntimeError):
    """A run that cannot go on as it is; its text says why and what is saved. Commands print it and exit with code 1."""
