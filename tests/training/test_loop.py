"""Training: it learns, resumes bit for bit, and does the same on a mesh."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import tensorflow as tf

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.errors import UserError
from gqa_flax.model import network
from gqa_flax.model import sharding
from gqa_flax.training import loop
from gqa_flax.training import metric_log
from gqa_flax.training import optimizer
from tests.training import conftest

SCHEDULE = optimizer.inverse_square_root(scale=0.3, decay_from=10)


def train(output, steps, model=None, **kwargs):
  settings = dict(
    task=conftest.TASK,
    sequence_length=conftest.LENGTHS,
    train_steps=steps,
    schedule=SCHEDULE,
    batch_size=8,
    checkpoint_period=3,
    eval_period=3,
    log_period=2,
  )
  return loop.train(
    model or conftest.tiny_model(),
    loop.TrainConfig(**(settings | kwargs)),
    str(output),
  )


def assert_same_state(a, b):
  a, b = t5x_orbax.restore(a, dtype=None), t5x_orbax.restore(b, dtype=None)
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_training_lowers_the_loss(task, tmp_path):
  train(tmp_path, 40, eval_period=40, checkpoint_period=40, log_period=10)
  losses = [
    r['cross_entropy']
    for r in metric_log.read(tmp_path)
    if r['split'] == 'train'
  ]
  assert len(losses) == 4
  assert losses[-1] < losses[0] - 0.5


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(task, tmp_path):
  train(tmp_path / 'whole', 6)
  train(tmp_path / 'parts', 3)
  train(tmp_path / 'parts', 6)
  assert_same_state(
    tmp_path / 'whole' / 'checkpoint_6', tmp_path / 'parts' / 'checkpoint_6'
  )


def test_metrics_after_the_checkpoint_are_dropped_on_resume(task, tmp_path):
  train(tmp_path, 3)
  with open(tmp_path / 'metrics.jsonl', 'a') as f:
    f.write('{"step": 5, "split": "train", "loss": 1.0}\n{"step": 6, "spl')
  train(tmp_path, 6)
  validation = [
    r['step'] for r in metric_log.read(tmp_path) if r['split'] == 'validation'
  ]
  assert validation == [3, 6]
  assert all('loss' not in r or r['loss'] != 1.0
             for r in metric_log.read(tmp_path))  # fmt: skip


def test_finished_run_is_not_run_again(task, tmp_path):
  train(tmp_path, 3)
  before = (tmp_path / 'checkpoint_3' / 'gqa_flax.json').stat().st_mtime_ns
  result = train(tmp_path, 3)
  after = (tmp_path / 'checkpoint_3' / 'gqa_flax.json').stat().st_mtime_ns
  assert before == after
  assert result['cross_entropy'] > 0


def test_uptraining_goes_on_from_step_slots_and_schedule(task, tmp_path):
  train(tmp_path / 'first', 4)
  train(
    tmp_path / 'second',
    6,
    initial_checkpoint=str(tmp_path / 'first'),
    seed=1,
  )
  state = t5x_orbax.restore(tmp_path / 'second')
  assert int(state['state']['step']) == 6
  sidecar = t5x_orbax.read_sidecar(tmp_path / 'second' / 'checkpoint_6')
  assert sidecar['first_step'] == 4
  rate = [
    r for r in metric_log.read(tmp_path / 'second') if r['split'] == 'train'
  ][-1]['learning_rate']
  assert rate == pytest.approx(float(SCHEDULE(5)))


def test_train_steps_not_beyond_the_checkpoint_are_refused(task, tmp_path):
  train(tmp_path / 'first', 3)
  with pytest.raises(UserError, match=r'train_steps \(3\) must be greater'):
    train(tmp_path / 'second', 3, initial_checkpoint=str(tmp_path / 'first'))


def test_slots_reset_by_a_conversion_count_from_its_step(task, tmp_path):
  train(tmp_path / 'mha', 3, model=conftest.tiny_model(num_kv_heads=4))
  settings = job.Settings(num_kv_heads=2, method='mean', optimizer='reset')
  convert.convert(job.prepare(tmp_path / 'mha', settings), tmp_path / 'gqa')
  for steps in (6, 9):  # started, and resumed
    train(tmp_path / 'on', steps, initial_checkpoint=str(tmp_path / 'gqa'))
    sidecar = t5x_orbax.read_sidecar(tmp_path / 'on' / f'checkpoint_{steps}')
    assert sidecar['step_offset'] == 3
    (made,) = sidecar['lineage']
    assert made['conversion']['num_kv_heads'] == 2


def test_folder_of_something_else_is_refused_and_kept(task, tmp_path):
  (tmp_path / 'thesis.tex').write_text('mine')
  with pytest.raises(UserError, match='not the folder of a training run'):
    train(tmp_path, 3)
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_other_seed_in_the_same_folder_is_refused(task, tmp_path):
  train(tmp_path, 3)
  with pytest.raises(UserError, match='written with seed 0, not 1'):
    train(tmp_path, 6, seed=1)


def test_checkpoint_of_another_shape_lists_every_tensor(task, tmp_path):
  train(tmp_path / 'mha', 3, model=conftest.tiny_model(num_kv_heads=4))
  with pytest.raises(UserError) as error:
    train(
      tmp_path / 'mqa',
      6,
      model=conftest.tiny_model(num_kv_heads=1),
      initial_checkpoint=str(tmp_path / 'mha'),
    )
  message = str(error.value)
  for layer in range(2):
    for attention in ('self_attention', 'encoder_decoder_attention'):
      for kernel in ('key', 'value'):
        assert f'decoder/layers_{layer}/{attention}/{kernel}' in message


def test_only_the_newest_checkpoints_and_chosen_steps_are_kept(task, tmp_path):
  train(tmp_path, 12, keep_checkpoints=1, keep_steps=(6,))
  assert t5x_orbax.steps(tmp_path) == [6, 12]


_ON_A_MESH = """
import json, sys
import jax
from tests.training import conftest
from tests.training import test_loop
conftest.register()
for partitions in (None, *map(int, sys.argv[3:])):
  if partitions is None:
    from gqa_flax.model import sharding
    make_mesh = sharding.make_mesh
    sharding.make_mesh = lambda n=1: make_mesh(1, jax.devices()[:1])
  else:
    sharding.make_mesh = make_mesh
  out = f'{sys.argv[1]}/{partitions}'
  test_loop.train(out, 4, log_period=1, model_partitions=partitions or 1,
                  model=conftest.tiny_model(num_kv_heads=int(sys.argv[2])))
