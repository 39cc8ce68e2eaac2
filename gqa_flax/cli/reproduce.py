"""gqa-flax reproduce: the paper's study at mini scale, end to end."""

import argparse
import functools
import json
import pathlib
import sys
import time

from gqa_flax.cli import arguments
from gqa_flax.cli import gin_run


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'reproduce',
    help='convert, uptrain, fine-tune, score and time; make the report',
    description="The paper's study at mini scale, on this machine. Stopped at "
    'any moment, the same command goes on from there.',
  )
  parser.add_argument(
    '--preset',
    choices=('quick', 'default', 'full', 'conversion'),
    default='default',
    help='quick: minutes, a small part of the corpus; full: everything, hours;'
    ' conversion: held-out losses right after conversion, by method and G',
  )
  parser.add_argument(
    '--output',
    metavar='DIR',
    type=pathlib.Path,
    help='folder of records, report and work (default: runs/reproduce/PRESET)',
  )
  parser.add_argument(
    '--checkpoint',
    metavar='C',
    help='multi-head checkpoint to start from (default: the shipped one)',
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='show the stages, and stop'
  )
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  gin_run.quiet_tensorflow()
  from gqa_flax import paths
  from gqa_flax.study import experiments
  from gqa_flax.study import runner

  preset = experiments.find_preset(args.preset)
  output = args.output or pathlib.Path('runs/reproduce') / preset.name
  checkpoint = args.checkpoint or str(paths.mini_checkpoint_dir())
  if args.dry_run:
    facts = runner.read_facts(preset, checkpoint, build=False)
    return _show_plan(args, preset, facts, output)
  # With --json standard output is the record's alone.
  say = functools.partial(
    print, file=sys.stderr if args.json else sys.stdout, flush=True
  )
  start = time.monotonic()
  with runner.claimed(output, preset):
    facts = runner.read_facts(preset, checkpoint)
    found = runner.run(preset, facts, output, say)
    report = _finish(found, output, say)
  return _close(args, found, report, time.monotonic() - start, say)


def _finish(found, output: pathlib.Path, say) -> pathlib.Path:
  """Prints the tables, writes them and the report."""
  from gqa_flax.study import record
  from gqa_flax.study import report
  from gqa_flax.study import tables

  others = record.committed()
  text = tables.summary(found, others)
  (output / 'table.txt').write_text(text + '\n', encoding='utf-8')
  say('\n' + text + '\n')
  return report.write(output / 'report.html', found, others)


def _close(args, found, report: pathlib.Path, seconds: float, say) -> int:
  from gqa_flax.measure import device

  peak = device.peak_memory_bytes()
  if args.json:
    summary = {
      'preset': found.name,
      'report': str(report),
      'seconds': round(seconds, 1),
      'seconds_of_all_stages': round(found.seconds, 1),
      'peak_memory_bytes': peak,
      'records': list(found.records),
    }
    json.dump(summary, sys.stdout, indent=2, sort_keys=True)
    print()
    return 0
  say(f'report: {report}')
  say(
    f'took {seconds / 60:.1f} min now, {found.seconds / 60:.1f} min for all '
    f'stages; peak memory {peak / 1e9:.1f} GB'
  )
  return 0


def _show_plan(args, preset, facts, output: pathlib.Path) -> int:
  from gqa_flax.study import plan
  from gqa_flax.study import runner

  stages = plan.make(preset, facts)
  pending = runner.pending(output, stages)
  if args.json:
    shown = [
      {
        'stage': stage.name,
        'what': stage.what,
        'params': dict(stage.params),
        'needs': list(stage.needs),
        'estimated_seconds': round(stage.estimate),
        'pending': pending[stage.name],
        'command': _command(stage, output),
      }
      for stage in stages
    ]
    json.dump(
      {'preset': preset.name, 'output': str(output), 'stages': shown},
      sys.stdout,
      indent=2,
    )
    print()
    return 0
  for number, stage in enumerate(stages, 1):
    state = f'about {stage.estimate:.0f} s' if pending[stage.name] else 'done'
    print(f'{number:3} {stage.name}: {stage.what} ({state})')
    if stage.command:
      print(f'      {_command(stage, output)}')
  total = sum(s.estimate for s in stages if pending[s.name])
  print(
    f'{len(stages)} stages, {sum(pending.values())} to run: about '
    f'{total / 60:.0f} min on two idle CPU cores; into {output}'
  )
  return 0


def _command(stage, output: pathlib.Path) -> str | None:
  """The stage by hand, with paths in place."""
  if stage.command is None:
    return None
  from gqa_flax.study import commands

  hand = output.with_name(f'{output.name}-by_hand')
  return stage.command.replace(commands.HAND, str(hand))
