"""Decoding examples in buckets, in their order, and scoring them."""

import json

import numpy as np
import pytest

from gqa_flax.data import local
from gqa_flax.data import vocabularies
from gqa_flax.model import config
from gqa_flax.model import decoding
from gqa_flax.model import network
from gqa_flax.training import prediction
from gqa_flax.training import state


@pytest.fixture(scope='module')
def model():
  return network.Transformer(
    config.T5Config(
      vocab_size=4096,
      emb_dim=16,
      num_heads=2,
      num_kv_heads=1,
      head_dim=8,
      mlp_dim=16,
      num_encoder_layers=1,
      num_decoder_layers=1,
      mlp_activations=('gelu', 'linear'),
    )
  )


@pytest.fixture(scope='module')
def params(model):
  return state.init_params(model, 0)['params']


def test_buckets_hold_every_input_once_and_pad_with_zeros():
  rng = np.random.default_rng(0)
  inputs = [rng.integers(3, 9, n) for n in rng.integers(1, 130, 41)]
  seen = []
  for rows, tokens in prediction.bucketed(inputs, 4):
    assert tokens.shape[0] == 4
    assert tokens.shape[1] in (32, 64, 128, 256)
    for row, got in zip(rows, tokens):
      length = len(inputs[row])
      np.testing.assert_array_equal(got[:length], inputs[row])
      assert not got[length:].any()
    seen += rows
  assert sorted(seen) == list(range(41))


def test_predictions_come_in_the_order_of_the_inputs(model, params):
  vocabulary = vocabularies.mini_vocabulary()
  texts = ['a', 'the array ' * 30, 'returns the shape of', 'x ' * 50, 'b']
  inputs = [
    np.asarray([*vocabulary.encode(t), decoding.EOS_ID], np.int32)
    for t in texts
  ]

  def run(inputs, batch_size):
    return prediction.predict(
      model,
      params,
      inputs,
      vocabulary=vocabulary,
      max_decode_length=6,
      batch_size=batch_size,
    )

  together = run(inputs, 4)
  alone = [run([x], 1)[0] for x in inputs]
  assert together == alone


def test_evaluate_task_writes_a_line_an_example(model, params, tmp_path):
  rows = [
    {'text': f'number {i} of many', 'summary': f'n {i}'} for i in range(5)
  ]
  dev = tmp_path / 'dev.jsonl'
  dev.write_text(''.join(json.dumps(r) + '\n' for r in rows))
  local.register_local_task(
    'tests_summaries',
    'summarization',
    None,
    dev,
    vocabularies.mini_vocabulary(),
  )
  path = tmp_path / 'out' / 'predictions.jsonl'
  result = prediction.evaluate_task(
    model,
    params,
    'tests_summaries',
    sequence_length={'inputs': 8, 'targets': 4},
    batch_size=2,
    predictions_path=path,
  )
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [line['index'] for line in lines] == list(range(5))
  assert {line['references'] for line in lines} == {f'n {i}' for i in range(5)}
  mean = np.mean([line['scores']['rouge1'] for line in lines])
  assert result['rouge1'] == pytest.approx(mean)
  assert result['examples'] == 5
  assert not list(path.parent.glob('*.tmp'))


def test_long_inputs_are_cut_and_said_once(tmp_path, caplog):
  dev = tmp_path / 'dev.jsonl'
  dev.write_text(json.dumps({'inputs': 'word ' * 40, 'targets': 'x'}) + '\n')
  task = local.register_local_task(
    'tests_long', 'text', None, dev, vocabularies.mini_vocabulary()
  )
  with caplog.at_level('WARNING', logger='absl'):
    examples = prediction.read_examples(task, 'validation', 10)
  assert len(examples[0].tokens) == 10
  assert examples[0].tokens[-1] == decoding.EOS_ID
  assert sum('were cut' in r.message for r in caplog.records) == 1
