"""T5X's older format: read as the same state written through Orbax."""

import json

from flax import serialization
from flax import traverse_util
import numpy as np
import pytest
import tensorstore as ts

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import readers
from gqa_flax.checkpoints import t5x_legacy
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.checkpoints import verify
from gqa_flax.cli import main
from gqa_flax.errors import UserError
from tests.conversion import trees

CONFIG = trees.config(num_heads=4, head_dim=64, emb_dim=128)
KERNEL = 'target/decoder/layers_0/self_attention/key/kernel'


def write(directory, state, *, driver='gfile', old_path=False, edit=None):
  """As T5X's Checkpointer: matrices in zarr folders, the rest in the index.

  Args:
    directory: gets checkpoint_N.
    state: as `t5x_orbax.save` takes it.
    driver: of the specs in the index; T5X wrote gfile, file or gcs.
    old_path: puts the path where tensorstore before 0.1.14 had it.
    edit: changes the flat index before it is written.
  """
  folder = directory / f'checkpoint_{int(state["state"]["step"])}'
  flat = traverse_util.flatten_dict(state, sep='/')
  index = {}
  for name, x in flat.items():
    if x.ndim < 2:
      index[name] = x
      continue
    path = name.replace('/', '.')
    compressor = {'id': 'gzip', 'level': 1}
    metadata = {'chunks': [max(1, x.shape[0] // 2), x.shape[1]]}
    metadata |= {'compressor': compressor, 'shape': list(x.shape)}
    store = ts.open(
      {
        'driver': 'zarr',
        'kvstore': {'driver': 'file', 'path': f'{folder}/{path}/'},
        'metadata': metadata,
        'dtype': x.dtype.name,
        'create': True,
      }
    ).result()
    store.write(x).result()
    kvstore = {'driver': driver}
    if driver == 'gcs':
      kvstore['bucket'] = 't5x-dummy-bucket'
    spec = {'driver': 'zarr', 'dtype': x.dtype.name, 'metadata': metadata}
    if old_path:
      index[name] = spec | {'kvstore': kvstore, 'path': path}
    else:
      index[name] = spec | {'kvstore': kvstore | {'path': f'{path}/'}}
  if edit:
    edit(index)
  tree = traverse_util.unflatten_dict(
    {tuple(k.split('/')): v for k, v in index.items()}
  )
  folder.mkdir(exist_ok=True)
  content = {'version': 3, 'optimizer': tree}
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(content))
  return folder


def flat(path):
  restored = t5x_orbax.restore(path, dtype=None)
  return traverse_util.flatten_dict(restored, sep='/')


@pytest.fixture(scope='module')
def state():
  return trees.state(CONFIG, step=1000, dtype=trees.bfloat16)


@pytest.mark.parametrize(
  'driver, old_path', [('gfile', False), ('gcs', True), ('file', False)]
)
def test_reads_what_was_written(tmp_path, state, driver, old_path):
  path = write(tmp_path, state, driver=driver, old_path=old_path)
  reader = readers.open_checkpoint(tmp_path)
  assert isinstance(reader, t5x_legacy.Reader)
  assert reader.path == path
  expected = traverse_util.flatten_dict(state, sep='/')
  assert list(reader.metadata) == sorted(expected)
  found = reader.read(expected)
  for name, x in expected.items():
    assert reader.metadata[name].shape == x.shape
    assert reader.metadata[name].dtype == found[name].dtype == x.dtype
    np.testing.assert_array_equal(found[name], x)


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_converts_as_the_same_state_through_orbax(
  tmp_path, state, num_kv_heads
):
  legacy = write(tmp_path / 'legacy', state)
  orbax = t5x_orbax.save(tmp_path / 'orbax', state)
  for source in (legacy, orbax):
    work = job.prepare(source, job.Settings(num_kv_heads=num_kv_heads))
    convert.convert(work, tmp_path / f'from_{source.parent.name}')
  ours, theirs = flat(tmp_path / 'from_legacy'), flat(tmp_path / 'from_orbax')
  assert ours.keys() == theirs.keys()
  for name in ours:
    np.testing.assert_array_equal(ours[name], theirs[name])
  report = verify.verify(legacy, tmp_path / 'from_legacy')
  assert report.differences == ()
  assert report.converted == (0 if num_kv_heads == 4 else 40)


def test_commands_take_it(tmp_path, state, capsys):
  source = write(tmp_path / 'src', state)
  assert main.main(['inspect', str(source), '--json']) == 0
  record = json.loads(capsys.readouterr().out)
  assert record['step'] == 1000
  assert record['model']['num_kv_heads'] == 4
  destination = tmp_path / 'dst'
  arguments = ['convert', str(source), str(destination), '--num_kv_heads=2']
  assert main.main(arguments) == 0
  assert main.main(['verify', str(source), str(destination)]) == 0


def test_what_trains_says_to_convert_it_first(tmp_path, state):
  source = write(tmp_path, state)
  with pytest.raises(UserError, match='older format; `gqa-flax convert`'):
    t5x_orbax.restore(source)


@pytest.mark.parametrize(
  'path', ['../elsewhere', '/etc/passwd', '..', '.', 'a/b', '', 'a\\b']
)
@pytest.mark.parametrize('old_path', [False, True])
def test_path_that_leaves_the_folder_is_refused(
  tmp_path, state, path, old_path
):
  def edit(index):
    spec = index[KERNEL]
    (spec if old_path else spec['kvstore'])['path'] = path

  source = write(tmp_path, state, edit=edit, old_path=old_path)
  with pytest.raises(UserError, match=rf'{KERNEL}: its path .*not the name'):
    t5x_legacy.Reader(source)


def test_declared_petabytes_are_refused_before_they_are_allocated(
  tmp_path, state
):
  def edit(index):
    index[KERNEL]['metadata'] = {'shape': [2**25, 2**25]}

  source = write(tmp_path, state, edit=edit)
  with pytest.raises(UserError, match=f'{KERNEL}: the index declares 2,251,7'):
    t5x_legacy.Reader(source)


def test_zarr_of_another_shape_than_the_index_says_is_refused(tmp_path, state):
  def edit(index):
    index[KERNEL]['metadata'] = {'shape': [128, 128]}

  reader = t5x_legacy.Reader(write(tmp_path, state, edit=edit))
  message = rf'{KERNEL} is bfloat16 \[128, 256\], but the index says .*128\]'
  with pytest.raises(UserError, match=message):
    reader.read([KERNEL])


@pytest.mark.parametrize('fault', ['truncate', 'remove'])
def test_damaged_tensor_is_named(tmp_path, state, fault):
  source = write(tmp_path, state)
  folder = source / KERNEL.replace('/', '.')
  for file in folder.iterdir():
    if fault == 'truncate' and file.name != '.zarray':
      file.write_bytes(file.read_bytes()[:100])
    elif fault == 'remove':
      file.unlink()
  reader = t5x_legacy.Reader(source)
  with pytest.raises(UserError, match=f'cannot be read: {KERNEL}') as error:
    reader.read(reader.metadata)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'content, message',
  [
    (b'', 'not an index of T5X'),
    (b'\xc1garbage', 'not an index of T5X'),
    (serialization.msgpack_serialize({'version': 1, 'optimizer': {}}), 'not 1'),
    (serialization.msgpack_serialize({'weights': {}}), 'not None'),
  ],
)
def test_file_that_is_no_index_is_refused(tmp_path, content, message):
  folder = tmp_path / 'checkpoint_5'
  folder.mkdir()
  (folder / 'checkpoint').write_bytes(content)
  with pytest.raises(UserError, match=message):
    readers.open_checkpoint(folder)


def test_index_larger_than_any_is_not_read(tmp_path, state, monkeypatch):
  monkeypatch.setattr(t5x_legacy, 'MAX_INDEX_BYTES', 100)
  source = write(tmp_path, state)
  with pytest.raises(UserError, match='an index of more than 100 is not read'):
    t5x_legacy.Reader(source)
