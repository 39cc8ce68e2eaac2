"""A tiny model and a tiny task: reversing sequences of random tokens."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from gqa_flax.model import config
from gqa_flax.model import network

VOCAB_SIZE = 64
LENGTHS = {'inputs': 12, 'targets': 8}
TASK = 'tests_reverse'


def _dataset(split, shuffle_files=False, seed=None):
  del shuffle_files, seed
  rng = np.random.default_rng({'train': 0, 'validation': 1}[split])
  count = {'train': 64, 'validation': 20}[split]
  rows = [
    rng.integers(3, VOCAB_SIZE, rng.integers(3, 8)).astype(np.int32)
    for _ in range(count)
  ]
  return tf.data.Dataset.from_generator(
    lambda: ({'inputs': r, 'targets': r[::-1]} for r in rows),
    output_signature={
      name: tf.TensorSpec([None], tf.int32) for name in ('inputs', 'targets')
    },
  )


def register():
  if TASK in seqio.TaskRegistry.names():
    return
  vocabulary = seqio.PassThroughVocabulary(VOCAB_SIZE, eos_id=1)
  feature = seqio.Feature(vocabulary, add_eos=True)
  seqio.TaskRegistry.add(
    TASK,
    source=seqio.FunctionDataSource(_dataset, splits=('train', 'validation')),
    preprocessors=[seqio.preprocessors.append_eos_after_trim],
    output_features={'inputs': feature, 'targets': feature},
    metric_fns=[],
  )


def tiny_model(num_kv_heads=2, dropout_rate=0.1) -> network.Transformer:
  return network.Transformer(
    config.T5Config(
      vocab_size=VOCAB_SIZE,
      emb_dim=32,
      num_heads=4,
      num_kv_heads=num_kv_heads,
      head_dim=8,
      mlp_dim=48,
      num_encoder_layers=2,
      num_decoder_layers=2,
      mlp_activations=('gelu', 'linear'),
      dropout_rate=dropout_rate,
    )
  )


@pytest.fixture
def task():
  register()
  return TASK
