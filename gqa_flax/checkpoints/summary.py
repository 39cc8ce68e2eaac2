"""What a checkpoint holds, from its metadata alone."""

import dataclasses
from typing import Any

from etils import epath
import numpy as np

from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import manifest
from gqa_flax.checkpoints import readers
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.conversion import plan
from gqa_flax.errors import UserError

_PARAM = 'target/'
_MODEL_FIELDS = (
  'num_encoder_layers',
  'num_decoder_layers',
  'emb_dim',
  'mlp_dim',
  'num_heads',
  'num_kv_heads',
  'head_dim',
  'vocab_size',
)


def summarize(path: epath.PathLike) -> dict[str, Any]:
  """The record that `gqa-flax inspect --json` prints.

  Keys: path, step, model (None where it is no T5, with the reason under
  model_problem), parameters (their number), bytes (uncompressed), tensors
  (path, shape, dtype, bytes), lineage, training (the sidecar).

  Raises UserError if there is no checkpoint, or it cannot be read.
  """
  reader = readers.open_checkpoint(path)
  tensors = [
    {
      'path': name,
      'shape': list(leaf.shape),
      'dtype': leaf.dtype.name,
      'bytes': leaf.dtype.itemsize * int(np.prod(leaf.shape)),
    }
    for name, leaf in reader.metadata.items()
  ]
  params = {
    name.removeprefix(_PARAM): leaf
    for name, leaf in reader.metadata.items()
    if name.startswith(_PARAM)
  }
  record = {
    'path': str(reader.path),
    'step': None,
    'model': None,
    'parameters': sum(int(np.prod(x.shape)) for x in params.values()),
    'bytes': sum(tensor['bytes'] for tensor in tensors),
    'tensors': tensors,
    'lineage': manifest.lineage(reader.path),
    'training': t5x_orbax.read_sidecar(reader.path),
  }
  if job.STEP in reader.metadata:
    record['step'] = int(reader.read([job.STEP])[job.STEP])
  try:
    config = dataclasses.asdict(plan.infer_config(params))
    record['model'] = {name: config[name] for name in _MODEL_FIELDS}
  except UserError as error:
    record['model_problem'] = str(error)
  return record
