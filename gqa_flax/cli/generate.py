"""gqa-flax generate: text in, text out."""

import argparse
from collections.abc import Iterator
import sys

from gqa_flax.cli import arguments
from gqa_flax.cli import evaluate
from gqa_flax.cli import gin_run
from gqa_flax.errors import UserError


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'generate',
    help='run a model on text',
    description='Reads text from the arguments, a file or standard input, '
    'one input a line, and prints one output a line as they come.',
  )
  parser.add_argument('text', nargs='*', help='an input each')
  parser.add_argument('--file', metavar='FILE', help='one input a line')
  parser.add_argument('--checkpoint', metavar='C', help='CHECKPOINT_PATH')
  parser.add_argument(
    '--vocabulary', metavar='FILE', help='SentencePiece model'
  )
  parser.add_argument('--prefix', default='', help='put before every input')
  parser.add_argument('--max_input_length', type=int, metavar='S')
  parser.add_argument('--max_length', type=int, metavar='T')
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='inputs decoded together (default: 8; 1 where they are typed in)',
  )
  parser.add_argument('--seed', type=int, default=0)
  evaluate.add_decoding_flags(parser)
  arguments.add_gin(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  gin_run.quiet_tensorflow()
  from gqa_flax.training import runs

  if args.text and args.file:
    raise UserError('Give text as arguments or --file, not both.')
  if not (args.text or args.file) and sys.stdin.isatty():
    args.batch_size = args.batch_size or 1  # An answer to every line.
  macros = {
    'CHECKPOINT_PATH': args.checkpoint,
    'VOCABULARY_PATH': args.vocabulary,
    'INPUTS_LENGTH': args.max_input_length,
    'TARGETS_LENGTH': args.max_length,
    'BATCH_SIZE': args.batch_size,
    'RANDOM_SEED': args.seed,
  } | evaluate.decoding_macro(args)
  args.gin_file = evaluate.run_files(args) + args.gin_file
  generate = gin_run.bound(
    args, 'runs/local/generate.gin', macros, runs.generate
  )
  for output in generate(args.prefix + text for text in _inputs(args)):
    print(output, flush=True)
  return 0


def _inputs(args: argparse.Namespace) -> Iterator[str]:
  """Lines, read as they are needed."""
  if args.text:
    yield from args.text
    return
  try:
    stream = open(args.file, encoding='utf-8') if args.file else sys.stdin
    with stream:
      for line in stream:
        yield line.strip()
  except FileNotFoundError:
    raise UserError(f'No such file: {args.file}.') from None
  except UnicodeDecodeError as error:
    raise UserError(f'{args.file or "standard input"}: not UTF-8 text.') from (
      error
    )
