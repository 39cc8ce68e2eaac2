"""Claims follow from the numbers in records alone."""

from gqa_flax.study import claims
from gqa_flax.study import record
from tests.study import fakes


def _verdicts(run):
  return {c.text: c.verdict for c in claims.check(run)}


def test_claims_of_a_complete_run():
  found = _verdicts(fakes.complete_run())
  assert found == {
    'MQA is faster than GQA-2, which is faster than MHA': 'holds',
    'Going from MQA to GQA-2 costs little decoding time': 'holds',
    'GQA-2 scores higher than MQA': 'holds',
    'Uptrained GQA-2 is close to MHA, MQA is not as close': 'holds',
    'Without uptraining GQA-2 is nearer to MHA than MQA is': 'holds',
    'Uptraining brings both MQA and GQA-2 nearer to MHA': 'holds',
    'Mean beats first beats random at G = 1, right after conversion (loss)': (
      'does not hold'
    ),
    'Mean beats first beats random at G = 1, after uptraining (loss)': 'holds',
    'Mean beats first beats random at G = 2, after uptraining (loss)': 'holds',
    # The second of its intervals holds zero.
    'Mean beats first beats random at G = 1 (scores)': 'undecided',
    'Multi-head beats the copied first sentence at summarization': 'holds',
  }


def test_claims_without_their_records_are_not_run():
  found = _verdicts(fakes.timed_only())
  speed = [v for text, v in found.items() if 'fast' in text or 'costs' in text]
  assert speed == ['holds', 'holds']
  others = [v for text, v in found.items() if 'fast' not in text]
  assert others.count('not run') == len(found) - 2


def test_a_slower_multi_query_is_reported():
  run = record.Run('x', (fakes.time_record([(8, 2.0), (2, 2.2), (1, 4.0)]),))
  found = _verdicts(run)
  assert found['MQA is faster than GQA-2, which is faster than MHA'] == (
    'does not hold'
  )


def test_overlapping_quartiles_are_undecided():
  run = record.Run('x', (fakes.time_record([(8, 4.0), (2, 2.01), (1, 2.0)]),))
  claim = claims.check(run)[0]
  assert claim.verdict == 'undecided'
  assert 'quartiles overlap' in claim.evidence


def test_evidence_has_the_numbers():
  found = {c.text: c.evidence for c in claims.check(fakes.complete_run())}
  assert found['GQA-2 scores higher than MQA'] == (
    'average differs by +0.80 [+0.50, +1.10], n = 500'
  )
