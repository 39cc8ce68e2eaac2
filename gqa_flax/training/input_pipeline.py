"""Batches of a seqio task, in an order that depends on the seed alone."""

from collections.abc import Iterator, Mapping

import jax
from jax.sharding import Mesh
import numpy as np
import seqio

from gqa_flax.errors import UserError
from gqa_flax.model import sharding

Batch = dict[str, np.ndarray]


def batches(
  task: str,
  split: str,
  sequence_length: Mapping[str, int],
  batch_size: int,
  *,
  shuffle: bool = False,
  seed: int = 0,
  num_epochs: int | None = 1,
  start: int = 0,
  pack: bool = False,
) -> Iterator[Batch]:
  """Batches of model features.

  Args:
    task: name of a registered task or mixture.
    split: 'train', 'validation', ...
    sequence_length: {'inputs': s, 'targets': t}; longer examples are cut.
    batch_size: examples (rows, where packed) in a batch.
    shuffle: whether to shuffle, by `seed`.
    seed: seed of the order and of any random preprocessing.
    num_epochs: passes over the data; None repeats for ever.
    start: batches to skip, to go on where a run stopped.
    pack: packs several examples into a row.

  Yields:
    encoder_input_tokens [b, s], decoder_{input,target}_tokens [b, t],
    decoder_loss_weights [b, t], and segment ids and positions where packed;
    int32. A last, smaller batch is dropped when `num_epochs` is None, else
    padded with empty rows of weight 0.
  """
  check_split(task, split)
  dataset = seqio.get_dataset(
    task,
    task_feature_lengths=dict(sequence_length),
    dataset_split=split,
    feature_converter=seqio.EncDecFeatureConverter(pack=pack),
    shuffle=shuffle,
    num_epochs=num_epochs,
    seed=seed,
  )
  dataset = dataset.batch(batch_size, drop_remainder=num_epochs is None)
  count = 0
  for batch in dataset.skip(start).prefetch(4).as_numpy_iterator():
    count += 1
    yield {name: _pad_rows(x, batch_size) for name, x in batch.items()}
  if not count:
    raise UserError(f'task {task!r} has no examples in split {split!r}.')


def check_split(task: str, split: str) -> None:
  """Raises UserError if there is no such task, or it has no such split."""
  splits = sorted(set.intersection(*(set(t.splits) for t in tasks_of(task))))
  if split not in splits:
    raise UserError(
      f'Task {task!r} has no split {split!r}; it has {", ".join(splits)}.'
    )


def check_task(name: str) -> None:
  """Raises UserError, with the registered names, if there is no such task."""
  known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
  if name not in known:
    raise UserError(
      f'No task or mixture {name!r}; registered: {", ".join(sorted(known))}.'
    )


def tasks_of(name: str) -> list[seqio.Task]:
  """The tasks of a mixture, or the task itself; UserError if unknown."""
  check_task(name)
  found = seqio.get_mixture_or_task(name)
  return found.tasks if isinstance(found, seqio.Mixture) else [found]


def count_truncated(
  task_name: str,
  split: str,
  sequence_length: Mapping[str, int],
  max_examples: int | None = None,
) -> dict[str, int]:
  """How many examples of a task exceed a length, and will be cut.

  Args:
    task_name: a registered task or mixture of tasks.
    split: of the task.
    sequence_length: tokens, the end of sequence included, by feature.
    max_examples: to look at; None for all.

  Returns:
    {'examples': those looked at, 'inputs': too long, 'targets': too long}.
  """
  provider = seqio.get_mixture_or_task(task_name)
  dataset = provider.get_dataset(
    {k: None for k in sequence_length}, split=split, shuffle=False, num_epochs=1
  )
  if max_examples is not None:
    dataset = dataset.take(max_examples)
  counts = {'examples': 0, **{k: 0 for k in sequence_length}}
  for example in dataset.as_numpy_iterator():
    counts['examples'] += 1
    for feature, limit in sequence_length.items():
      counts[feature] += len(example[feature]) > limit
  return counts


def truncation_message(
  counts: Mapping[str, int], sequence_length: Mapping[str, int]
) -> str | None:
  """One line that says what `count_truncated` found; None if nothing."""
  parts = [
    f'{counts[feature]} {feature} (limit {limit} tokens)'
    for feature, limit in sequence_length.items()
    if counts[feature]
  ]
  if not parts:
    return None
  return f'Truncated of {counts["examples"]} examples: {", ".join(parts)}.'


def _pad_rows(x: np.ndarray, rows: int) -> np.ndarray:
  if len(x) == rows:
    return x
  return np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))


def to_device(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
  """Lays a batch out over `data`.

  Every process holds the whole batch and takes its rows, so that the order
  of the data does not depend on how many processes there are.
  """
  place = sharding.batch_sharding(mesh)
  return {
    name: jax.make_array_from_callback(x.shape, place, lambda i, x=x: x[i])
    for name, x in batch.items()
  }
