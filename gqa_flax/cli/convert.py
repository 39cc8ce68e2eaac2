"""gqa-flax convert: merge key/value heads of a checkpoint's decoder."""

import argparse

from gqa_flax.cli import arguments
from gqa_flax.cli import terminal


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'convert',
    help='turn a multi-head checkpoint into a grouped-query one',
    description='Converts a T5.1.1 checkpoint: the key and value heads of the'
    " decoder's attentions are merged into G. The encoder is not touched.",
  )
  parser.add_argument(
    'source',
    metavar='SRC',
    help='checkpoint_N of T5X (either format) or ours, a folder of them'
    ' (latest), a folder of transformers, or the word mini',
  )
  parser.add_argument(
    'destination',
    metavar='DST',
    help='folder that gets checkpoint_N of the same step',
  )
  parser.add_argument(
    '--num_kv_heads',
    type=int,
    required=True,
    metavar='G',
    help='key/value heads to keep; 1 is multi-query',
  )
  parser.add_argument(
    '--method',
    choices=('mean', 'first', 'random'),
    default='mean',
    help='how the heads of a group become one (default: mean, as the paper)',
  )
  parser.add_argument(
    '--optimizer',
    choices=('pool', 'reset', 'drop'),
    default='pool',
    help='what becomes of the optimizer slots (default: pool)',
  )
  parser.add_argument(
    '--dtype',
    choices=('float32', 'bfloat16'),
    help='of the parameters in DST (default: as they are)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='of the method random (default: 0)'
  )
  parser.add_argument(
    '--step',
    type=int,
    metavar='N',
    help='what a checkpoint of transformers was trained for, which it does not'
    ' say (default: 0; the public T5.1.1: 1000000)',
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='say what would be done, and stop'
  )
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='replace DST/checkpoint_N, once the new one is complete',
  )
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  terminal.use_cpu_only()
  from gqa_flax.checkpoints import convert
  from gqa_flax.checkpoints import job

  settings = job.Settings(
    num_kv_heads=args.num_kv_heads,
    method=args.method,
    optimizer=args.optimizer,
    dtype=args.dtype,
    seed=args.seed,
  )
  work = job.prepare(args.source, settings, args.step)
  final = convert.check_destination(
    work, args.destination, overwrite=args.overwrite
  )
  plan = convert.summary(work, final)
  if args.dry_run:
    return _show_plan(args, work, plan)
  total = plan['bytes_read'] + plan['bytes_to_write']
  with terminal.bytes_bar(total, 'convert') as bar:
    record = convert.convert(
      work, args.destination, overwrite=args.overwrite, progress=bar.update
    )
  if args.json:
    terminal.print_record(record)
  else:
    print(_headline(record))
    print(
      f'wrote {terminal.size(record["bytes_written"])} in'
      f' {record["seconds"]:.1f} s: {record["destination"]}'
    )
  return 0


def _show_plan(args, work, plan) -> int:
  changes = {
    path: [list(before), list(after)]
    for path, (before, after) in work.plan.changes.items()
  }
  if args.json:
    terminal.print_record({**plan, 'dry_run': True, 'changes': changes})
    return 0
  print(_headline(plan))
  for path, (before, after) in changes.items():
    print(f'  {path}  {before} -> {after}')
  print(
    f'would read {terminal.size(plan["bytes_read"])} of {plan["source"]}\n'
    f'would write {terminal.size(plan["bytes_to_write"])} to'
    f' {plan["destination"]}'
  )
  return 0


def _headline(plan) -> str:
  return (
    f'{plan["num_kv_heads_before"]} -> {plan["num_kv_heads"]} key/value heads'
    f' in the decoder ({plan["num_heads"]} query heads), method'
    f' {plan["method"]}, optimizer slots: {plan["optimizer"]};'
    f' {plan["kernels_converted"]} of {plan["kernels"]} parameters change'
  )
