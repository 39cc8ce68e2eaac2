"""The copy-the-lead baseline."""

import pytest

from gqa_flax.data import summarization
from gqa_flax.data import translation


@pytest.mark.parametrize(
  'text, expected',
  [
    ('One sentence. Another.', 'One sentence.'),
    ('Parameters\n----------\nx : int\n    A number.', 'x : int A number.'),
    ('Args:\n  x: A number.', 'x: A number.'),
    ('a ' * 30, ' '.join('a' * 20)),
    ('Args:', 'Args:'),
  ],
)
def test_lead(text, expected):
  assert summarization.lead(text) == expected


def test_score_lead_baseline_scores_its_predictions():
  records = [
    {'inputs': 'Add all the elements. Then stop.', 'targets': 'Add elements.'},
    {'inputs': 'Nothing in common.', 'targets': 'Multiply matrices quickly.'},
  ]
  result = summarization.score_lead_baseline(records)
  assert result['predictions'][0] == 'Add all the elements.'
  assert result['per_example']['rouge1'] == pytest.approx([200 / 3, 0])
  assert result['scores']['rouge1'] == pytest.approx(100 / 3)


def test_score_copy_baseline_names_and_specifications_count():
  records = [{'en': 'Name: %s of Quechua', 'de': 'Name: %s von Quechua'}]
  result = translation.score_copy_baseline(records)
  assert result['predictions'] == ['Name: %s of Quechua']
  assert 0 < result['scores']['bleu'] < 100
