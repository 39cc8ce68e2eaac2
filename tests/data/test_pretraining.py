"""Span corruption against the `t5` package, and by its own properties."""

import json

import numpy as np
import pytest
import seqio
import tensorflow as tf

from gqa_flax.data import pretraining
from tests.data import make_span_corruption_golden as golden


@pytest.mark.parametrize('index', range(len(golden.CASES)))
def test_span_corruption_is_t5s_token_for_token(index):
  expected = json.loads(golden.GOLDEN.read_text())[index]
  found = golden.run(pretraining.span_corruption, *expected['case'])
  assert found[:2] == expected['first']
  assert found[-1] == expected['last']
  assert len(found) == expected['count']
  assert golden.digest(found) == expected['sha256']


def test_span_corruption_is_the_installed_t5_packages():
  """Live, for whoever has `t5` installed; the goldens above are from it."""
  preprocessors = pytest.importorskip('t5.data.preprocessors')
  case = (128, 29, 11)
  theirs = golden.run(preprocessors.span_corruption, *case)
  assert golden.run(pretraining.span_corruption, *case) == theirs


@pytest.mark.parametrize(
  'inputs_length, expected',
  [(128, (141, 29)), (512, (568, 114)), (256, (284, 58))],
)
def test_raw_length_is_known(inputs_length, expected):
  assert pretraining.raw_length(inputs_length) == expected


def test_raw_length_half_noise_evens_out():
  raw, targets = pretraining.raw_length(64, noise_density=0.5)
  assert targets <= 64 and raw > 64


@pytest.mark.parametrize('length', [1, 2, 3, 7, 50, 141])
def test_random_spans_mask_has_the_stated_counts(length):
  for seed in range(5):
    seeds = tf.constant([[seed, 1], [seed, 2]])
    mask = pretraining.random_spans_mask(
      tf.constant(length), 0.15, 3.0, tf.unstack(seeds)
    ).numpy()
    noise = min(max(round(max(length, 2) * 0.15), 1), max(length, 2) - 1)
    assert mask.shape == (length,)
    assert not mask[0]
    if length > 1:
      assert mask.sum() == noise and mask[-1]
    starts = mask[1:] & ~mask[:-1]
    assert starts.sum() == (max(round(noise / 3), 1) if length > 1 else 0)


def test_spans_to_sentinels_inputs_and_targets_complete_each_other():
  tokens = tf.range(10, 20)
  mask = tf.constant([0, 0, 1, 1, 0, 0, 0, 1, 0, 1]) > 0
  inputs = pretraining.spans_to_sentinels(tokens, mask, 100)
  targets = pretraining.spans_to_sentinels(tokens, ~mask, 100)
  np.testing.assert_array_equal(inputs, [10, 11, 99, 14, 15, 16, 98, 18, 97])
  np.testing.assert_array_equal(targets, [99, 12, 13, 98, 17, 97, 19])


def test_span_corruption_targets_too_short_is_refused():
  with pytest.raises(ValueError, match=r'targets length \(20\).*29'):
    golden.run(pretraining.span_corruption, 128, 20, 0)


def test_span_corruption_same_seed_same_examples_other_seed_others():
  first = golden.run(pretraining.span_corruption, 128, 29, 5)
  assert first == golden.run(pretraining.span_corruption, 128, 29, 5)
  assert first != golden.run(pretraining.span_corruption, 128, 29, 6)


def test_span_corruption_full_segments_need_no_padding():
  examples = golden.run(pretraining.span_corruption, 128, 29, 0)
  full = [e for e in examples if len(e['inputs']) == 127]
  assert len(full) >= len(examples) - 2  # the last of each batch of documents
  assert all(len(e['targets']) == 28 for e in full)


def test_feature_converter_accepts_the_examples():
  vocabulary = seqio.PassThroughVocabulary(4096, eos_id=1)
  feature = seqio.Feature(vocabulary, add_eos=True)
  features = {'inputs': feature, 'targets': feature}
  lengths = {'inputs': 128, 'targets': 29}
  with seqio.map_seed_manager(0):
    dataset = pretraining.span_corruption(golden.documents(), lengths, features)
  dataset = seqio.preprocessors.append_eos_after_trim(
    dataset, sequence_length=lengths, output_features=features
  )
  example = next(
    seqio.EncDecFeatureConverter(pack=False)(
      dataset, lengths
    ).as_numpy_iterator()
  )
  assert example['encoder_input_tokens'].shape == (128,)
  assert example['decoder_target_tokens'].shape == (29,)
  assert example['decoder_target_tokens'][-1] == 1
  assert example['decoder_loss_weights'].sum() == 29
