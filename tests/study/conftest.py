"""A tiny corpus and checkpoint, and one uninterrupted run on them."""

import pytest


@pytest.fixture(scope='session')
def tiny_cache(tmp_path_factory):
  """$GQA_FLAX_CACHE with a tiny corpus in it, and compiled code kept."""
  import jax

  from tests.study import tiny

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


@pytest.fixture(scope='session')
def tiny_checkpoint(tmp_path_factory):
  from tests.study import tiny

  return tiny.make_checkpoint(tmp_path_factory.mktemp('source'))


@pytest.fixture(scope='session')
def tiny_run(tiny_cache, tiny_checkpoint, tmp_path_factory):
  """(output folder, records) of a run that nothing stopped."""
  from tests.study import tiny

  output = tmp_path_factory.mktemp('uninterrupted') / 'out'
  return output, tiny.study(output, tiny_checkpoint)
