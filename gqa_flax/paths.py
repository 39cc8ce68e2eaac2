"""Where the package's own files lie, installed or in a checkout."""

import os
import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parent


def gin_dir() -> pathlib.Path:
  """Folder of the gin files: in a wheel gqa_flax/gin, in a checkout gin/."""
  installed = _PACKAGE / 'gin'
  return installed if installed.is_dir() else _PACKAGE.parent / 'gin'


def mini_checkpoint_dir() -> pathlib.Path:
  """Folder of the shipped multi-head checkpoint (holds checkpoint_N/)."""
  return _PACKAGE / 'mini'


def mini_vocabulary_path() -> pathlib.Path:
  """SentencePiece model of the shipped checkpoint."""
  return _PACKAGE / 'mini' / 'sentencepiece.model'


def cache_dir() -> pathlib.Path:
  """Folder for what is made once: $GQA_FLAX_CACHE, or ~/.cache/gqa_flax."""
  default = pathlib.Path.home() / '.cache' / 'gqa_flax'
  return pathlib.Path(os.environ.get('GQA_FLAX_CACHE', default)).expanduser()
