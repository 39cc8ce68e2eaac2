"""gqa-flax evaluate: held-out loss, or predictions and their scores."""

import argparse

from gqa_flax.cli import arguments
from gqa_flax.cli import finetune
from gqa_flax.cli import gin_run
from gqa_flax.cli import terminal


def add_decoding_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--beams', type=int, metavar='N', help='beam search with N beams'
  )
  parser.add_argument(
    '--length_penalty',
    type=float,
    default=0.6,
    metavar='A',
    help='alpha of beam search (default: 0.6)',
  )
  parser.add_argument(
    '--temperature', type=float, default=0.0, help='sampling; 0 is greedy'
  )
  parser.add_argument('--top_k', type=int, default=0, metavar='K')
  parser.add_argument('--top_p', type=float, default=1.0, metavar='P')


def decoding_macro(args: argparse.Namespace) -> dict:
  """Macros of the decoding method that the flags ask for."""
  from gqa_flax.errors import UserError

  if args.beams is None:
    return {
      'TEMPERATURE': args.temperature,
      'TOP_K': args.top_k,
      'TOP_P': args.top_p,
    }
  if args.temperature:
    raise UserError('--beams and --temperature exclude each other.')
  return {'NUM_BEAMS': args.beams, 'LENGTH_PENALTY': args.length_penalty}


def run_files(args: argparse.Namespace) -> list[str]:
  """The file that binds beam search, where it is asked for."""
  return [] if args.beams is None else ['runs/local/beam_search.gin']


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'evaluate',
    help='score a checkpoint on a task',
    description='Decodes a task and scores it with its metrics; for span '
    'corruption, measures the held-out loss.',
  )
  parser.add_argument('--checkpoint', metavar='C', help='CHECKPOINT_PATH')
  finetune.add_data_flags(parser)
  parser.add_argument('--split', help='default: validation')
  parser.add_argument(
    '--max_examples', type=int, metavar='N', help='the first N only'
  )
  parser.add_argument('--batch_size', type=int, metavar='B')
  parser.add_argument(
    '--predictions', metavar='FILE', help='write a JSON line an example'
  )
  parser.add_argument(
    '--shuffled_sources',
    action='store_true',
    help="give each example another's source: what cross-attention is worth",
  )
  add_decoding_flags(parser)
  arguments.add_gin(parser)
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  gin_run.quiet_tensorflow()
  from gqa_flax.data import tasks  # noqa: F401  (registers the tasks)
  from gqa_flax.training import runs

  macros = {
    'CHECKPOINT_PATH': args.checkpoint,
    'MIXTURE_OR_TASK_NAME': finetune.register_files(args, None),
    'SPLIT': args.split,
    'MAX_EXAMPLES': args.max_examples,
    'BATCH_SIZE': args.batch_size,
    'PREDICTIONS_PATH': args.predictions,
    'SHUFFLED_SOURCES': args.shuffled_sources or None,
  }
  macros |= finetune.lengths(args) | decoding_macro(args)
  args.gin_file = run_files(args) + args.gin_file
  evaluate = gin_run.bound(
    args, 'runs/local/evaluate.gin', macros, runs.evaluate
  )
  results = evaluate()
  if args.json:
    terminal.print_record(results)
    return 0
  for task, metrics in results.items():
    print(task)
    for name, value in metrics.items():
      print(f'  {name:16} {value:10.4f}')
  return 0
