"""Every model x variant parses, finalises and builds, or is refused."""

import inspect

import jax
import jax.numpy as jnp
import pytest

import gin
from gqa_flax import paths
from gqa_flax.errors import UserError
from gqa_flax.training import gin_config
from gqa_flax.training import loop
from gqa_flax.training import runs

MODELS = {
  'mini': (8, 7.7e6),
  'small': (6, 76.9e6),
  'base': (12, 247.5e6),
  'large': (16, 783e6),
  'xl': (32, 2850e6),
  'xxl': (64, 11135e6),
}
VARIANTS = {
  'mha': None,
  'mqa': 1,
  'gqa2': 2,
  'gqa4': 4,
  'gqa8': 8,
  'gqa16': 16,
  'gqa32': 32,
}


def build(model, variant):
  gin_config.parse(
    [f'models/t5_1_1_{model}.gin', f'variants/{variant}.gin'],
  )
  return gin.query_parameter('%MODEL').scoped_configurable_fn()


def test_lists_above_name_every_file():
  gin_dir = paths.gin_dir()
  models = {p.stem.removeprefix('t5_1_1_') for p in gin_dir.glob('models/*_*_*_*.gin')}  # fmt: skip
  assert models == set(MODELS)
  assert {p.stem for p in gin_dir.glob('variants/*.gin')} == set(VARIANTS)


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('model', MODELS)
def test_model_with_variant_is_built_or_refused(model, variant):
  heads, size = MODELS[model]
  groups = VARIANTS[variant] or heads
  if heads % groups:
    with pytest.raises(ValueError, match=rf'num_kv_heads\s*\({groups}\)'):
      build(model, variant)
    return
  network = build(model, variant)
  assert network.config.num_kv_heads == groups
  tokens = jnp.ones((1, 4), jnp.int32)
  params = jax.eval_shape(
    lambda: network.init(
      jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
    )
  )['params']
  count = sum(x.size for x in jax.tree.leaves(params))
  if groups == heads:
    assert count == pytest.approx(size, rel=2e-3)
  else:
    assert count < size


def test_left_out_macros_are_all_named():
  gin_config.parse(['runs/local/train.gin'])
  with pytest.raises(UserError) as error:
    gin_config.bound(loop.train)()
  for macro in ('MODEL', 'MODEL_DIR', 'MIXTURE_OR_TASK_NAME', 'TRAIN_STEPS'):
    assert macro in str(error.value)
  gin_config.parse(['runs/local/evaluate.gin'])
  with pytest.raises(UserError, match='CHECKPOINT_PATH'):
    gin_config.bound(runs.evaluate)()


@pytest.mark.parametrize(
  'files, bindings, message',
  [
    (['nowhere.gin'], [], 'nowhere.gin'),
    (['runs/local/train.gin'], ['loop.train.nothing = 1'], 'nothing'),
    (['runs/local/train.gin'], ['BATCH_SIZE = (1'], 'gin:'),
  ],
)
def test_configuration_that_does_not_parse_is_one_line(
  files, bindings, message
):
  with pytest.raises(UserError) as error:
    gin_config.parse(files, bindings)
  assert message in str(error.value)
  assert '\n' not in str(error.value)


def test_file_in_the_working_folder_is_found(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine.gin').write_text("include 'variants/mqa.gin'\nX = 3\n")
  gin_config.parse(['mine.gin'])
  assert gin.query_parameter('%NUM_KV_HEADS') == 1


def test_linear_decay_ends_at_zero():
  gin_config.parse(
    ['runs/local/finetune.gin', 'runs/local/linear_decay.gin'],
    ['TRAIN_STEPS = 120', 'FINETUNE_STEPS = 20', 'LEARNING_RATE = 0.5'],
  )
  schedule = gin.query_parameter('%SCHEDULE').scoped_configurable_fn()
  rates = [float(schedule(step)) for step in (100, 110, 120, 130)]
  assert rates == [0.5, 0.25, 0.0, 0.0]


@pytest.mark.parametrize(
  'name', ['pretrain_mini', 'uptrain_mini', 'finetune', 'evaluate', 'generate']
)
def test_run_file_binds_what_it_runs(name):
  """Every run file gives its function all that it needs, from the mini."""
  macros = {
    'INITIAL_CHECKPOINT_PATH': 'mini',
    'CHECKPOINT_PATH': 'mini',
    'MIXTURE_OR_TASK_NAME': 'gqa_flax_messages_en_de',
    'TRAIN_STEPS': 100_000,
    'MODEL_DIR': 'x',
  }
  gin_config.parse(
    [f'runs/local/{name}.gin'], [f'{k} = {v!r}' for k, v in macros.items()]
  )
  function = {'evaluate': runs.evaluate, 'generate': runs.generate}.get(
    name, loop.train
  )
  bound = gin.get_bindings(function)
  assert bound['model'].config.num_kv_heads == 8
  given = {'texts': ['a']} if name == 'generate' else {}
  inspect.signature(function).bind(**bound, **given)
  if function is loop.train:
    assert bound['config'].train_steps == 100_000