"""


@pytest.mark.parametrize(
  'num_kv_heads, partitions',
  [
    (1, [2]),
    pytest.param(1, [1, 4, 8], marks=pytest.mark.slow),
    pytest.param(2, [2, 4], marks=pytest.mark.slow),
    pytest.param(4, [1, 2, 4], marks=pytest.mark.slow),
  ],
)
def test_losses_on_eight_devices_are_those_on_one(
  tmp_path, num_kv_heads, partitions
):
  root = pathlib.Path(__file__).parents[2]
  env = os.environ | {
    'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(root),
  }
  subprocess.run(
    [sys.executable, '-c', _ON_A_MESH]
    + [str(x) for x in (tmp_path, num_kv_heads, *partitions)],
    env=env,
    cwd=root,
    check=True,
    capture_output=True,
  )

  def losses(folder):
    return [
      r['cross_entropy']
      for r in metric_log.read(tmp_path / str(folder))
      if r['split'] == 'train'
    ]

  one = losses('None')
  assert len(one) == 4
  for model_partitions in partitions:
    np.testing.assert_allclose(losses(model_partitions), one, rtol=2e-5)


def test_partitions_that_do_not_divide_the_devices_are_refused(task, tmp_path):
  with pytest.raises(UserError, match='must be a multiple'):
    train(tmp_path / 'out', 2, model_partitions=3)
  assert not (tmp_path / 'out').exists()


def test_batch_that_does_not_divide_over_the_devices_is_refused(
  task, tmp_path, monkeypatch
):
  two = types.SimpleNamespace(shape={'data': 2, 'model': 1})
  monkeypatch.setattr(sharding, 'make_mesh', lambda partitions: two)
  with pytest.raises(UserError, match=r'batch_size \(7\) must be a multiple'):
    train(tmp_path / 'out', 2, batch_size=7)


def test_vocabulary_that_does_not_fit_is_refused(task, tmp_path):
  config = conftest.tiny_model().config
  model = network.Transformer(dataclasses.replace(config, vocab_size=40))
  with pytest.raises(UserError, match='has 64 ids, but the model has 40'):
    train(tmp_path / 'out', 2, model=model)
  assert not (tmp_path / 'out').exists()


def test_bfloat16_is_float32_on_a_cpu(task, tmp_path):
  config = conftest.tiny_model(dropout_rate=0.0).config
  model = network.Transformer(dataclasses.replace(config, dtype='bfloat16'))
  half = train(tmp_path / 'half', 2, model=model)
  full = train(tmp_path / 'full', 2, model=network.Transformer(config))
  assert half['cross_entropy'] == full['cross_entropy']


@pytest.mark.parametrize(
  'change',
  [
    {'batch_size': 4},
    {'pack': True},
    {'sequence_length': {'inputs': 10, 'targets': 8}},
  ],
)
def test_run_goes_on_only_with_the_same_data(task, tmp_path, change):
  train(tmp_path, 2)
  (name,) = change
  with pytest.raises(UserError, match=f'was written with {name} '):
    train(tmp_path, 4, **change)


def test_run_goes_on_only_from_the_same_beginning(task, tmp_path):
  for name in ('one', 'two'):
    train(tmp_path / name, 2)
  train(tmp_path / 'on', 4, initial_checkpoint=str(tmp_path / 'one'))
  with pytest.raises(UserError, match='written with initial_checkpoint .*one'):
    train(tmp_path / 'on', 6, initial_checkpoint=str(tmp_path / 'two'))


def test_finished_run_has_no_seconds_per_step(task, tmp_path):
  train(tmp_path, 2)
  assert train(tmp_path, 2)['seconds_per_step'] is None


def test_log_is_one_json_object_a_line(task, tmp_path):
  train(tmp_path, 2)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert {json.loads(line)['split'] for line in lines} == {
    'train',
    'validation',
  }


def test_metrics_go_to_tensorboard(task, tmp_path):
  train(tmp_path, 2)
  (events,) = (tmp_path / 'tensorboard').glob('events.out.tfevents.*')
  tags = {
    value.tag
    for event in tf.compat.v1.train.summary_iterator(str(events))
    for value in event.summary.value
  }
  assert {'train/cross_entropy', 'validation/cross_entropy'} <= tags
