"""The one exception that a command answers with a line instead of a traceback."""


class UserError(ValueError):
    """Something that the user can put right; its text says what and how. Commands print it and exit with code 2."""
