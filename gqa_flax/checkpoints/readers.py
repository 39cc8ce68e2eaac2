"""The reader of a checkpoint, whatever its format."""

from etils import epath

from gqa_flax.checkpoints import folders
from gqa_flax.checkpoints import t5x_legacy
from gqa_flax.checkpoints import t5x_orbax

Reader = t5x_orbax.Reader | t5x_legacy.Reader


def open_checkpoint(path: epath.PathLike) -> Reader:
  """Opens a checkpoint_N folder, or the latest of its parent.

  Raises UserError: none there, of no known format, corrupt.
  """
  path = folders.resolve(path)
  if t5x_legacy.is_legacy(path):
    return t5x_legacy.Reader(path)
  return t5x_orbax.Reader(path)
