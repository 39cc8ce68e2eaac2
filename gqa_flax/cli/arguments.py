"""Flags that several commands share."""

import argparse


def add_gin(parser: argparse.ArgumentParser):
  """--gin_file (repeatable) and --gin.NAME=VALUE, with T5X's meaning.

  They arrive as args.gin_file and args.gin_bindings, lists of strings.
  """
  parser.add_argument(
    '--gin_file',
    action='append',
    default=[],
    metavar='FILE',
    help='gin file to read; may be given several times',
  )
  parser.set_defaults(gin_bindings=[])
  note = '--gin.NAME=VALUE binds one gin parameter, after all gin files.'
  parser.epilog = f'{parser.epilog} {note}' if parser.epilog else note


def add_json(parser: argparse.ArgumentParser):
  """--json: the result as one JSON record on standard output."""
  parser.add_argument(
    '--json', action='store_true', help='print one JSON record'
  )
