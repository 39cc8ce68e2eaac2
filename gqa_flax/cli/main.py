"""Entry point of `gqa-flax`: finds the command, runs it, reports errors.

Exit codes: 0 done; 1 an error of ours (a traceback is shown); 2 bad input or a
failed check (one line); 130 interrupted.
"""

import argparse
from collections.abc import Sequence
import errno
import importlib
import os
import sys

import gqa_flax
from gqa_flax.errors import UserError

# One module each in gqa_flax.cli. They import nothing heavy until they run.
COMMANDS = (
  'convert',
  'verify',
  'inspect',
  'export',
  'train',
  'finetune',
  'evaluate',
  'generate',
  'reproduce',
  'benchmark',
)

_USERS_TO_MEND = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EACCES,
  errno.EPERM,
  errno.EROFS,
  errno.EISDIR,
  errno.ENOTDIR,
  errno.ENAMETOOLONG,
)


class Parser(argparse.ArgumentParser):
  """Complains in one line, and takes no abbreviated flags."""

  def __init__(self, **kwargs):
    kwargs.setdefault('allow_abbrev', False)
    super().__init__(**kwargs)

  def error(self, message: str):
    self.exit(2, f'gqa-flax: error: {message} (see {self.prog} --help)\n')


def build_parser() -> argparse.ArgumentParser:
  """The parser with every command in it."""
  parser = Parser(prog='gqa-flax', description=gqa_flax.__doc__.split('\n')[0])
  parser.add_argument(
    '--version', action='version', version=f'gqa-flax {gqa_flax.__version__}'
  )
  subparsers = parser.add_subparsers(
    metavar='COMMAND', required=True, parser_class=Parser
  )
  for name in COMMANDS:
    importlib.import_module(f'gqa_flax.cli.{name}').add_parser(subparsers)
  return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the command line; --gin.NAME=VALUE goes to `gin_bindings`."""
  bindings = [arg for arg in argv if arg.startswith('--gin.')]
  parser = build_parser()
  args = parser.parse_args([arg for arg in argv if arg not in bindings])
  for binding in bindings:
    if not hasattr(args, 'gin_bindings'):
      parser.error(f'this command takes no gin bindings: {binding}')
    if '=' not in binding:
      parser.error(f'expected --gin.NAME=VALUE, got {binding}')
  if bindings:
    args.gin_bindings = [arg.removeprefix('--gin.') for arg in bindings]
  return args


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command line (default: sys.argv); returns the exit code."""
  args = parse(sys.argv[1:] if argv is None else argv)
  try:
    return args.run(args) or 0
  except UserError as error:
    return _complain(str(error))
  except KeyboardInterrupt:
    print('gqa-flax: interrupted', file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader of our output (head, say) has left.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except OSError as error:
    if error.errno not in _USERS_TO_MEND:
      raise
    where = f'{error.filename}: ' if error.filename else ''
    return _complain(f'{where}{error.strerror}.')


def _complain(message: str) -> int:
  line = ' '.join(message.splitlines())
  print(f'gqa-flax: error: {line}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main())
