"""gqa-flax train: pre-train or uptrain."""

import argparse

from gqa_flax.cli import arguments
from gqa_flax.cli import gin_run
from gqa_flax.cli import terminal


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'train',
    help='pre-train, or uptrain a converted checkpoint',
    description='Trains on the objective of the gin files given. Started '
    'again, it goes on where it stopped.',
  )
  parser.add_argument(
    '--checkpoint', metavar='C', help='where to start (INITIAL_CHECKPOINT_PATH)'
  )
  parser.add_argument(
    '--alpha',
    type=float,
    metavar='A',
    help="train for A times the checkpoint's own steps (the paper's alpha)",
  )
  parser.add_argument(
    '--steps', type=int, metavar='N', help='step to stop at (TRAIN_STEPS)'
  )
  parser.add_argument('--output', metavar='DIR', help='MODEL_DIR')
  arguments.add_gin(parser)
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  gin_run.quiet_tensorflow()
  from gqa_flax.errors import UserError
  from gqa_flax.training import loop

  steps = args.steps
  if args.alpha is not None:
    if args.checkpoint is None or steps is not None:
      raise UserError('--alpha needs --checkpoint, and no --steps.')
    steps = steps_after_uptraining(args.checkpoint, args.alpha)
  macros = {
    'INITIAL_CHECKPOINT_PATH': args.checkpoint,
    'TRAIN_STEPS': steps,
    'MODEL_DIR': args.output,
  }
  train = gin_run.bound(args, 'runs/local/train.gin', macros, loop.train)
  report(args, train())
  return 0


def steps_after_uptraining(checkpoint: str, alpha: float) -> int:
  """The step to stop at: (1 + alpha) times the checkpoint's."""
  from gqa_flax.checkpoints import t5x_orbax
  from gqa_flax.errors import UserError

  step = t5x_orbax.read_step(checkpoint)
  updates = round(alpha * step)
  if updates < 1:
    raise UserError(f'--alpha={alpha} of {step} steps is less than one update.')
  return step + updates


def report(args: argparse.Namespace, result: dict) -> None:
  if args.json:
    terminal.print_record(result)
    return
  for name, value in result.items():
    print(f'{name}: {"-" if value is None else format(value, ".4f")}')
