"""gqa-flax export: a checkpoint as transformers' T5."""

import argparse

from gqa_flax.cli import arguments
from gqa_flax.cli import terminal


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'export',
    help="write a checkpoint as transformers' T5",
    description='Writes config.json and safetensors that transformers loads.'
    ' It has no grouped T5: key and value heads are repeated for the query'
    ' heads that read them, so the result computes the same.',
  )
  parser.add_argument(
    'source', metavar='SRC', help='a checkpoint of any format, or mini'
  )
  parser.add_argument('destination', metavar='DST', help='folder to be made')
  parser.add_argument(
    '--dtype',
    choices=('float32', 'bfloat16'),
    help='of the tensors in DST (default: as they are)',
  )
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  terminal.use_cpu_only()
  from gqa_flax.checkpoints import export

  record = export.export(args.source, args.destination, dtype=args.dtype)
  if args.json:
    terminal.print_record(record)
    return 0
  print(
    f'{record["num_kv_heads"]} key/value heads repeated for'
    f' {record["num_heads"]} query heads; wrote'
    f' {terminal.size(record["bytes_written"])} in {record["files"]} file(s):'
    f' {record["destination"]}'
  )
  return 0
