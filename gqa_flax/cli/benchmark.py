"""gqa-flax benchmark: time of encoding and decoding by G."""

import argparse

from gqa_flax.cli import arguments
from gqa_flax.cli import terminal


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'benchmark',
    help='time encoding and decoding for several G',
    description="Times greedy decoding by the paper's protocol: fixed output "
    'length, end-of-sequence ignored, compilation outside the clock, models '
    'timed in turn within each round.',
  )
  parser.add_argument(
    '--checkpoint',
    metavar='C',
    help='multi-head checkpoint, merged in memory (default: the shipped one)',
  )
  parser.add_argument(
    '--num_kv_heads',
    type=int,
    nargs='+',
    metavar='G',
    help='key/value heads to compare (default: all that divide)',
  )
  for name, default in (
    ('batch_size', 16),
    ('input_length', 512),
    ('output_length', 64),
    ('rounds', 10),
  ):
    parser.add_argument(
      f'--{name}', type=int, default=default, help=f'default: {default}'
    )
  parser.add_argument(
    '--encode_batch_size',
    type=int,
    metavar='B',
    help='samples encoded at once (default: all); for little memory',
  )
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  from gqa_flax import paths
  from gqa_flax.errors import UserError
  from gqa_flax.measure import timing

  try:
    shape = timing.Shape(
      args.batch_size,
      args.input_length,
      args.output_length,
      args.encode_batch_size,
    )
    if args.rounds < 1:
      raise ValueError(f'rounds ({args.rounds}) must be at least 1.')
  except ValueError as error:
    raise UserError(str(error)) from error
  checkpoint = args.checkpoint or str(paths.mini_checkpoint_dir())
  models = _models(checkpoint, args.num_kv_heads)
  measured = timing.time_models(models, shape, args.rounds)
  record = _record(args, shape, measured)
  if args.json:
    terminal.print_record(record)
    return 0
  _show(record)
  return 0


def _models(checkpoint: str, groups):
  """str(G) -> (model, parameters), merged by mean."""
  import dataclasses

  from gqa_flax.conversion import methods
  from gqa_flax.errors import UserError
  from gqa_flax.model import network
  from gqa_flax.training import models

  model = models.from_checkpoint(checkpoint)
  params = models.restore_params(model, checkpoint)
  heads = model.config.num_kv_heads
  groups = groups or [g for g in range(heads, 0, -1) if heads % g == 0]
  found = {}
  for g in groups:
    try:
      config = dataclasses.replace(model.config, num_kv_heads=g)
    except ValueError as error:
      raise UserError(str(error)) from error
    merged = methods.convert_params(
      params, num_heads=model.config.num_heads, num_kv_heads=g
    )
    found[str(g)] = (network.Transformer(config), merged)
  return found


def _record(args, shape, measured):
  import dataclasses

  from gqa_flax.checkpoints import manifest
  from gqa_flax.measure import device
  from gqa_flax.measure import timing

  return {
    'what': 'encoding and greedy decoding',
    **dataclasses.asdict(shape),
    'rounds': args.rounds,
    'checkpoint': args.checkpoint or 'mini',
    'dtype': 'float32',
    'models': {
      g: {**timing.summarize(times, shape), **times}
      for g, times in measured.items()
    },
    'device': device.describe(),
    'versions': manifest.versions(),
    'peak_memory_bytes': device.peak_memory_bytes(),
  }


def _show(record) -> None:
  from gqa_flax.measure import device

  print(
    f'{device.label(record["device"])}; batch {record["batch_size"]}, input '
    f'{record["input_length"]}, output {record["output_length"]} tokens, '
    f'{record["rounds"]} rounds: median [quartiles]'
  )
  print(f'{"G":>4}  {"encode ms/sample":24}  {"decode ms/step":24}')
  for g, found in record['models'].items():
    cells = [
      f'{f["median"]:.3f} [{f["q1"]:.3f}, {f["q3"]:.3f}]'
      for f in (found['encode_ms_per_sample'], found['decode_ms_per_step'])
    ]
    print(f'{g:>4}  {cells[0]:24}  {cells[1]:24}')
