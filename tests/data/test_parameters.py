"""Parameter sections in three styles, and against docstring_parser."""

import textwrap

import pytest

from gqa_flax.data import parameters

_NUMPY = """\
Sum it up.

Parameters
----------
a, b : array_like
    Not read: two names.
"""

_NUMPY_PLAIN = """\
Sum it up.

Parameters
----------
x : array_like
    Elements to sum,
    of any shape.

    A second paragraph.
axis : {0, 1}, optional
    Axis to sum over.
**kwargs
    Passed on.

Returns
-------
total : float
    The sum.
"""

_GOOGLE = """\
Sum it up.

Args:
  x: elements to sum,
    of any shape.
  axis (int, optional): Axis to sum over.
  **kwargs: Passed on.

Returns:
  total: the sum.
"""

_SPHINX = """\
Sum it up.

:param x: elements to sum,
    of any shape.
:param int axis: Axis to sum over.
:param \\**kwargs: Passed on.
:returns: the sum.
"""


@pytest.mark.parametrize('text', [_NUMPY_PLAIN, _GOOGLE, _SPHINX])
def test_parse_every_style_reads_the_same(text):
  found = {p.name: p.description.lower() for p in parameters.parse(text)}
  assert found == {
    'x': 'elements to sum, of any shape.',
    'axis': 'axis to sum over.',
    'kwargs': 'passed on.',
  }


@pytest.mark.parametrize('text', [_NUMPY_PLAIN, _GOOGLE, _SPHINX])
def test_parse_line_ranges_hold_the_description(text):
  lines = text.splitlines()
  for p in parameters.parse(text):
    block = ' '.join(' '.join(lines[p.first_line : p.end_line]).split())
    assert p.description in block and p.name in block


def test_parse_several_names_at_once_are_left_out():
  assert parameters.parse(_NUMPY) == []


@pytest.mark.parametrize(
  'text',
  [
    '',
    'No parameters here.',
    'Args:',
    'Parameters\n----------',
    'Args:\n  x:\n',
    'Parameters\n----------\nReturns\n-------\nx : int\n    A value.',
  ],
)
def test_parse_nothing_described_is_empty(text):
  assert parameters.parse(text) == []


@pytest.mark.parametrize('text', [_NUMPY_PLAIN, _GOOGLE, _SPHINX])
def test_parse_agrees_with_docstring_parser(text):
  docstring_parser = pytest.importorskip('docstring_parser')
  theirs = docstring_parser.parse(textwrap.dedent(text))
  expected = {
    p.arg_name.lstrip('\\*'): ' '.join(p.description.split('\n\n')[0].split())
    for p in theirs.params
  }
  found = {p.name: p.description for p in parameters.parse(text)}
  assert found == expected
