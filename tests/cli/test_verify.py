import json

from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.cli import main
from tests.conversion import trees


def test_differences_are_listed_and_code_2(tmp_path, capsys, source):
  destination = tmp_path / 'dst'
  main.main(['convert', str(source), str(destination), '--num_kv_heads=2'])
  other = t5x_orbax.save(tmp_path / 'o', trees.state(trees.config(), seed=5))
  capsys.readouterr()
  assert main.main(['verify', str(other), str(destination)]) == 2
  lines = capsys.readouterr().out.splitlines()
  embedding = 'target/token_embedder/embedding'
  assert f'{embedding}: differs; it must be the same byte for byte' in lines
  assert 'not the source that was converted' in lines[-2]
  assert lines[-1].startswith(f'{len(lines) - 1} differences in')
  assert main.main(['verify', str(other), str(destination), '--json']) == 2
  record = json.loads(capsys.readouterr().out)
  assert record['ok'] is False
  assert record['differences'] == lines[:-1]


def test_json_of_a_good_conversion(tmp_path, capsys, source):
  destination = tmp_path / 'dst'
  main.main(['convert', str(source), str(destination), '--num_kv_heads=2'])
  capsys.readouterr()
  assert main.main(['verify', str(source), str(destination), '--json']) == 0
  record = json.loads(capsys.readouterr().out)
  assert record['ok'] is True
  assert record['differences'] == []
  assert record['destination'] == f'{destination}/checkpoint_1000'


def test_without_a_manifest_is_one_line(capsys, source):
  assert main.main(['verify', str(source), str(source)]) == 2
  assert capsys.readouterr().err == (
    f'gqa-flax: error: {source}/gqa_conversion.json: missing; not written by'
    ' gqa-flax convert.\n'
  )
