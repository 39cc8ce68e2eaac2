"""Examples made of one docstring."""

import pytest

from gqa_flax.data import examples

_BODY = (
  'The elements are added in the order in which they lie in memory, in '
  'float64, and the result is cast to the type that was asked for.'
)
_DOCSTRING = f"""\
Return the sum of all elements.

{_BODY}

Args:
  x: Array to sum. It may be empty, in which case the result is zero.
  axis: Axis to sum over.
  unused:
"""


def test_summarization_splits_the_summary_line_off():
  example = examples.summarization(_DOCSTRING)
  assert example['targets'] == 'Return the sum of all elements.'
  assert example['inputs'].startswith('The elements are added')
  assert 'Return the sum' not in example['inputs']


@pytest.mark.parametrize(
  'summary',
  [
    'Sum it.',
    'return the sum of all elements.',
    'Return the sum of all elements',
    'Return the sum. Elements are added.',
    'Return `x | y` of all the elements.',
    'Return the sum of ' + 'very ' * 30 + 'many elements.',
    'Return 1 2 3 4 5 6 7 8 9 10 11 12 13 14.',
  ],
)
def test_summarization_what_is_no_english_sentence_is_refused(summary):
  assert examples.summarization(f'{summary}\n\n{_BODY}') is None


def test_summarization_body_that_repeats_the_summary_is_refused():
  summary = 'Return the sum of all elements.'
  assert examples.summarization(f'{summary}\n\n{_BODY} {summary}') is None


def test_summarization_long_body_is_cut_at_a_paragraph():
  example = examples.summarization('\n\n'.join([_DOCSTRING, *[_BODY] * 20]))
  assert len(example['inputs']) <= 1500
  assert example['inputs'].endswith(_BODY)


def test_question_answering_asks_for_each_description():
  found = examples.question_answering('module.Class.sum', _DOCSTRING)
  by_question = {q['question']: q for q in found}
  assert set(by_question) == {
    'what is parameter x of Class.sum?',
    'what is parameter axis of Class.sum?',
  }
  x = by_question['what is parameter x of Class.sum?']
  assert x['answers'] == [
    'Array to sum.',
    'Array to sum. It may be empty, in which case the result is zero.',
  ]
  assert x['context'] == _DOCSTRING


def test_question_answering_long_context_is_cut_around_the_answer():
  padding = '\n'.join(f'  y{i}: Nothing of interest here.' for i in range(90))
  text = f'Sum.\n\nArgs:\n{padding}\n  x: Array to sum.\n{padding}'
  for question in examples.question_answering('f', text):
    assert len(question['context']) <= 1200
    assert question['answers'][0] in question['context']


def test_question_answering_module_has_no_name_to_ask_about():
  assert examples.question_answering('', _DOCSTRING) == []


def test_paragraph_key_ignores_case_space_and_punctuation():
  other = _BODY.upper().replace(' ', '\n ').replace(',', ';')
  assert examples.paragraph_key(_BODY) == examples.paragraph_key(other)
  assert examples.paragraph_key(_BODY) != examples.paragraph_key(_BODY[1:])
  assert examples.paragraph_key('Parameters\n----------') is None


def test_text_hash_is_the_same_in_every_process():
  assert examples.text_hash('Größe').hex() == '18dd5f1b141d0975'


@pytest.mark.parametrize(
  'text, expected',
  [
    ('One. Two.', 'One.'),
    ('See e.g. this one. Then that.', 'See e.g. this one.'),
    ('Is it? `Yes`.', 'Is it?'),
    ('No end', 'No end'),
    ('', ''),
  ],
)
def test_first_sentence(text, expected):
  assert examples.first_sentence(text) == expected


def test_paragraphs_keep_their_indentation():
  assert examples.paragraphs('a\n\n  b\n  c\n \n\nd\n') == [
    'a',
    '  b\n  c',
    'd\n',
  ]
