"""Exported checkpoints, loaded by transformers itself (make test-oracles)."""

import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.checkpoints import convert
from gqa_flax.checkpoints import export
from gqa_flax.checkpoints import job
from gqa_flax.training import models

pytestmark = pytest.mark.oracle
torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')


@pytest.mark.parametrize('num_kv_heads', [1, 2, 8])
def test_transformers_gives_our_logits(tmp_path, num_kv_heads):
  settings = job.Settings(num_kv_heads=num_kv_heads, dtype='float32')
  convert.convert(job.prepare('mini', settings), tmp_path / 'gqa')
  export.export(tmp_path / 'gqa', tmp_path / 'hf')
  model = models.from_checkpoint(tmp_path / 'gqa')
  params = models.restore_params(model, tmp_path / 'gqa')
  rng = np.random.default_rng(0)
  inputs = rng.integers(3, 4000, (2, 20))
  targets = rng.integers(3, 4000, (2, 9))
  shifted = np.pad(targets, [(0, 0), (1, 0)])[:, :-1]
  ours = model.apply(
    {'params': params},
    *(jnp.asarray(x) for x in (inputs, shifted, targets)),
    enable_dropout=False,
  )
  theirs = transformers.T5ForConditionalGeneration.from_pretrained(
    tmp_path / 'hf'
  ).eval()
  with torch.no_grad():
    logits = theirs(
      input_ids=torch.from_numpy(inputs), labels=torch.from_numpy(targets)
    ).logits.numpy()
  np.testing.assert_allclose(logits, ours, atol=1e-3, rtol=1e-3)
