"""gqa-flax verify: convert again and compare."""

import argparse
import dataclasses

from gqa_flax.cli import arguments
from gqa_flax.cli import terminal


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'verify',
    help='check a converted checkpoint against its source',
    description='Reads the manifest of a converted checkpoint, converts the'
    ' source again and compares: untouched tensors byte for byte, converted'
    ' ones within rounding. Exit code 2 if anything differs.',
  )
  parser.add_argument('source', metavar='SRC', help='what was converted')
  parser.add_argument('destination', metavar='DST', help='the result')
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  terminal.use_cpu_only()
  from gqa_flax.checkpoints import verify

  with terminal.bytes_bar(None, 'verify') as bar:
    report = verify.verify(args.source, args.destination, progress=bar.update)
  good = not report.differences
  if args.json:
    terminal.print_record({**dataclasses.asdict(report), 'ok': good})
  elif good:
    print(
      f'OK {report.destination}: {report.kept} tensors as they must be, byte'
      f' for byte; {report.converted} converted, within rounding'
    )
  else:
    for difference in report.differences:
      print(difference)
    print(f'{len(report.differences)} differences in {report.destination}')
  return 0 if good else 2
