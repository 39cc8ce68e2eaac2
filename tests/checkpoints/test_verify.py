import json

from flax import traverse_util
import numpy as np
import pytest

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import manifest
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.checkpoints import verify
from gqa_flax.errors import UserError
from tests.conversion import trees

KERNEL = 'target/decoder/layers_0/self_attention/key/kernel'
EMBEDDING = 'target/token_embedder/embedding'


@pytest.fixture
def source(tmp_path):
  return t5x_orbax.save(tmp_path / 'src', trees.state(trees.config()))


@pytest.fixture
def destination(tmp_path, source):
  work = job.prepare(source, job.Settings(num_kv_heads=2))
  convert.convert(work, tmp_path / 'dst')
  return tmp_path / 'dst' / 'checkpoint_1000'


def alter(path, change):
  """Rewrites a checkpoint after `change` of its flat tensors, same manifest."""
  text = (path / manifest.NAME).read_text()
  flat = traverse_util.flatten_dict(
    t5x_orbax.restore(path, dtype=None), sep='/'
  )
  change(flat)
  t5x_orbax.save(
    path.parent,
    traverse_util.unflatten_dict(flat, sep='/'),
    overwrite=True,
    files={manifest.NAME: text},
  )


def test_verify_of_a_fresh_conversion_finds_nothing(source, destination):
  report = verify.verify(source, destination)
  assert report.differences == ()
  # Of 8 kernels, each with its four slots; the rest, and the step.
  assert report.converted == 8 * 5
  assert report.kept + report.converted == len(
    t5x_orbax.read_metadata(destination)
  )


def test_verify_takes_the_parents_and_the_step_of_the_manifest(
  source, destination
):
  t5x_orbax.save(source.parent, trees.state(trees.config(), step=2000, seed=9))
  report = verify.verify(source.parent, destination.parent)
  assert report.source == str(source)
  assert report.differences == ()


def test_verify_finds_one_changed_bit_in_an_untouched_tensor(
  source, destination
):
  def change(flat):
    flat[EMBEDDING] = flat[EMBEDDING].copy()
    flat[EMBEDDING].view(np.uint32)[3, 3] ^= 1

  alter(destination, change)
  (difference,) = verify.verify(source, destination).differences
  assert difference == (
    f'{EMBEDDING}: differs; it must be the same byte for byte'
  )


def test_verify_finds_a_changed_converted_tensor(source, destination):
  alter(destination, lambda flat: flat.update({KERNEL: flat[KERNEL] * 1.01}))
  (difference,) = verify.verify(source, destination).differences
  assert difference.startswith(f'{KERNEL}: differs by up to 0.0')


def test_verify_tells_rounding_from_a_change_after_writing(source, destination):
  nudge = lambda x: np.nextafter(x, np.inf).astype(x.dtype)
  alter(destination, lambda flat: flat.update({KERNEL: nudge(flat[KERNEL])}))
  (difference,) = verify.verify(source, destination).differences
  assert difference == f'{KERNEL}: has changed since it was written'


def test_verify_lists_missing_unexpected_misshapen_and_wrong_step(
  source, destination
):
  def change(flat):
    del flat[EMBEDDING]
    flat['target/extra'] = np.ones(3, np.float32)
    flat[KERNEL] = flat[KERNEL][:, :4]

  alter(destination, change)
  assert verify.verify(source, destination).differences == (
    f'{KERNEL}: is float32[16, 4], must be float32[16, 16]',
    f'{EMBEDDING}: missing',
    'target/extra: unexpected',
  )


def test_verify_against_another_source_says_so(tmp_path, source, destination):
  other = t5x_orbax.save(tmp_path / 'o', trees.state(trees.config(), seed=5))
  differences = verify.verify(other, destination).differences
  assert 'not the source that was converted' in differences[-1]
  assert len(differences) > 10


def test_verify_without_a_manifest_names_it(source):
  with pytest.raises(UserError, match='gqa_conversion.json: missing; not wri'):
    verify.verify(source, source)


@pytest.mark.parametrize(
  'text, words',
  [
    ('{', 'not JSON'),
    ('{}', r'not a manifest of format 1 \(format: None'),
    ('[]', 'not a JSON object'),
  ],
)
def test_verify_with_a_bad_manifest_names_it(source, destination, text, words):
  (destination / manifest.NAME).write_text(text)
  with pytest.raises(UserError, match=f'gqa_conversion.json: {words}'):
    verify.verify(source, destination)


def test_verify_with_an_incomplete_manifest_names_what_is_missing(
  source, destination
):
  found = json.loads((destination / manifest.NAME).read_text())
  del found['conversion']['method']
  (destination / manifest.NAME).write_text(json.dumps(found))
  with pytest.raises(UserError, match="'method' is missing"):
    verify.verify(source, destination)
