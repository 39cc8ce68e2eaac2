"""Reading gin files with the flags that T5X has."""

from collections.abc import Callable, Sequence
import functools
import importlib.util  # noqa: F401  (gin uses it without importing it)
import logging
import tokenize
from typing import Any

import gin
from gqa_flax import paths
from gqa_flax.errors import UserError

_UNPARSABLE = (
  OSError,
  ValueError,
  SyntaxError,
  NameError,
  TypeError,
  tokenize.TokenError,
)


def parse(
  files: Sequence[str],
  bindings: Sequence[str] = (),
  search_paths: Sequence[str] = (),
) -> None:
  """Parses gin files and bindings.

  Args:
    files: paths; relative ones are looked for in the working folder, in
      `search_paths` and in the package's own gin folder.
    bindings: 'NAME = VALUE', later ones win.
    search_paths: further folders.

  Raises:
    UserError: a file that is not found, or a configuration that does not
      parse or names what does not exist.
  """
  gin.clear_config()
  # gin logs an error for each folder that does not hold a file, also when the
  # next one does; if none does, it raises.
  logger = logging.getLogger()
  logger.addFilter(_is_not_search)
  for path in (*search_paths, str(paths.gin_dir())):
    gin.add_config_file_search_path(path)
  try:
    gin.parse_config_files_and_bindings(
      list(files), list(bindings), finalize_config=False
    )
  except _UNPARSABLE as error:
    message = ' '.join(str(error).split())
    raise UserError(f'gin: {message}') from error
  finally:
    logger.removeFilter(_is_not_search)


def _is_not_search(record: logging.LogRecord) -> bool:
  return not record.getMessage().startswith('Path not found')


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
  """The function with the bindings that the configuration gives it.

  It is called by us, not by gin, whose wrapper replaces exceptions by others
  (without errno, with a longer message).

  Raises:
    UserError: when called, if a macro was left out, or a value that gin builds
      for it (a model, a way to decode) is refused.
  """

  @functools.wraps(function)
  def call(*args, **kwargs):
    _require_macros()
    try:
      bindings = gin.get_bindings(function)
    except ValueError as error:
      message = str(error).split('\n  In call to configurable')[0]
      raise UserError(message) from error
    return function(*args, **(bindings | kwargs))

  return call


def _require_macros() -> None:
  """Names every macro that is used and has no value."""
  config = gin.config._CONFIG  # pylint: disable=protected-access
  defined = {selector[0] for selector in config if selector[1] == 'gin.macro'}
  used = {}
  for (_, selector), parameters in config.items():
    for parameter, value in parameters.items():
      for macro in _macros_in(value):
        used.setdefault(macro, f'{selector.split(".")[-1]}.{parameter}')
  missing = [
    f'{macro} (for {used[macro]})'
    for macro in sorted(used)
    if macro not in defined
  ]
  if missing:
    raise UserError(
      f'gin: no value for {", ".join(missing)}: give a gin file that sets '
      'it, a flag, or --gin.NAME=VALUE.'
    )


def _macros_in(value: Any) -> list[str]:
  """Names of the macros in a bound value, containers included."""
  if isinstance(value, gin.config.ConfigurableReference):
    is_macro = value.selector == 'gin.macro'
    return ['/'.join(value.scopes)] if is_macro else []
  if isinstance(value, dict):
    return [m for item in value.values() for m in _macros_in(item)]
  if isinstance(value, (list, tuple)):
    return [m for item in value for m in _macros_in(item)]
  return []
