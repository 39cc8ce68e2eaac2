"""Stages that convert, train and time."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from gqa_flax.checkpoints import convert as convert_lib
from gqa_flax.checkpoints import job as conversion_job
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.data import tasks  # noqa: F401  (registers the tasks)
from gqa_flax.measure import timing
from gqa_flax.study import experiments
from gqa_flax.study.job import Done
from gqa_flax.study.job import Job
from gqa_flax.training import evaluation
from gqa_flax.training import loop
from gqa_flax.training import metric_log
from gqa_flax.training import models
from gqa_flax.training import optimizer

# Of fine-tuning's own teacher-forced loss, which decides nothing.
_FINETUNE_EVAL_BATCHES = 4
_FINETUNE_LOG_PERIOD = 10


def convert(job: Job) -> Done:
  """Section 2.1; in float32, so that pooling does not round."""
  settings = conversion_job.Settings(
    num_kv_heads=job.params['num_kv_heads'],
    method=job.params['method'] or 'mean',
    dtype='float32',
    seed=job.params['seed'],
  )
  work = conversion_job.prepare(job.facts.checkpoint, settings)
  record = convert_lib.convert(work, job.folder, overwrite=True)
  merged = record['kernels_converted']
  return Done(
    {**job.params, 'kernels_converted': merged, 'kernels': record['kernels']},
    f'{merged} of {record["kernels"]} parameters merged',
    (f'{job.stage.folder}/checkpoint_{job.facts.step}',),
  )


def uptrain(job: Job) -> Done:
  """Section 3.1: one run with the original recipe, read at each alpha."""
  recipe = _fields(experiments.Uptraining, job.params)
  (source,) = job.needed('convert')
  model = models.from_checkpoint(job.folder_of(source))
  curve = []
  for alpha, step in recipe.steps(job.facts.step).items():
    if step == job.facts.step:
      metrics = job.partial('before', lambda: _loss(job, recipe, model, source))
    else:
      metrics = _uptrain_to(job, recipe, model, source, step)
    curve.append({'alpha': alpha, 'step': step, **metrics})
  last = curve[-1]
  result = {
    'method': job.params['method'],
    'num_kv_heads': job.params['num_kv_heads'],
    'initial_step': job.facts.step,
    'curve': curve,
    'seconds_per_step': _seconds_per_step(job.folder),
  }
  return Done(
    result,
    f'held-out loss {curve[0]["cross_entropy"]:.3f} at alpha '
    f'{curve[0]["alpha"]:g}, {last["cross_entropy"]:.3f} at '
    f'{last["alpha"]:g}',
    tuple(
      f'{job.stage.folder}/checkpoint_{row["step"]}'
      for row in curve
      if row['step'] > job.facts.step
    ),
  )


def _loss(job: Job, recipe, model, source: str) -> dict[str, float]:
  return evaluation.held_out_loss(
    model,
    models.restore_params(model, job.folder_of(source)),
    job.params['task'],
    _lengths(job.params),
    recipe.batch_size,
    max_batches=recipe.eval_batches,
  )


def _uptrain_to(
  job: Job, recipe: experiments.Uptraining, model, source: str, step: int
) -> dict[str, float]:
  """Trains to a step, unless a stopped attempt was there; its held-out loss."""
  found = _logged_validation(job.folder, step)
  if found is None:
    all_steps = recipe.steps(job.facts.step).values()
    config = loop.TrainConfig(
      task=job.params['task'],
      sequence_length=_lengths(job.params),
      train_steps=step,
      schedule=optimizer.inverse_square_root(
        recipe.scale, recipe.decay_from, recipe.warmup_steps
      ),
      batch_size=recipe.batch_size,
      initial_checkpoint=str(job.folder_of(source)),
      z_loss=recipe.z_loss,
      loss_normalizing_factor=recipe.loss_normalizing_factor,
      seed=recipe.seed,
      eval_batches=recipe.eval_batches,
      checkpoint_period=recipe.checkpoint_period,
      keep_steps=tuple(all_steps),
    )
    loop.train(model, config, str(job.folder))
    found = _logged_validation(job.folder, step)
  return found


def _logged_validation(folder, step: int) -> dict[str, float] | None:
  """The evaluation at a step that the run has passed, from its log."""
  saved = t5x_orbax.steps(folder)
  if not saved or saved[-1] < step:
    return None
  for row in metric_log.read(folder):
    if row['split'] == 'validation' and row['step'] == step:
      return {k: v for k, v in row.items() if k not in ('split', 'step')}
  return None


def finetune(job: Job) -> Done:
  """One run on the mixture; its checkpoints are the candidates of `select`."""
  params = job.params
  tuning = _fields(experiments.Finetuning, params)
  parent = (job.needed('uptrain') or job.needed('convert'))[0]
  first = params['first_step']
  source = job.folder_of(parent) / f'checkpoint_{first}'
  config = loop.TrainConfig(
    task=params['task'],
    sequence_length=_lengths(params),
    train_steps=first + tuning.steps,
    schedule=optimizer.linear_to_zero(
      tuning.learning_rate, first + tuning.steps, tuning.steps
    ),
    batch_size=tuning.batch_size,
    initial_checkpoint=str(source),
    z_loss=tuning.z_loss,
    loss_normalizing_factor=tuning.loss_normalizing_factor,
    seed=params['seed'],
    pack=tuning.pack,
    log_period=_FINETUNE_LOG_PERIOD,
    eval_batches=_FINETUNE_EVAL_BATCHES,
    checkpoint_period=tuning.checkpoint_period,
    keep_checkpoints=None,
  )
  model = models.from_checkpoint(source, tuning.dropout_rate)
  loop.train(model, config, str(job.folder))
  rows = metric_log.read(job.folder)
  losses = [r['cross_entropy'] for r in rows if r['split'] == 'train']
  saved = [s for s in t5x_orbax.steps(job.folder) if s > first]
  result = {
    **{k: params[k] for k in ('method', 'num_kv_heads', 'alpha', 'seed')},
    'first_step': first,
    'steps': tuning.steps,
    'checkpoints': saved,
    'train_cross_entropy': losses[-1],
    'seconds_per_step': _seconds_per_step(job.folder),
  }
  return Done(
    result,
    f'training loss {losses[0]:.3f} to {losses[-1]:.3f}, '
    f'{len(saved)} checkpoints',
    tuple(f'{job.stage.folder}/checkpoint_{step}' for step in saved),
  )


def time(job: Job) -> Done:
  """Section 3.1's timing: all G side by side, in one process."""
  loaded = {}
  for name in job.needed('convert'):
    folder = job.folder_of(name)
    model = models.from_checkpoint(folder)
    loaded[str(model.config.num_kv_heads)] = (
      model,
      models.restore_params(model, folder),
    )
  shapes = [
    job.partial(
      f'shape-{i}',
      lambda shape=shape: _time_shape(loaded, shape, job.params['rounds']),
    )
    for i, shape in enumerate(job.params['shapes'])
  ]
  first = shapes[0]['models']
  told = ', '.join(
    f'G = {g} {m["ms_per_sample"]["median"]:.2f}' for g, m in first.items()
  )
  return Done({'shapes': shapes}, f'ms a sample: {told}')


def _time_shape(loaded, fields: Mapping[str, Any], rounds: int) -> dict:
  shape = timing.Shape(**fields)
  measured = timing.time_models(loaded, shape, rounds)
  return {
    **fields,
    'models': {
      g: {**timing.summarize(times, shape), **times}
      for g, times in measured.items()
    },
  }


def _fields(config_class, params: Mapping[str, Any]):
  """The dataclass out of a stage's params, lists as tuples."""
  names = {field.name for field in dataclasses.fields(config_class)}
  return config_class(
    **{
      name: tuple(value) if isinstance(value, list) else value
      for name, value in params.items()
      if name in names
    }
  )


def _lengths(params: Mapping[str, Any]) -> dict[str, int]:
  return {'inputs': params['inputs'], 'targets': params['targets']}


def _seconds_per_step(folder) -> float | None:
  """The median of the log's periods."""
  found = [
    row['seconds_per_step']
    for row in metric_log.read(folder)
    if row['split'] == 'train' and row.get('seconds_per_step') is not None
  ]
  return float(np.median(found)) if found else None
