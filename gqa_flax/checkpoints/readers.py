"""The reader of a checkpoint, whatever its format."""

from etils import epath

from gqa_flax.checkpoints import folders
from gqa_flax.checkpoints import huggingface
from gqa_flax.checkpoints import t5x_legacy
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.errors import UserError

Reader = t5x_orbax.Reader | t5x_legacy.Reader | huggingface.Reader


def open_checkpoint(path: epath.PathLike, step: int | None = None) -> Reader:
  """Opens a checkpoint_N folder, the latest of its parent, or transformers'.

  Args:
    path: of the folder.
    step: what the model was trained for, where the format does not say
      (transformers': default 0).

  Raises UserError: none there, of no known format, corrupt; a step for a
    checkpoint that has its own.
  """
  path = folders.resolve(path)
  if folders.is_huggingface(path):
    return huggingface.Reader(path, step or 0)
  if step is not None:
    raise UserError(
      f'{path}: says its step itself; step ({step}) is for checkpoints of'
      ' transformers, which do not.'
    )
  if t5x_legacy.is_legacy(path):
    return t5x_legacy.Reader(path)
  return t5x_orbax.Reader(path)
