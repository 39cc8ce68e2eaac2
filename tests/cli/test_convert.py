import json
import os
import subprocess
import sys

import pytest

from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.cli import convert
from gqa_flax.cli import main
from gqa_flax.conversion import methods
from gqa_flax.conversion import slots


def run(*args):
  return main.main(['convert', *map(str, args)])


def test_choices_are_those_of_the_library(capsys):
  actions = {}

  class Subparsers:
    def add_parser(self, name, **kwargs):
      parser = main.Parser(prog=name)
      actions[name] = parser
      return parser

  convert.add_parser(Subparsers())
  choices = {a.dest: a.choices for a in actions['convert']._actions}
  assert choices['method'] == methods.METHODS
  assert choices['optimizer'] == slots.POLICIES
  assert choices['dtype'] == job.DTYPES


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_convert_then_verify(tmp_path, capsys, source, num_kv_heads):
  destination = tmp_path / 'dst'
  assert run(source, destination, f'--num_kv_heads={num_kv_heads}') == 0
  out = capsys.readouterr().out
  assert f'4 -> {num_kv_heads} key/value heads in the decoder' in out
  assert f'{destination}/checkpoint_1000' in out
  assert main.main(['verify', str(source), str(destination)]) == 0
  assert capsys.readouterr().out.startswith(f'OK {destination}/checkpoint_1000')


def test_json_is_one_record(tmp_path, capsys, source):
  assert run(source, tmp_path / 'd', '--num_kv_heads=2', '--json') == 0
  record = json.loads(capsys.readouterr().out)
  assert record['destination'] == str(tmp_path / 'd' / 'checkpoint_1000')
  assert record['source'] == str(source)
  assert len(record['source_sha256']) == 64
  assert (record['num_kv_heads_before'], record['num_kv_heads']) == (4, 2)
  assert record['kernels_converted'] == 8
  assert record['seconds'] >= 0


def test_dry_run_says_what_changes_and_writes_nothing(tmp_path, capsys, source):
  destination = tmp_path / 'dst'
  assert run(source, destination, '--num_kv_heads=2', '--dry_run') == 0
  out = capsys.readouterr().out
  assert out.count('/kernel  [16, 32] -> [16, 16]') == 8
  assert 'would read' in out and 'would write' in out
  run(source, destination, '--num_kv_heads=2', '--dry_run', '--json')
  record = json.loads(capsys.readouterr().out)
  assert record['dry_run'] is True
  assert len(record['changes']) == 8
  assert not destination.exists()


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--num_kv_heads=3'], 'num_heads (4) must be a multiple of num_kv_heads'),
    (['--num_kv_heads=8'], 'num_heads (4) must be a multiple of num_kv_heads'),
    (['--num_kv_heads=2', '--dry_run', '--num_kv_heads=0'], '(0)'),
  ],
)
def test_heads_that_do_not_divide_are_one_line(
  tmp_path, capsys, source, flags, words
):
  assert run(source, tmp_path / 'dst', *flags) == 2
  err = capsys.readouterr().err
  assert words in err and err.count('\n') == 1
  assert not (tmp_path / 'dst').exists()


def test_missing_source_is_one_line(tmp_path, capsys):
  assert run(tmp_path / 'none', tmp_path / 'd', '--num_kv_heads=2') == 2
  assert capsys.readouterr().err == (
    f'gqa-flax: error: {tmp_path}/none: no such checkpoint.\n'
  )


def test_overwrite_replaces(tmp_path, capsys, source):
  destination = tmp_path / 'dst'
  run(source, destination, '--num_kv_heads=2')
  assert run(source, destination, '--num_kv_heads=1') == 2
  assert '--overwrite replaces it' in capsys.readouterr().err
  assert run(source, destination, '--num_kv_heads=1', '--overwrite') == 0
  kernel = 'target/decoder/layers_0/self_attention/key/kernel'
  assert t5x_orbax.read_metadata(destination)[kernel].shape == (16, 8)


@pytest.mark.parametrize('fault', ['truncate', 'remove'])
def test_damaged_source_is_one_line_in_a_real_process(tmp_path, source, fault):
  for file in source.glob('state/ocdbt.process_0/d/*'):
    content = file.read_bytes()
    if fault == 'remove':
      file.unlink()
    else:
      file.write_bytes(content[: len(content) // 2])
  done = subprocess.run(
    [sys.executable, '-m', 'gqa_flax.cli.main', 'convert']
    + [source, tmp_path / 'dst', '--num_kv_heads=2'],
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith(f'gqa-flax: error: {source}: the checkpoint')
  assert done.stderr.count('\n') == 1
  assert not (tmp_path / 'dst').exists()
