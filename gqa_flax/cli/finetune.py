"""gqa-flax finetune: a task of the package, or the user's own files."""

import argparse

from gqa_flax.cli import arguments
from gqa_flax.cli import gin_run
from gqa_flax.cli import train as train_command
from gqa_flax.errors import UserError


def add_data_flags(parser: argparse.ArgumentParser) -> None:
  """Flags that say what to read: a registered task, or JSONL files."""
  parser.add_argument(
    '--task',
    metavar='TASK',
    help='a registered task or mixture; or, with files of your own, what '
    'they hold: summarization, translation, question_answering or text',
  )
  parser.add_argument('--dev', metavar='FILE', help='JSONL, plain or .gz')
  parser.add_argument(
    '--vocabulary',
    metavar='FILE',
    help="SentencePiece model (default: the mini model's)",
  )
  parser.add_argument(
    '--inputs_length', type=int, metavar='S', help='tokens of an input'
  )
  parser.add_argument(
    '--targets_length', type=int, metavar='T', help='tokens of a target'
  )


def register_files(args: argparse.Namespace, train: str | None) -> str | None:
  """Registers --train and --dev as a task; returns the task's name."""
  if train is None and args.dev is None:
    if args.vocabulary is not None:
      raise UserError(
        '--vocabulary goes with files of your own: a registered task has one.'
      )
    return args.task
  from gqa_flax import paths
  from gqa_flax.data import local
  from gqa_flax.data import vocabularies

  kind = args.task or 'text'
  name = local.task_name(kind, train, args.dev)
  local.register_local_task(
    name,
    kind,
    train,
    args.dev,
    vocabularies.load(args.vocabulary or paths.mini_vocabulary_path()),
  )
  return name


def lengths(args: argparse.Namespace) -> dict[str, int | None]:
  return {
    'INPUTS_LENGTH': args.inputs_length,
    'TARGETS_LENGTH': args.targets_length,
  }


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'finetune',
    help='fine-tune a checkpoint on a task or on your own files',
    description='Fine-tunes with the settings of the paper: constant '
    'learning rate, dropout 0.1. Started again, it goes on where it stopped.',
  )
  parser.add_argument(
    '--checkpoint', metavar='C', help='where to start (INITIAL_CHECKPOINT_PATH)'
  )
  parser.add_argument('--train', metavar='FILE', help='JSONL, plain or .gz')
  add_data_flags(parser)
  parser.add_argument(
    '--steps',
    type=int,
    default=1000,
    metavar='N',
    help='updates to make (default: 1000)',
  )
  parser.add_argument('--batch_size', type=int, metavar='B', help='BATCH_SIZE')
  parser.add_argument(
    '--output', metavar='DIR', help='MODEL_DIR (default: runs/finetuned)'
  )
  arguments.add_gin(parser)
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  gin_run.quiet_tensorflow()
  from gqa_flax.checkpoints import t5x_orbax
  from gqa_flax.data import tasks  # noqa: F401  (registers the tasks)
  from gqa_flax.training import loop

  if (args.train is None) != (args.dev is None):
    raise UserError(
      '--train and --dev go together: dev examples are not trained on.'
    )
  steps = None
  if args.checkpoint is not None:
    steps = t5x_orbax.read_step(args.checkpoint) + args.steps
  macros = {
    'INITIAL_CHECKPOINT_PATH': args.checkpoint,
    'MIXTURE_OR_TASK_NAME': register_files(args, args.train),
    'TRAIN_STEPS': steps,
    'FINETUNE_STEPS': args.steps,
    'BATCH_SIZE': args.batch_size,
    'MODEL_DIR': args.output,
  } | lengths(args)
  train = gin_run.bound(args, 'runs/local/finetune.gin', macros, loop.train)
  train_command.report(args, train())
  return 0
