"""The shipped checkpoint: what it is, and that its card tells the truth."""

import re

import numpy as np
import pytest

from gqa_flax import paths
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.data import vocabularies
from gqa_flax.training import evaluation
from gqa_flax.training import models

FOLDER = paths.mini_checkpoint_dir()
CARD = (FOLDER / 'MODEL_CARD.md').read_text()


def card_number(pattern: str) -> float:
  return float(re.search(pattern, CARD).group(1).replace(',', ''))


def test_it_fits_into_the_repository():
  files = [p for p in FOLDER.rglob('*') if p.is_file()]
  assert sum(p.stat().st_size for p in files) <= 20e6


def test_parameters_are_bfloat16_and_slots_float32():
  for name, leaf in t5x_orbax.read_metadata(FOLDER).items():
    if name.startswith('target/'):
      assert leaf.dtype == 'bfloat16', name
    elif name.startswith('state/param_states/'):
      assert leaf.dtype == np.float32, name


def test_it_is_a_multi_head_t5_with_its_vocabulary():
  config = models.from_checkpoint('mini').config
  assert config.num_heads == config.num_kv_heads == 8
  assert config.mlp_activations == ('gelu', 'linear')
  assert not config.logits_via_embedding
  vocabularies.check_vocabulary(
    vocabularies.mini_vocabulary(), config.vocab_size
  )


def test_card_tells_its_step():
  step = t5x_orbax.read_step(FOLDER)
  assert card_number(r'trained for ([\d,]+) steps') == step


@pytest.mark.slow
@pytest.mark.parametrize(
  'shuffled, pattern',
  [
    (False, r'Held-out loss (\d\.\d+) nats'),
    (True, r'raises it to\s+(\d\.\d+)'),
  ],
)
def test_card_tells_its_losses(shuffled, pattern):
  import gqa_flax.data.tasks  # noqa: F401

  model = models.from_checkpoint(FOLDER)
  found = evaluation.held_out_loss(
    model,
    models.restore_params(model, FOLDER),
    'gqa_flax_docs_span_corruption',
    {'inputs': 128, 'targets': 29},
    32,
    shuffled_sources=shuffled,
  )
  assert found['cross_entropy'] == pytest.approx(card_number(pattern), abs=1e-3)
