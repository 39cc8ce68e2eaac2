"""A tiny corpus of real text, built once for all tests of this folder."""

import json

import pytest

from gqa_flax.data import corpus
from gqa_flax.data import sources


@pytest.fixture(scope='session')
def tiny_corpus(tmp_path_factory):
  """Makes the corpus's small part tiny: yields its folder.

  optax, absl and a few modules of the standard library; the messages of
  Django, and 20 % of all held out so that no split is empty.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('GQA_FLAX_CACHE', str(tmp_path_factory.mktemp('cache')))
    documentation = {**sources._DOCUMENTATION_OF, 'small': ('absl-py', 'optax')}
    patch.setattr(sources, '_DOCUMENTATION_OF', documentation)
    messages = {**sources._MESSAGES_OF, 'small': ('Django',)}
    patch.setattr(sources, '_MESSAGES_OF', messages)
    modules = ['argparse', 'json', 'textwrap']
    patch.setattr(sources, 'STANDARD_LIBRARY', modules)
    patch.setattr(corpus, '_VALIDATION_FILES', 0.2)
    patch.setattr(corpus, '_VALIDATION_MESSAGES', 0.2)
    yield corpus.build('small')


@pytest.fixture
def write_jsonl(tmp_path):
  """Writes rows as a JSONL file: write_jsonl('a.jsonl', rows) -> path."""

  def write(name, rows):
    path = tmp_path / name
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path

  return write
