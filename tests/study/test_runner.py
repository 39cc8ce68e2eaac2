"""Stages are run once, in order, and again where what they rest on changed.

The stages' functions are fakes here; `test_end_to_end` runs the real ones.
"""

import dataclasses
import json
import sys
import types

import pytest

from gqa_flax.errors import UserError
from gqa_flax.study import experiments
from gqa_flax.study import plan
from gqa_flax.study import record
from gqa_flax.study import runner
from gqa_flax.study.job import Done

FACTS = plan.Facts('c', 'hash', 1000, 8, 7_700_000, 'corpus')
STAGES = plan.make(experiments.QUICK, FACTS)


@pytest.fixture
def ran(monkeypatch):
  """Names of the stages that were run; each leaves a file."""
  names = []

  def run_stage(job):
    names.append(job.stage.name)
    assert set(job.needs) == set(job.stage.needs)
    parts = job.partial('half', lambda: names.append('half') or 1)
    assert parts == 1
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / 'left').write_text('x')
    return Done({'n': len(names)}, 'done', (f'{job.stage.folder}/left',))

  module = types.ModuleType('gqa_flax.study.fake_jobs')
  for kind in runner._JOBS:
    setattr(module, kind, run_stage)
  monkeypatch.setitem(sys.modules, module.__name__, module)
  jobs = dict.fromkeys(runner._JOBS, 'fake_jobs')
  monkeypatch.setattr(runner, '_JOBS', jobs)
  return names


def _run(output, preset=experiments.QUICK, facts=FACTS):
  lines = []
  with runner.claimed(output, preset):
    found = runner.run(preset, facts, output, lines.append)
  return found, lines


def test_every_stage_leaves_a_record(ran, tmp_path):
  found, lines = _run(tmp_path / 'out')
  assert [name for name in ran if name != 'half'] == [s.name for s in STAGES]
  assert len(lines) == 2 * len(STAGES)
  for stage in STAGES:
    path = tmp_path / 'out' / 'records' / f'{stage.name}.json'
    saved = json.loads(path.read_text())
    assert saved['key'] == stage.key
    assert saved['attempts'] == 1
    assert saved['inputs']['params'] == dict(stage.params)
    assert saved['device']['cores'] >= 1
    assert saved['peak_memory_bytes'] > 0
  assert record.read_bundle(tmp_path / 'out' / 'run.json') == found


def test_finished_stages_are_not_run_again(ran, tmp_path):
  first, _ = _run(tmp_path / 'out')
  ran.clear()
  second, lines = _run(tmp_path / 'out')
  assert not ran
  assert second == first
  assert all('done before' in line for line in lines)


def test_parts_of_an_unfinished_stage_are_not_computed_again(ran, tmp_path):
  _run(tmp_path / 'out')
  (tmp_path / 'out' / 'records' / 'compare.json').unlink()
  ran.clear()
  found, _ = _run(tmp_path / 'out')
  assert ran == ['compare']
  assert found.records[-1]['attempts'] == 2


def test_another_corpus_runs_everything_and_removes_what_was(ran, tmp_path):
  _run(tmp_path / 'out')
  ran.clear()
  _run(tmp_path / 'out', facts=dataclasses.replace(FACTS, corpus_hash='other'))
  assert len(set(ran)) == len(STAGES) + 1
  for stage in (tmp_path / 'out' / 'work').iterdir():
    assert len(list(stage.iterdir())) == 1


def test_stages_whose_files_are_gone_run_again_where_needed(ran, tmp_path):
  output = tmp_path / 'out'
  _run(output)
  (output / 'work').rename(tmp_path / 'elsewhere')
  assert not any(runner.pending(output, STAGES).values())
  name = next(s.name for s in STAGES if s.kind == 'evaluate')
  (output / 'records' / f'{name}.json').unlink()
  pending = {k for k, v in runner.pending(output, STAGES).items() if v}
  variant = name.removeprefix('evaluate-')
  assert pending == {
    name,
    f'select-{variant}',
    f'finetune-{variant}',
    'uptrain-mha',
    'convert-mha',
    'corpus',
  }


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(UserError, match='not the output of gqa-flax reproduce'):
    with runner.claimed(tmp_path, experiments.QUICK):
      pass
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_a_folder_of_another_preset_is_left_alone(ran, tmp_path):
  _run(tmp_path / 'out')
  with pytest.raises(UserError, match="holds a run of preset 'quick'"):
    with runner.claimed(tmp_path / 'out', experiments.FULL):
      pass


def test_two_runs_in_one_folder_are_refused(tmp_path):
  with runner.claimed(tmp_path / 'out', experiments.QUICK):
    with pytest.raises(UserError, match='another run is at work'):
      with runner.claimed(tmp_path / 'out', experiments.QUICK):
        pass
  with runner.claimed(tmp_path / 'out', experiments.QUICK):
    pass


def test_a_broken_record_is_named(tmp_path):
  path = tmp_path / 'records' / 'x.json'
  path.parent.mkdir()
  path.write_text('{"half')
  with pytest.raises(UserError, match='x.json: not JSON'):
    record.read_json(path)
