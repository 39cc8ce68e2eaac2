"""Batches: deterministic, resumable, padded."""

import itertools

import numpy as np
import pytest
import seqio

from gqa_flax.errors import UserError
from gqa_flax.training import input_pipeline
from tests.training import conftest


def batches(count, **kwargs):
  source = input_pipeline.batches(
    conftest.TASK, 'train', conftest.LENGTHS, 8, **kwargs
  )
  return list(itertools.islice(source, count))


def assert_same(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b):
    assert x.keys() == y.keys()
    for name in x:
      np.testing.assert_array_equal(x[name], y[name])


def test_same_seed_gives_the_same_order_and_another_does_not(task):
  first = batches(12, shuffle=True, seed=3, num_epochs=None)
  assert_same(first, batches(12, shuffle=True, seed=3, num_epochs=None))
  other = batches(12, shuffle=True, seed=4, num_epochs=None)
  assert any(
    not np.array_equal(x['encoder_input_tokens'], y['encoder_input_tokens'])
    for x, y in zip(first, other)
  )


def test_start_skips_batches_across_epochs(task):
  whole = batches(20, shuffle=True, seed=3, num_epochs=None)
  late = batches(9, shuffle=True, seed=3, num_epochs=None, start=11)
  assert_same(whole[11:], late)


def test_last_batch_is_padded_with_rows_of_weight_zero(task):
  source = input_pipeline.batches(
    conftest.TASK, 'validation', conftest.LENGTHS, 8
  )
  sizes = [(len(b['decoder_loss_weights']), b) for b in source]
  assert [n for n, _ in sizes] == [8, 8, 8]
  last = sizes[-1][1]
  assert not last['decoder_loss_weights'][4:].any()
  assert last['decoder_loss_weights'][:4].any(axis=1).all()


def test_decoder_inputs_are_targets_shifted_right(task):
  batch = batches(1)[0]
  np.testing.assert_array_equal(
    batch['decoder_input_tokens'][:, 1:], batch['decoder_target_tokens'][:, :-1]
  )
  assert not batch['decoder_input_tokens'][:, 0].any()


def test_packed_rows_hold_several_segments(task):
  source = input_pipeline.batches(
    conftest.TASK, 'train', {'inputs': 24, 'targets': 24}, 4, pack=True
  )
  assert next(source)['encoder_segment_ids'].max() > 1


def test_split_without_examples_is_refused(task):
  source = input_pipeline.batches(
    conftest.TASK, 'validation', conftest.LENGTHS, 8, start=100
  )
  with pytest.raises(UserError, match='has no examples'):
    next(source)


def test_too_long_examples_are_counted_and_said_in_one_line(task):
  lengths = [
    len(x['inputs'])
    for x in seqio.get_mixture_or_task(task)
    .get_dataset({'inputs': None, 'targets': None}, 'train', shuffle=False)
    .as_numpy_iterator()
  ]
  limits = {'inputs': 6, 'targets': 32}
  counts = input_pipeline.count_truncated(task, 'train', limits)
  long = sum(n > 6 for n in lengths)
  assert 0 < long < 64
  assert counts == {'examples': 64, 'inputs': long, 'targets': 0}
  message = input_pipeline.truncation_message(counts, limits)
  assert message == (
    f'Truncated of 64 examples: {long} inputs (limit 6 tokens).'
  )


def test_examples_that_fit_are_not_spoken_of(task):
  limits = {'inputs': 32, 'targets': 32}
  counts = input_pipeline.count_truncated(task, 'train', limits, 3)
  assert counts == {'examples': 3, 'inputs': 0, 'targets': 0}
  assert input_pipeline.truncation_message(counts, limits) is None


def test_split_that_is_not_there_is_refused_with_those_that_are(task):
  with pytest.raises(UserError, match="no split 'test'; it has train, valid"):
    next(input_pipeline.batches(task, 'test', conftest.LENGTHS, 8))
