"""Reading gin files with the flags that T5X has."""

from collections.abc import Sequence
import importlib.util  # noqa: F401  (gin uses it without importing it)

import gin

from gqa_flax import paths
from gqa_flax.errors import UserError


def parse(
  files: Sequence[str],
  bindings: Sequence[str] = (),
  search_paths: Sequence[str] = (),
) -> None:
  """Parses gin files and bindings, and finalises the configuration.

  Args:
    files: paths; relative ones are looked for in the working folder, in
      `search_paths` and in the package's own gin folder.
    bindings: 'NAME = VALUE', later ones win.
    search_paths: further folders.

  Raises:
    UserError: a file that is not found, or a configuration that does not
      parse, names what does not exist or leaves a required macro out.
  """
  gin.clear_config()
  for path in (*search_paths, str(paths.gin_dir())):
    gin.add_config_file_search_path(path)
  try:
    gin.parse_config_files_and_bindings(list(files), list(bindings))
  except (OSError, ValueError, SyntaxError, NameError, TypeError) as error:
    message = ' '.join(str(error).split())
    raise UserError(f'gin: {message}') from error


def binding(argument: str) -> str:
  """'--gin.NAME=VALUE' -> 'NAME=VALUE'."""
  return argument.removeprefix('--gin.')
