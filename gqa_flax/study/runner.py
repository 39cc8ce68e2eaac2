"""Runs the stages of a preset, goes on where a stopped run left off.

OUTPUT/reproduce.json        which run this is
OUTPUT/records/STAGE.json    one record a stage
OUTPUT/work/STAGE/KEY        checkpoints, predictions, parts of results
OUTPUT/run.json              all records in one file
OUTPUT/report.html, table.txt, figures/
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import datetime
import fcntl
import importlib
import pathlib
import shutil
import time

import numpy as np

from gqa_flax.checkpoints import manifest
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.conversion import plan as conversion_plan
from gqa_flax.data import corpus
from gqa_flax.data import sources
from gqa_flax.data import vocabularies
from gqa_flax.errors import UserError
from gqa_flax.measure import device
from gqa_flax.study import experiments
from gqa_flax.study import plan
from gqa_flax.study import record as record_lib
from gqa_flax.study.job import Done
from gqa_flax.study.job import Job

Say = Callable[[str], None]

_MARKER = 'reproduce.json'
_JOBS = {
  'corpus': 'scoring_jobs',
  'lead': 'scoring_jobs',
  'convert': 'training_jobs',
  'time': 'training_jobs',
  'uptrain': 'training_jobs',
  'finetune': 'training_jobs',
  'select': 'scoring_jobs',
  'evaluate': 'scoring_jobs',
  'compare': 'scoring_jobs',
}


def read_facts(
  preset: experiments.Preset, checkpoint: str, *, build: bool = True
) -> plan.Facts:
  """What the plan depends on.

  Args:
    preset: says which part of the corpus.
    checkpoint: the multi-head source.
    build: builds the corpus where it is not cached; else its versions stand
      for its content.

  Raises:
    UserError: no checkpoint, not T5's, not multi-head, another vocabulary.
  """
  reader = t5x_orbax.Reader(checkpoint)
  shapes = {
    name.removeprefix('target/'): leaf
    for name, leaf in reader.metadata.items()
    if name.startswith('target/')
  }
  config = conversion_plan.infer_config(shapes)
  if config.num_kv_heads != config.num_heads:
    raise UserError(
      f'{reader.path}: has {config.num_kv_heads} K/V heads of '
      f'{config.num_heads}; the study starts from a multi-head checkpoint.'
    )
  vocabularies.check_vocabulary(
    vocabularies.mini_vocabulary(), config.vocab_size
  )
  tensors = reader.read(reader.metadata)
  described = {name: manifest.describe(x) for name, x in tensors.items()}
  corpus_hash, seconds = _corpus_hash(preset.subset, build)
  return plan.Facts(
    checkpoint=str(reader.path),
    checkpoint_hash=manifest.content_hash(described),
    step=int(tensors['state/step']),
    num_heads=config.num_heads,
    parameters=sum(int(np.prod(leaf.shape)) for leaf in shapes.values()),
    corpus_hash=corpus_hash,
    corpus_seconds=seconds,
  )


def _corpus_hash(subset: str, build: bool) -> tuple[str, float]:
  cached = (corpus.corpus_dir(subset) / 'corpus.json').is_file()
  if not cached and not build:
    return f'versions {sources.key(subset)}', 0.0
  start = time.monotonic()
  found = corpus.statistics(subset)['content_hash']
  return found, 0.0 if cached else time.monotonic() - start


@contextlib.contextmanager
def claimed(output: pathlib.Path, preset: experiments.Preset):
  """Makes the folder ours for the time of the run.

  Raises UserError: it holds other things or a run of another preset, or a run
  is at work in it.
  """
  marker = output / _MARKER
  if output.exists() and not output.is_dir():
    raise UserError(f'{output}: is a file; give a folder.')
  if output.is_dir() and any(output.iterdir()) and not marker.exists():
    raise UserError(
      f'{output}: exists and is not the output of gqa-flax reproduce; give a '
      'new or an empty folder.'
    )
  other = (record_lib.read_json(marker) or {}).get('preset', preset.name)
  if other != preset.name:
    raise UserError(
      f'{output}: holds a run of preset {other!r}; give another folder.'
    )
  record_lib.write_json(marker, {'preset': preset.name})
  with (output / '.lock').open('w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(f'{output}: another run is at work there.') from None
    yield


def record_path(output: pathlib.Path, name: str) -> pathlib.Path:
  return output / 'records' / f'{name}.json'


def finished(
  output: pathlib.Path, stages: Sequence[plan.Stage]
) -> dict[str, record_lib.Record]:
  """Records that hold for the plan, by name.

  A stage whose outputs are gone counts as finished as long as no later stage
  still needs them.
  """
  valid = {}
  for stage in stages:
    record = record_lib.read_json(record_path(output, stage.name))
    if record is not None and record['key'] == stage.key:
      valid[stage.name] = record
  wanted = set()
  for stage in reversed(stages):
    record = valid.get(stage.name)
    if record is not None and stage.name in wanted:
      if not all((output / path).exists() for path in record['outputs']):
        del valid[stage.name]
        record = None
    if record is None:
      wanted.update(stage.needs)
  return valid


def run(
  preset: experiments.Preset,
  facts: plan.Facts,
  output: pathlib.Path,
  say: Say = print,
) -> record_lib.Run:
  """Runs what is not finished yet. Returns the records of all stages.

  The caller holds the folder (`claimed`).
  """
  stages = plan.make(preset, facts)
  by_name = {stage.name: stage for stage in stages}
  done = finished(output, stages)
  width = len(str(len(stages)))
  for number, stage in enumerate(stages, 1):
    head = f'[{number:{width}}/{len(stages)}] {stage.name}: '
    record = done.get(stage.name)
    if record is not None:
      say(
        f'{head}done before ({record["finished"]}, {record["seconds"]:.0f} s)'
      )
      continue
    say(head + stage.what)
    needs = {name: done[name] for name in stage.needs}
    job = Job(stage, output, facts, by_name, needs)
    done[stage.name] = record = _run_stage(job, preset)
    record_lib.write_json(record_path(output, stage.name), record)
    say(
      f'{" " * len(f"[{number:{width}}/{len(stages)}] ")}'
      f'{record["seconds"]:.0f} s: {record["headline"]}'
    )
  found = tuple(done[stage.name] for stage in stages)
  record_lib.write_bundle(output / 'run.json', preset.name, found)
  return record_lib.Run(preset.name, found)


def _run_stage(job: Job, preset: experiments.Preset) -> record_lib.Record:
  module = importlib.import_module(f'gqa_flax.study.{_JOBS[job.stage.kind]}')
  root = job.output / job.stage.root
  _remove_superseded(root)
  attempts = _count_attempt(root)
  start = time.monotonic()
  done = getattr(module, job.stage.kind)(job)
  return _record(job, preset, done, time.monotonic() - start, attempts)


def _record(job, preset, done: Done, seconds, attempts) -> record_lib.Record:
  stage, facts = job.stage, job.facts
  now = datetime.datetime.now().astimezone()
  return {
    'format': record_lib.FORMAT,
    'stage': stage.name,
    'kind': stage.kind,
    'what': stage.what,
    'key': stage.key,
    'preset': preset.name,
    'inputs': {
      'params': dict(stage.params),
      'needs': list(stage.needs),
      'corpus': facts.corpus_hash,
      'checkpoint': facts.checkpoint_hash,
      'step': facts.step,
      'num_heads': facts.num_heads,
      'parameters': facts.parameters,
    },
    'result': done.result,
    'headline': done.headline,
    'outputs': list(done.outputs),
    'seconds': round(seconds + done.extra_seconds, 2),
    'attempts': attempts,
    'peak_memory_bytes': device.peak_memory_bytes(),
    'device': device.describe(),
    'versions': manifest.versions(),
    'finished': now.strftime('%Y-%m-%d %H:%M'),
  }


def _remove_superseded(root: pathlib.Path):
  """Removes what the stage left under other settings: it is of no use now."""
  if root.parent.is_dir():
    for other in root.parent.iterdir():
      if other != root:
        shutil.rmtree(other)


def _count_attempt(root: pathlib.Path) -> int:
  """How often the stage was begun, this time included."""
  path = root / 'attempts'
  root.mkdir(parents=True, exist_ok=True)
  attempts = 1 + (int(path.read_text() or 0) if path.exists() else 0)
  path.write_text(str(attempts))
  return attempts


def pending(
  output: pathlib.Path, stages: Sequence[plan.Stage]
) -> Mapping[str, bool]:
  """Stage name -> whether it would run."""
  done = finished(output, stages) if output.is_dir() else {}
  return {stage.name: stage.name not in done for stage in stages}
