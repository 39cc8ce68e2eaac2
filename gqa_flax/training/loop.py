"""Pre-training, uptraining and fine-tuning on one host, or a few.

One loop serves all three; they differ in the checkpoint they start from, the
task, the schedule and dropout (section 3.1 of the paper). On pods T5X's own
train.py takes this place.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import itertools
import time
from typing import Any

from absl import logging
from etils import epath
import jax
import numpy as np
import seqio
import tqdm

from gqa_flax.checkpoints import folders
from gqa_flax.checkpoints import manifest
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.data import vocabularies
from gqa_flax.errors import UserError
from gqa_flax.model import network
from gqa_flax.model import sharding
from gqa_flax.training import input_pipeline
from gqa_flax.training import metric_log
from gqa_flax.training import models
from gqa_flax.training import optimizer
from gqa_flax.training import state as state_lib
from gqa_flax.training import steps

_EXAMPLES_LOOKED_AT = 1000  # For those that are too long.


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """What a run does.

  Attributes:
    task: seqio task or mixture.
    sequence_length: {'inputs': s, 'targets': t}.
    train_steps: step to stop at, counted as the checkpoint counts: a run from
      a checkpoint at 1,000,000 with 1,050,000 makes 50,000 updates.
    schedule: learning rate by step.
    batch_size: rows in a batch.
    initial_checkpoint: where to start; None for fresh parameters.
    z_loss: coefficient of log(Z)^2.
    loss_normalizing_factor: divisor of the summed loss; None for the batch's
      count of tokens.
    seed: seed of fresh parameters, dropout and the order of the data.
    pack: packs several examples into a row.
    model_partitions: size of the mesh's model axis.
    eval_period: updates between evaluations; 0 for none but the last.
    eval_batches: batches of the split `validation` in an evaluation.
    checkpoint_period: updates between checkpoints; the last is always kept.
    keep_checkpoints: how many to keep, the newest; None keeps all.
    keep_steps: steps whose checkpoints are kept besides.
    log_period: updates between records of the training loss.
  """

  task: str
  sequence_length: Mapping[str, int]
  train_steps: int
  schedule: optimizer.Schedule
  batch_size: int = 128
  initial_checkpoint: str | None = None
  z_loss: float = 1e-4
  loss_normalizing_factor: float | None = None
  seed: int = 0
  pack: bool = False
  model_partitions: int = 1
  eval_period: int = 0
  eval_batches: int = 20
  checkpoint_period: int = 1000
  keep_checkpoints: int | None = 1
  keep_steps: tuple[int, ...] = ()
  log_period: int = 50


def train(
  model: network.Transformer, config: TrainConfig, output_dir: str
) -> dict[str, float | None]:
  """Trains to `config.train_steps`, going on where a stopped run left off.

  Args:
    model: the network; its config's dropout_rate holds for training.
    config: what to do.
    output_dir: folder of checkpoints, metrics.jsonl and TensorBoard events.

  Returns:
    Metrics of the last evaluation, and `seconds_per_step` (the median; None
    where nothing was left to do).

  Raises:
    UserError: a checkpoint, a vocabulary or an output folder that does not
      fit, or a task without examples.
  """
  try:
    mesh = sharding.make_mesh(config.model_partitions)
  except ValueError as error:
    raise UserError(str(error)) from error
  input_pipeline.check_task(config.task)
  vocabularies.check_vocabulary(
    seqio.get_mixture_or_task(config.task)
    .output_features['targets']
    .vocabulary,
    model.config.vocab_size,
  )
  model = models.on_this_device(model)
  _tell_truncated(config)
  data = mesh.shape['data']
  if config.batch_size % data:
    raise UserError(
      f'batch_size ({config.batch_size}) must be a multiple of the '
      f'data-parallel devices ({data}).'
    )
  with sharding.on_mesh(mesh, model.config.num_kv_heads):
    return _Run(model, config, output_dir, mesh).to_the_end()


class _Run:
  """A run under way: its state, its first step, its log."""

  def __init__(self, model, config, output_dir, mesh):
    self.model = model
    self.config = config
    self.directory = epath.Path(output_dir)
    self.mesh = mesh
    self.origin = _origin(config, output_dir)
    tx = optimizer.adafactor(config.schedule, self.origin['step_offset'])
    self.first_step, self.state = _start(model, config, output_dir, tx, mesh)
    self.step = int(self.state.step)
    self.log = metric_log.MetricLog(output_dir, resume_step=self.step)
    self.evaluation = {}
    self.update = jax.jit(
      functools.partial(
        steps.train_step,
        model,
        tx,
        z_loss=config.z_loss,
        loss_normalizing_factor=config.loss_normalizing_factor,
        seed=config.seed,
      ),
      donate_argnums=0,
    )

  def to_the_end(self) -> dict[str, float | None]:
    config = self.config
    periods = []
    progress = tqdm.tqdm(
      total=config.train_steps - self.first_step,
      initial=self.step - self.first_step,
      desc=f'train {config.task}',
      unit='step',
      disable=jax.process_index() > 0,
    )
    with progress:
      pending, since = [], time.perf_counter()
      for batch in self._batches():
        self.state, sums = self.update(self.state, batch)
        pending.append(sums)
        self.step += 1
        progress.update()
        if self.step % config.log_period == 0 or self._at_end():
          record = _means(jax.device_get(pending))
          seconds = (time.perf_counter() - since) / len(pending)
          periods.append(seconds)
          record['learning_rate'] = float(config.schedule(self.step - 1))
          record['seconds_per_step'] = seconds
          self.log.write(self.step, 'train', record)
          progress.set_postfix(loss=f'{record["cross_entropy"]:.3f}')
          pending, since = [], time.perf_counter()
        if self._due(config.eval_period):
          self._evaluate()
          since = time.perf_counter()
        if self._due(config.checkpoint_period):
          self._save()
          since = time.perf_counter()
    if not self.evaluation:
      self._evaluate()
    self.log.close()
    median = float(np.median(periods)) if periods else None
    return self.evaluation | {'seconds_per_step': median}

  def _at_end(self) -> bool:
    return self.step >= self.config.train_steps

  def _due(self, period: int) -> bool:
    return self._at_end() or (period > 0 and self.step % period == 0)

  def _batches(self) -> Iterator[dict[str, jax.Array]]:
    config = self.config
    remaining = config.train_steps - self.step
    if remaining <= 0:
      return
    source = input_pipeline.batches(
      config.task,
      'train',
      config.sequence_length,
      config.batch_size,
      shuffle=True,
      seed=config.seed,
      num_epochs=None,
      start=self.step - self.first_step,
      pack=config.pack,
    )
    for batch in itertools.islice(source, remaining):
      yield input_pipeline.to_device(batch, self.mesh)

  def _evaluate(self) -> None:
    from gqa_flax.training import evaluation

    config = self.config
    self.evaluation = evaluation.held_out_loss(
      self.model,
      self.state.params,
      config.task,
      config.sequence_length,
      config.batch_size,
      max_batches=config.eval_batches,
      mesh=self.mesh,
      pack=config.pack,
    )
    self.log.write(self.step, 'validation', self.evaluation)
    logging.info('step %d: %s', self.step, self.evaluation)

  def _save(self) -> None:
    t5x_orbax.save(
      self.directory,
      state_lib.to_checkpoint(self.state),
      overwrite=True,
      sidecar={'first_step': self.first_step}
      | _identity(self.config)
      | self.origin,
    )
    if self.config.keep_checkpoints is not None:
      t5x_orbax.prune(
        self.directory,
        self.config.keep_checkpoints,
        protect=self.config.keep_steps,
      )


def _tell_truncated(config: TrainConfig) -> None:
  """Says once if examples of a fine-tuning task are longer than its lengths.

  (Span corruption cuts its own text to fit.)
  """
  if all(task.metric_fns for task in input_pipeline.tasks_of(config.task)):
    message = input_pipeline.truncation_message(
      input_pipeline.count_truncated(
        config.task, 'train', config.sequence_length, _EXAMPLES_LOOKED_AT
      ),
      config.sequence_length,
    )
    if message:
      logging.warning('%s: %s', config.task, message)


def _identity(config: TrainConfig) -> dict[str, Any]:
  """What must stay the same for a run to go on: its beginning and its data."""
  start = config.initial_checkpoint
  return {
    'seed': config.seed,
    'task': config.task,
    'sequence_length': dict(config.sequence_length),
    'batch_size': config.batch_size,
    'pack': config.pack,
    'initial_checkpoint': start and str(folders.absolute(start)),
  }


def _origin(config: TrainConfig, output_dir: str) -> dict[str, Any]:
  """What a run inherits from the checkpoint it goes on from.

  Returns:
    lineage: the conversions behind it. step_offset: from where the decay of
    second moments counts (the conversion's manifest says, where it reset the
    optimizer's slots; 0 otherwise).
  """
  path = config.initial_checkpoint
  if t5x_orbax.steps(output_dir):
    path = t5x_orbax.latest(output_dir)
  if path is None:
    return {'lineage': [], 'step_offset': 0}
  path = t5x_orbax.resolve(path)
  return {
    'lineage': manifest.lineage(path),
    'step_offset': manifest.step_offset(path),
  }


def _start(model, config, output_dir, tx, mesh):
  """(first step of the run, state to go on from)."""
  if t5x_orbax.steps(output_dir):
    path = t5x_orbax.latest(output_dir)
    sidecar = t5x_orbax.read_sidecar(path) or {}
    identity = _identity(config)
    for name in ('first_step', *identity):
      if name not in sidecar:
        raise UserError(
          f'{path} was not written by a training run of ours ({name} is '
          'not recorded): choose another output folder and give this one '
          'as the initial checkpoint.'
        )
      if name != 'first_step' and sidecar[name] != identity[name]:
        raise UserError(
          f'{path} was written with {name} {sidecar[name]!r}, not '
          f'{identity[name]!r}: choose another output folder.'
        )
    logging.info('going on from %s', path)
    return sidecar['first_step'], state_lib.restore(path, model, tx, mesh)
  # A run that was stopped before its first checkpoint has left its log.
  ours = (epath.Path(output_dir) / metric_log.FILE_NAME).exists()
  if folders.is_foreign(output_dir) and not ours:
    raise UserError(
      f'{output_dir}: exists and is not the folder of a training run; give a '
      'new or an empty folder.'
    )
  if config.initial_checkpoint is None:
    return 0, state_lib.create(model, tx, mesh, config.seed)
  state = state_lib.restore(config.initial_checkpoint, model, tx, mesh)
  first_step = int(state.step)
  if config.train_steps <= first_step:
    raise UserError(
      f'train_steps ({config.train_steps}) must be greater than the step of '
      f'{config.initial_checkpoint} ({first_step}): it counts from the '
      'beginning of pre-training.'
    )
  return first_step, state


def _means(sums: list[Mapping[str, np.ndarray]]) -> dict[str, float]:
  """Per-token means over a list of batches' sums."""
  total = {name: sum(float(s[name]) for s in sums) for name in sums[0]}
  tokens = max(total['tokens'], 1.0)
  return {
    'loss': total['loss'] / tokens,
    'cross_entropy': total['cross_entropy'] / tokens,
    'accuracy': total['correct'] / tokens,
    'tokens': total['tokens'],
  }
