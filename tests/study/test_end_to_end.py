"""The study with its real stages, on a tiny model and corpus.

One test, so that the uninterrupted run is made once however the suite is
spread over processes.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from gqa_flax.cli import main
from gqa_flax.errors import UserError
from gqa_flax.study import report
from gqa_flax.study import runner
from gqa_flax.study import tables
from tests.study import tiny

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What may differ between two runs of the same: times.
_TIMES = {'seconds_per_step'}


class Stopped(BaseException):
  """Stands for a kill within this process."""


@pytest.fixture(scope='module')
def tiny_corpus(tmp_path_factory):
  """$GQA_FLAX_CACHE with a tiny corpus in it; compiled code is kept there."""
  cache = tmp_path_factory.mktemp('cache')
  compiled = str(cache / 'jax')
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', compiled)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('GQA_FLAX_CACHE', str(cache))
    patch.setenv('JAX_COMPILATION_CACHE_DIR', compiled)
    tiny.make_corpus(patch)
    yield cache
  jax.config.update('jax_compilation_cache_dir', before)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  return tiny.make_checkpoint(tmp_path_factory.mktemp('source'))


def test_study_killed_anywhere_finds_what_an_uninterrupted_one_does(
  tiny_corpus, checkpoint, tmp_path
):
  run = tiny.study(tmp_path / 'whole', checkpoint)
  _check_stages(run)
  _check_results(run)
  _check_report(run)

  output = tmp_path / 'killed'
  # kill -9 after the first checkpoint of the first uptraining.
  killed = subprocess.run(
    [sys.executable, '-m', 'tests.study.tiny']
    + [str(output), checkpoint, 'saved:3'],
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
  )
  assert killed.returncode == -9, killed.stderr[-2000:]

  def stop():
    raise Stopped

  # Before a checkpoint, in the next evaluation, before a record; then within
  # fine-tuning, and within select.
  for where in ('save:1', 'log:2', 'record:2', 'saved:2', 'record:3'):
    with pytest.MonkeyPatch.context() as patch:
      tiny.stop_at(where, stop, patch.setattr)
      with pytest.raises(Stopped):
        tiny.study(output, checkpoint)
  lines = []
  resumed = tiny.study(output, checkpoint, lines.append)
  assert any('done before' in line for line in lines)
  assert _found(resumed) == _found(run)
  assert max(r['attempts'] for r in resumed.records) > 2


def _found(run):
  """Stage -> result, times left out."""

  def clean(x):
    if isinstance(x, dict):
      return {k: clean(v) for k, v in x.items() if k not in _TIMES}
    return [clean(v) for v in x] if isinstance(x, list) else x

  return {
    r['stage']: clean(r['result']) for r in run.records if r['kind'] != 'time'
  }


def _check_stages(run):
  assert [r['stage'] for r in run.records] == [
    'corpus',
    'convert-mha',
    'convert-mean-g1',
    'time',
    'uptrain-mha',
    'uptrain-mean-g1',
    'lead',
    'finetune-mha-a0.5-s0',
    'select-mha-a0.5-s0',
    'evaluate-mha-a0.5-s0',
    'finetune-mean-g1-a0.5-s0',
    'select-mean-g1-a0.5-s0',
    'evaluate-mean-g1-a0.5-s0',
    'compare',
  ]


def _check_results(run):
  for method, g in ((None, 2), ('mean', 1)):
    assert [row['step'] for row in run.curve(method, g)] == [8, 12]
    assert run.system(method, g)['metrics']['average']['n'] == 18
    assert run.times()[g]['ms_per_sample']['n'] == 2
  selected = next(run.of_kind('select'))['result']
  # Multiples of checkpoint_period, counted as the checkpoint counts.
  assert [c['step'] for c in selected['candidates']] == [14, 16]
  assert run.difference('mean-g1-a0.5', 'mha-a0.5')['bleu']['n'] == 6
  assert run.difference('mha-a0.5', 'lead')['rouge1']['n'] == 6


def _check_report(run):
  assert 'MQA (G = 1)' in tables.summary(run, [run])
  text = report.render(run, [run])
  assert text.count('data:image/svg+xml;base64') == 6
  assert not re.search(r'https?://', text)


def test_a_grouped_checkpoint_is_refused(tiny_corpus, tmp_path):
  checkpoint = tiny.make_checkpoint(tmp_path, num_kv_heads=1)
  with pytest.raises(UserError, match='1 K/V heads of 2'):
    runner.read_facts(tiny.PRESET, checkpoint)


def test_dry_run_lists_stages_and_writes_nothing(
  tiny_corpus, checkpoint, tmp_path, capsys
):
  output = tmp_path / 'out'
  arguments = ['reproduce', '--preset=quick', f'--checkpoint={checkpoint}']
  arguments += [f'--output={output}', '--dry_run']
  assert main.main(arguments) == 0
  text = capsys.readouterr().out
  assert 'uptrain-mean-g1' in text
  assert f'gqa-flax convert {checkpoint} {output}-by_hand/convert-mha' in text
  assert main.main([*arguments, '--json']) == 0
  stages = json.loads(capsys.readouterr().out)['stages']
  assert all(stage['pending'] for stage in stages)
  assert not output.exists()


def test_benchmark_times_the_groups_asked_for(checkpoint, capsys):
  arguments = ['benchmark', f'--checkpoint={checkpoint}', '--batch_size=2']
  arguments += ['--input_length=8', '--output_length=3', '--rounds=2']
  assert main.main([*arguments, '--json']) == 0
  found = json.loads(capsys.readouterr().out)
  assert list(found['models']) == ['1', '2']
  assert found['models']['1']['decode_ms_per_step']['n'] == 2
  assert main.main([*arguments, '--num_kv_heads', '3']) == 2
  assert 'must be a multiple of num_kv_heads (3)' in capsys.readouterr().err
