"""Export to transformers' layout, read back by the reader of that layout."""

import json

import numpy as np
import pytest

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import export
from gqa_flax.checkpoints import huggingface
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.cli import main
from gqa_flax.conversion import grouping
from gqa_flax.conversion import plan
from gqa_flax.errors import UserError
from tests.conversion import trees


@pytest.fixture
def source(tmp_path):
  return t5x_orbax.save(tmp_path / 'src', trees.state(trees.config()))


def read_all(reader):
  return reader.read(n for n in reader.metadata if n.startswith('target/'))


def test_names_are_the_inverse_of_the_readers():
  for fields in (
    {},
    {'mlp_activations': ('relu',)},
    {'logits_via_embedding': True},
  ):
    for path in plan.parameter_shapes(trees.config(**fields)):
      name, _ = huggingface.name_of(path)
      assert huggingface.t5x_path(name) == path


@pytest.mark.parametrize('shard_bytes', [10**9, 3000])
def test_multi_head_round_trip_is_the_identity(
  tmp_path, source, shard_bytes, monkeypatch
):
  monkeypatch.setattr(export, '_SHARD_BYTES', shard_bytes)
  record = export.export(source, tmp_path / 'hf')
  assert (record['files'] > 1) == (shard_bytes == 3000)
  assert not list((tmp_path / 'hf').glob('*.part'))
  before = read_all(t5x_orbax.Reader(source))
  after = read_all(huggingface.Reader(tmp_path / 'hf'))
  assert before.keys() == after.keys()
  for name in before:
    np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize('num_kv_heads', [1, 2])
def test_heads_are_repeated_for_the_queries_that_read_them(
  tmp_path, source, num_kv_heads
):
  work = job.prepare(source, job.Settings(num_kv_heads=num_kv_heads))
  convert.convert(work, tmp_path / 'gqa')
  export.export(tmp_path / 'gqa', tmp_path / 'hf')
  grouped = read_all(t5x_orbax.Reader(tmp_path / 'gqa'))
  exported = read_all(huggingface.Reader(tmp_path / 'hf'))
  for name, x in grouped.items():
    if grouping.is_kv_kernel(name.removeprefix('target/')):
      for n in range(4):
        k = n // (4 // num_kv_heads)
        np.testing.assert_array_equal(
          exported[name][:, 8 * n : 8 * n + 8], x[:, 8 * k : 8 * k + 8]
        )
    else:
      np.testing.assert_array_equal(exported[name], x)


def test_config_is_one_that_the_reader_takes(tmp_path, source, capsys):
  arguments = ['export', str(source), str(tmp_path / 'hf'), '--dtype=bfloat16']
  assert main.main([*arguments, '--json']) == 0
  record = json.loads(capsys.readouterr().out)
  config = json.loads((tmp_path / 'hf' / 'config.json').read_text())
  assert config['torch_dtype'] == record['dtype'] == 'bfloat16'
  assert (config['num_heads'], config['d_kv'], config['d_model']) == (4, 8, 16)
  assert not config['tie_word_embeddings']
  reader = huggingface.Reader(tmp_path / 'hf')
  assert {x.dtype.name for n, x in reader.metadata.items() if n[:6] == 'target'} == {'bfloat16'}  # fmt: skip


def test_folder_in_use_is_refused_and_kept(tmp_path, source):
  folder = tmp_path / 'hf'
  folder.mkdir()
  (folder / 'mine').write_text('x')
  with pytest.raises(UserError, match='give a new or an empty folder'):
    export.export(source, folder)
  assert [p.name for p in folder.iterdir()] == ['mine']


def test_damaged_source_leaves_nothing(tmp_path, source):
  for file in source.glob('state/ocdbt.process_0/d/*'):
    file.write_bytes(file.read_bytes()[: file.stat().length // 2])
  with pytest.raises(UserError, match='cannot be read'):
    export.export(source, tmp_path / 'hf')
  assert sorted(p.name for p in tmp_path.iterdir()) == ['src']
