"""Presets make the stages they promise; keys change with what decides."""

import dataclasses

import pytest

from gqa_flax.errors import UserError
from gqa_flax.study import experiments
from gqa_flax.study import plan
from gqa_flax.training import gin_config
from gqa_flax.training import optimizer

FACTS = plan.Facts('c', 'hash', 10_000, 8, 7_700_000, 'corpus')


def _stages(preset, facts=FACTS):
  return {stage.name: stage for stage in plan.make(preset, facts)}


@pytest.mark.parametrize('name', experiments.PRESETS)
def test_preset_names_only_earlier_stages(name):
  seen = set()
  for stage in plan.make(experiments.find_preset(name), FACTS):
    assert set(stage.needs) <= seen
    assert stage.name not in seen
    assert stage.estimate > 0
    seen.add(stage.name)
  assert ('compare' in seen) == (name != 'conversion')


def test_conversion_only_converts_and_takes_losses():
  kinds = {stage.kind for stage in _stages(experiments.CONVERSION).values()}
  assert kinds == {'corpus', 'convert', 'uptrain'}


def test_quick_is_the_small_corpus_with_one_and_all_heads():
  stages = _stages(experiments.QUICK)
  assert stages['corpus'].params == {'subset': 'small'}
  assert stages['time'].params['groups'] == [8, 1]
  assert stages['uptrain-mha'].params['task'].endswith('_small')


def test_default_uptrains_the_control_as_far():
  stages = _stages(experiments.DEFAULT)
  for name in ('mha', 'mean-g2', 'mean-g1'):
    assert stages[f'uptrain-{name}'].params['alphas'][-1] >= 0.01
    assert f'finetune-{name}-a0.01-s0' in stages
  assert stages['finetune-mha-a0.01-s0'].params['first_step'] == 10_100


def test_full_has_all_methods_groups_and_seeds():
  stages = _stages(experiments.FULL)
  for method in experiments.METHODS:
    for g in (4, 2, 1):
      for seed in (0, 1, 2):
        assert f'evaluate-{method}-g{g}-a0.05-s{seed}' in stages
  assert 'evaluate-mean-g1-a0-s0' in stages
  assert 'evaluate-first-g1-a0-s0' not in stages


@pytest.mark.parametrize(
  'field, value',
  [('corpus_hash', 'other'), ('checkpoint_hash', 'other')],
)
def test_keys_change_with_corpus_and_checkpoint(field, value):
  before = _stages(experiments.QUICK)
  after = _stages(
    experiments.QUICK, dataclasses.replace(FACTS, **{field: value})
  )
  assert all(before[name].key != after[name].key for name in before)


def test_a_change_reaches_the_stages_behind_it_alone():
  before = _stages(experiments.QUICK)
  tuning = dataclasses.replace(experiments.QUICK.finetuning, steps=31)
  after = _stages(dataclasses.replace(experiments.QUICK, finetuning=tuning))
  changed = {name for name in before if before[name].key != after[name].key}
  kinds = {before[name].kind for name in changed}
  assert kinds == {'finetune', 'select', 'evaluate', 'compare'}


def test_alpha_counts_the_checkpoints_own_steps():
  uptraining = experiments.Uptraining(alphas=(0.0, 0.01, 0.05))
  assert uptraining.steps(8_050) == {0.0: 8_050, 0.01: 8_130, 0.05: 8_452}
  # A model that was hardly trained is still trained on.
  assert uptraining.steps(10)[0.01] == 11


def test_recipe_is_that_of_the_gin_files():
  import gin

  gin_config.parse(['runs/local/uptrain_mini.gin'])
  recipe = experiments.Uptraining(alphas=(0.0,))
  assert recipe.batch_size == gin.query_parameter('%BATCH_SIZE')
  assert recipe.loss_normalizing_factor == gin.query_parameter(
    '%LOSS_NORMALIZING_FACTOR'
  )
  assert gin.query_parameter('%TASK_FEATURE_LENGTHS') == {
    'inputs': recipe.inputs,
    'targets': recipe.targets,
  }
  assert (
    gin.query_parameter('%MIXTURE_OR_TASK_NAME') == experiments.PRETRAINING_TASK
  )
  ours = optimizer.inverse_square_root(
    recipe.scale, recipe.decay_from, recipe.warmup_steps
  )
  with gin.config_scope('mini'):
    theirs = gin.get_configurable(optimizer.inverse_square_root)()
  for step in (0, 50, 400, 10_000):
    assert ours(step) == theirs(step)


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: experiments.find_preset('huge'), r"preset \('huge'\)"),
    (lambda: experiments.Uptraining(alphas=(0.1, 0.0)), 'must ascend'),
    (
      lambda: dataclasses.replace(experiments.QUICK, methods=('median',)),
      r"methods \(\('median',\)\)",
    ),
    (
      lambda: plan.make(
        dataclasses.replace(experiments.QUICK, groups=(3,)), FACTS
      ),
      '3 K/V heads, which do not divide',
    ),
  ],
)
def test_bad_presets_are_refused(make, message):
  with pytest.raises(UserError, match=message):
    make()
