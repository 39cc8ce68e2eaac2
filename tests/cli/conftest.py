import pytest

from gqa_flax.checkpoints import t5x_orbax
from tests.conversion import trees


@pytest.fixture
def source(tmp_path):
  """A multi-head checkpoint of 4 heads, step 1000."""
  return t5x_orbax.save(tmp_path / 'src', trees.state(trees.config()))
