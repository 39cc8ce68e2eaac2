"""The error that a user can mend."""


class UserError(ValueError):
  """Bad input: one line that says what is wrong and what would be right.

  The command line prints it without a traceback and exits with code 2.
  """
