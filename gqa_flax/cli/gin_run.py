"""Commands that run a gin-bound function: train, finetune, evaluate, generate.

A command's own run file is read first, then the files and bindings that the
user gives, as T5X does; the command's flags are short for macros.
"""

import argparse
from collections.abc import Callable, Mapping
import os
import sys
from typing import Any


def bound(
  args: argparse.Namespace,
  run_file: str,
  macros: Mapping[str, Any],
  function: Callable[..., Any],
) -> Callable[..., Any]:
  """Reads the configuration; returns the function with its bindings.

  Args:
    args: gin_file and gin_bindings as given.
    run_file: the command's, relative to the package's gin folder.
    macros: macro -> value of a flag; None where the flag was not given.
    function: to bind.
  """
  from gqa_flax.training import gin_config

  flags = [f'{k} = {v!r}' for k, v in macros.items() if v is not None]
  gin_config.parse([run_file, *args.gin_file], [*flags, *args.gin_bindings])
  return gin_config.bound(function)


def quiet_tensorflow() -> None:
  """Imports what reads data here, without what it says of GPUs.

  TensorFlow writes that to the file descriptor itself, whatever its log level.
  An import that fails raises as ever.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  sys.stderr.flush()
  saved = os.dup(2)
  try:
    with open(os.devnull, 'wb') as nowhere:
      os.dup2(nowhere.fileno(), 2)
    import seqio  # noqa: F401  (imports tensorflow and tensorflow_text)
  finally:
    os.dup2(saved, 2)
    os.close(saved)
