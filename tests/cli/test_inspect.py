import json
import subprocess
import sys

import numpy as np

from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.cli import main


def test_table_shows_every_tensor_and_the_model(capsys, source):
  assert main.main(['inspect', str(source.parent)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == str(source)
  assert '4 heads of 8, 4 key/value heads in the decoder' in lines[1]
  assert lines[2].startswith('step 1000; ')
  rows = [line.split() for line in lines]
  assert [
    'target/token_embedder/embedding',
    '[40,',
    '16]',
    'float32',
    '2,560',
  ] in rows
  tensors = [
    row for row in rows if row and row[0].startswith(('state/', 'target/'))
  ]
  assert len(tensors) == len(t5x_orbax.read_metadata(source))


def test_lineage_of_a_converted_checkpoint(tmp_path, capsys, source):
  destination = tmp_path / 'dst'
  main.main(['convert', str(source), str(destination), '--num_kv_heads=1'])
  capsys.readouterr()
  assert main.main(['inspect', str(destination)]) == 0
  out = capsys.readouterr().out
  assert '1 key/value heads in the decoder' in out
  assert 'converted: 4 -> 1 key/value heads, method mean' in out
  assert str(source) in out


def test_json_is_the_summary(capsys, source):
  assert main.main(['inspect', str(source), '--json']) == 0
  record = json.loads(capsys.readouterr().out)
  assert record['step'] == 1000
  assert record['model']['num_kv_heads'] == 4


def test_other_checkpoints_can_be_inspected(tmp_path, capsys):
  state = {'target': {'w': np.ones(3)}, 'state': {'step': 1}}
  t5x_orbax.save(tmp_path, state)
  assert main.main(['inspect', str(tmp_path)]) == 0
  out = capsys.readouterr().out
  assert 'not a T5 that can be converted' in out
  assert 'target/w' in out


def test_nothing_there_is_one_line(tmp_path, capsys):
  assert main.main(['inspect', str(tmp_path)]) == 2
  err = capsys.readouterr().err
  assert 'no checkpoint here' in err and err.count('\n') == 1


def test_reader_that_leaves_early_is_no_error(source):
  command = f'{sys.executable} -m gqa_flax.cli.main inspect {source}'
  done = subprocess.run(
    ['bash', '-c', f'{command} | head -1; exit ${{PIPESTATUS[0]}}'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0
  assert done.stdout == f'{source}\n'
  assert done.stderr == ''
