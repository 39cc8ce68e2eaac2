"""The study end to end: resumed where it was stopped, never run twice."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from gqa_flax.data import corpus
from gqa_flax.errors import UserError
from gqa_flax.study import plan
from gqa_flax.study import record
from gqa_flax.study import runner
from tests.study import tiny

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What may differ between two runs of the same: times.
_TIMES = {'seconds_per_step'}


class Stopped(BaseException):
  """Stands for a kill within this process."""


def _found(run):
  """Stage -> result, times left out."""

  def clean(x):
    if isinstance(x, dict):
      return {k: clean(v) for k, v in x.items() if k not in _TIMES}
    return [clean(v) for v in x] if isinstance(x, list) else x

  return {
    r['stage']: clean(r['result']) for r in run.records if r['kind'] != 'time'
  }


def test_study_has_a_record_for_each_stage(tiny_run):
  output, run = tiny_run
  content_hash = corpus.statistics('small')['content_hash']
  names = [r['stage'] for r in run.records]
  assert names == [
    'corpus',
    'lead',
    'convert-mha',
    'convert-mean-g1',
    'time',
    'uptrain-mha',
    'uptrain-mean-g1',
    'finetune-mha-a0.5-s0',
    'select-mha-a0.5-s0',
    'evaluate-mha-a0.5-s0',
    'finetune-mean-g1-a0.5-s0',
    'select-mean-g1-a0.5-s0',
    'evaluate-mean-g1-a0.5-s0',
    'compare',
  ]
  for name in names:
    found = json.loads((output / 'records' / f'{name}.json').read_text())
    assert found['attempts'] == 1
    assert found['inputs']['corpus'] == content_hash
    assert found['device']['cores'] >= 1
    assert found['peak_memory_bytes'] > 0
  assert record.read_bundle(output / 'run.json') == run


def test_study_finds_what_it_was_asked_for(tiny_run):
  _, run = tiny_run
  for method, g in ((None, 2), ('mean', 1)):
    assert [row['step'] for row in run.curve(method, g)] == [8, 12]
    assert run.system(method, g)['metrics']['average']['n'] == 18
    assert run.times()[g]['ms_per_sample']['n'] == 2
  selected = next(run.of_kind('select'))['result']
  # Multiples of checkpoint_period, counted as the checkpoint counts.
  assert [c['step'] for c in selected['candidates']] == [14, 16]
  assert run.difference('mean-g1-a0.5', 'mha-a0.5')['bleu']['n'] == 6
  assert run.difference('mha-a0.5', 'lead')['rouge1']['n'] == 6


def test_finished_stages_are_not_run_again(tiny_run, tiny_checkpoint):
  output, run = tiny_run
  lines = []
  assert tiny.study(output, tiny_checkpoint, lines.append) == run
  assert len(lines) == len(run.records)
  assert all('done before' in line for line in lines)


def test_a_removed_record_runs_again_with_what_it_left(
  tiny_run, tiny_checkpoint, tmp_path
):
  output, run = tiny_run
  copy = tmp_path / 'out'
  shutil.copytree(output, copy)
  (copy / 'records' / 'compare.json').unlink()
  lines = []
  again = tiny.study(copy, tiny_checkpoint, lines.append)
  assert sum('done before' in line for line in lines) == len(run.records) - 1
  assert _found(again) == _found(run)


def test_stages_whose_files_are_gone_run_again_if_needed(tiny_run, tmp_path):
  output, run = tiny_run
  copy = tmp_path / 'out'
  shutil.copytree(output / 'records', copy / 'records')
  stages = plan.make(tiny.PRESET, _facts(run))
  assert not any(runner.pending(copy, stages).values())
  (copy / 'records' / 'evaluate-mha-a0.5-s0.json').unlink()
  pending = {k for k, v in runner.pending(copy, stages).items() if v}
  assert pending == {
    'evaluate-mha-a0.5-s0',
    'finetune-mha-a0.5-s0',
    'uptrain-mha',
    'convert-mha',
  }


def _facts(run):
  inputs = run.first['inputs']
  return plan.Facts(
    checkpoint='c',
    checkpoint_hash=inputs['checkpoint'],
    step=inputs['step'],
    num_heads=inputs['num_heads'],
    parameters=inputs['parameters'],
    corpus_hash=inputs['corpus'],
  )


def test_killed_anywhere_it_goes_on_to_the_same_records(
  tiny_run, tiny_checkpoint, tmp_path
):
  _, run = tiny_run
  output = tmp_path / 'out'
  # kill -9 after the first checkpoint of the first uptraining.
  killed = subprocess.run(
    [sys.executable, '-m', 'tests.study.tiny']
    + [str(output), tiny_checkpoint, 'saved:3'],
    cwd=ROOT,
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
        tiny.study(output, tiny_checkpoint)
  lines = []
  resumed = tiny.study(output, tiny_checkpoint, lines.append)
  assert any('done before' in line for line in lines)
  assert _found(resumed) == _found(run)
  assert max(r['attempts'] for r in resumed.records) > 2


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(UserError, match='not the output of gqa-flax reproduce'):
    with runner.claimed(tmp_path, tiny.PRESET):
      pass
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_two_runs_in_one_folder_are_refused(tmp_path):
  with runner.claimed(tmp_path / 'out', tiny.PRESET):
    with pytest.raises(UserError, match='another run is at work'):
      with runner.claimed(tmp_path / 'out', tiny.PRESET):
        pass
  with runner.claimed(tmp_path / 'out', tiny.PRESET):
    pass


def test_a_grouped_checkpoint_is_refused(tiny_cache, tmp_path):
  checkpoint = tiny.make_checkpoint(tmp_path, num_kv_heads=1)
  with pytest.raises(UserError, match='1 K/V heads of 2'):
    runner.read_facts(tiny.PRESET, checkpoint)


def test_a_broken_record_is_named(tmp_path):
  path = tmp_path / 'records' / 'x.json'
  path.parent.mkdir()
  path.write_text('{"half')
  with pytest.raises(UserError, match='x.json: not JSON'):
    record.read_json(path)
