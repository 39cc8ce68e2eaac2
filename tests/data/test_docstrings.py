"""Docstrings are read from source, whatever it does when imported."""

import sys

from gqa_flax.data import docstrings

_SOURCE = b'''"""Module.

  Indented.
"""
raise SystemExit('never run')


class Outer:
  """A class."""

  def method(self):
    """A method."""

    def inner():
      """A closure."""


if True:

  async def conditional():
    r"""Escapes \\d stay."""


def without():
  pass
'''


def test_extract_finds_all_levels_in_order():
  assert docstrings.extract(_SOURCE) == [
    ('', 'Module.\n\nIndented.'),
    ('Outer', 'A class.'),
    ('Outer.method', 'A method.'),
    ('Outer.method.inner', 'A closure.'),
    ('conditional', r'Escapes \d stay.'),
  ]


def test_extract_declared_encoding_is_honoured():
  source = '# coding: latin-1\n"""Größe."""\n'.encode('latin-1')
  assert docstrings.extract(source) == [('', 'Größe.')]


def test_extract_what_is_not_python_is_none():
  assert docstrings.extract(b'print "2"') is None
  assert docstrings.extract(b'x = "\x00"') is None
  assert docstrings.extract('"""Größe."""'.encode('latin-1')) is None


def test_extract_lone_surrogate_becomes_text():
  ((_, text),) = docstrings.extract(b'"""a \\ud800 b"""')
  assert text == 'a ? b'


def test_extract_topics_reads_the_dictionary():
  source = b"topics = {'assert': 'The statement.\\n\\n  Code.\\n'}"
  assert docstrings.extract_topics(source) == [
    ('assert', 'The statement.\n\nCode.')
  ]


def test_extract_files_workers_agree_with_this_process(tmp_path):
  paths = [str(tmp_path / 'missing.py')]
  for i in range(3):
    path = tmp_path / f'{i}.py'
    path.write_text(f'"""Größe {i}."""\n' if i else 'a b c')
    paths.append(str(path))
  expected = [None, None, [['', 'Größe 1.']], [['', 'Größe 2.']]]
  assert list(docstrings.extract_files(paths, 2)) == expected
  assert [
    found and [list(f) for f in found]
    for found in docstrings.extract_files(paths)
  ] == expected


def test_worker_module_imports_nothing_heavy():
  assert set(docstrings.__dict__) & {'tensorflow', 'seqio', 'jax'} == set()
  assert 'gqa_flax.data.docstrings' in sys.modules
