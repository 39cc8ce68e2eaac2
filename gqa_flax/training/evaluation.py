"""Held-out loss, teacher-forced."""

from collections.abc import Mapping
import functools
import itertools

import jax
from jax.sharding import Mesh
import numpy as np

from gqa_flax.model import network
from gqa_flax.model import sharding
from gqa_flax.training import input_pipeline
from gqa_flax.training import steps

# Order and corruption of held-out data are the same in every evaluation.
EVAL_SEED = 42


@functools.cache
def _batch_loss(model: network.Transformer):
  return jax.jit(functools.partial(steps.batch_loss, model))


def held_out_loss(
  model: network.Transformer,
  params,
  task: str,
  sequence_length: Mapping[str, int],
  batch_size: int,
  *,
  split: str = 'validation',
  max_batches: int | None = None,
  mesh: Mesh | None = None,
  pack: bool = False,
  shuffled_sources: bool = False,
) -> dict[str, float]:
  """Cross-entropy in nats per target token, and accuracy.

  The examples and their corruption are the same for every model and call, so
  that differences between models are not differences between samples.

  Args:
    model: the network; dropout is off.
    params: its parameters.
    task: seqio task or mixture.
    sequence_length: {'inputs': s, 'targets': t}.
    batch_size: rows in a batch.
    split: of the task.
    max_batches: None for the whole split.
    mesh: axes (data, model); None for one of all devices.
    pack: packs several examples into a row.
    shuffled_sources: gives each example the next one's source: how much the
      loss rises tells how much cross-attention is used.

  Returns:
    cross_entropy (nats), its standard error over batches, accuracy, tokens.
  """
  mesh = mesh or sharding.make_mesh()
  batches = input_pipeline.batches(
    task, split, sequence_length, batch_size, seed=EVAL_SEED, pack=pack
  )
  sums = []
  for batch in itertools.islice(batches, max_batches):
    if shuffled_sources:
      rolled = np.roll(batch['encoder_input_tokens'], 1, axis=0)
      batch = batch | {'encoder_input_tokens': rolled}
    batch = input_pipeline.to_device(batch, mesh)
    sums.append(_batch_loss(model)(params, batch))
  sums = jax.device_get(sums)
  tokens = np.array([s['tokens'] for s in sums], np.float64)
  entropy = np.array([s['cross_entropy'] for s in sums], np.float64)
  total = max(tokens.sum(), 1.0)
  mean = entropy.sum() / total
  residual = entropy - mean * tokens
  error = np.sqrt((residual**2).sum() * len(sums) / max(len(sums) - 1, 1))
  return {
    'cross_entropy': float(mean),
    'standard_error': float(error / total),
    'accuracy': float(sum(s['correct'] for s in sums) / total),
    'tokens': float(total),
  }
