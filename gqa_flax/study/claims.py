"""What the paper claims, and whether a run's records show it.

Each claim is computed from records; nothing is decided by hand. Scores are
compared by paired bootstrap intervals. Held-out losses are of the same
examples, one uptraining run each, and are compared by value.
"""

import dataclasses

from gqa_flax.study import record as record_lib

SHOWS = 'holds'
NOT = 'does not hold'
UNDECIDED = 'undecided'
NOT_RUN = 'not run'

# Of the time from multi-query to multi-head, what the middle G may cost for
# "little overhead"; in the paper's Table 1 GQA-8 costs 3 %.
_LITTLE = 0.25
# Of the gap between multi-query and multi-head, what the middle G must close
# for "close to multi-head"; in the paper's Table 1 GQA-8 closes 83 %.
_MOST = 0.5


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim and what the run says to it.

  Attributes:
    text: the claim.
    paper: where the paper makes it.
    verdict: SHOWS, NOT, UNDECIDED or NOT_RUN.
    evidence: the numbers.
  """

  text: str
  paper: str
  verdict: str
  evidence: str = ''


def check(run: record_lib.Run) -> list[Claim]:
  """All claims, in the paper's order of importance."""
  heads = run.num_heads
  if heads is None:
    return []
  groups = sorted({g for m, g, _ in run.curves() if m is not None and g > 1})
  # The middle G of the tables: 2, or the smallest that was run.
  middle = 2 if 2 in groups or not groups else groups[0]
  methods = [m for m, _, _ in run.curves() if m is not None]
  method = methods[0] if methods else 'mean'
  return [
    _faster(run, heads, middle),
    _little_overhead(run, heads, middle),
    _between(run, method, middle),
    _closes_the_gap(run, method, heads, middle),
    _uptraining_needed(run, method, heads, middle),
    _uptraining_helps(run, method, heads, middle),
    _method_order_of_loss(run, 1, 0),
    _method_order_of_loss(run, 1, -1),
    _method_order_of_loss(run, middle, -1),
    _method_order_of_scores(run, 1),
    _beats_lead(run, heads),
  ]


def _faster(run, heads, middle) -> Claim:
  text = f'MQA is faster than GQA-{middle}, which is faster than MHA'
  paper = 'Table 1: 0.24, 0.28, 1.51 s a sample'
  times = run.times()
  if times is None or not {1, middle, heads} <= set(times):
    return Claim(text, paper, NOT_RUN)
  found = [times[g]['ms_per_sample'] for g in (1, middle, heads)]
  evidence = ', '.join(f'{t["median"]:.3g}' for t in found) + ' ms a sample'
  if all(a['q3'] < b['q1'] for a, b in zip(found, found[1:])):
    return Claim(text, paper, SHOWS, evidence)
  ordered = all(a['median'] < b['median'] for a, b in zip(found, found[1:]))
  verdict = UNDECIDED if ordered else NOT
  return Claim(
    text,
    paper,
    verdict,
    f'{evidence}; their quartiles overlap' if ordered else evidence,
  )


def _little_overhead(run, heads, middle) -> Claim:
  text = f'Going from MQA to GQA-{middle} costs little decoding time'
  paper = 'Figure 6: little overhead from 1 to 8 groups'
  times = run.times()
  if times is None or not {1, middle, heads} <= set(times):
    return Claim(text, paper, NOT_RUN)
  one, mid, mha = (
    times[g]['decode_ms_per_step']['median'] for g in (1, middle, heads)
  )
  if mha <= one:
    return Claim(text, paper, UNDECIDED, 'MHA is not slower than MQA here')
  share = (mid - one) / (mha - one)
  evidence = (
    f'{one:.3g}, {mid:.3g}, {mha:.3g} ms a step: {share:.0%} of the way to MHA'
  )
  return Claim(text, paper, SHOWS if share <= _LITTLE else NOT, evidence)


def _between(run, method, middle) -> Claim:
  text = f'GQA-{middle} scores higher than MQA'
  paper = 'Table 1: 47.1 against 46.6'
  better = run.system(method, middle)
  worse = run.system(method, 1)
  return _by_difference(run, text, paper, better, worse)


def _by_difference(run, text, paper, better, worse) -> Claim:
  """Whether a system's average is above another's, by its interval."""
  if better is None or worse is None:
    return Claim(text, paper, NOT_RUN)
  found = run.difference(better['system'], worse['system'])
  if found is None or 'average' not in found:
    return Claim(text, paper, NOT_RUN)
  verdict, evidence = _sign(found['average'])
  return Claim(text, paper, verdict, f'average differs by {evidence}')


def _sign(difference) -> tuple[str, str]:
  evidence = (
    f'{difference["value"]:+.2f} [{difference["low"]:+.2f}, '
    f'{difference["high"]:+.2f}], n = {difference["n"]}'
  )
  if difference['low'] > 0:
    return SHOWS, evidence
  return (NOT if difference['high'] < 0 else UNDECIDED), evidence


def _gaps(
  run, method, heads, middle
) -> list[tuple[float, float, float]] | None:
  """(alpha, loss gap of MQA, of the middle G) against the MHA control."""
  curves = [
    run.curve(None, heads),
    run.curve(method, 1),
    run.curve(method, middle),
  ]
  if not all(curves) or middle == 1:
    return None
  losses = [{r['alpha']: r['cross_entropy'] for r in c} for c in curves]
  mha, one, mid = losses
  return [(a, one[a] - mha[a], mid[a] - mha[a]) for a in mha]


def _closes_the_gap(run, method, heads, middle) -> Claim:
  text = f'Uptrained GQA-{middle} is close to MHA, MQA is not as close'
  paper = 'Table 1: GQA-8 closes 83 % of the gap from MQA to MHA (derived)'
  gaps = _gaps(run, method, heads, middle)
  if gaps is None:
    return Claim(text, paper, NOT_RUN)
  alpha, one, mid = gaps[-1]
  evidence = (
    f'held-out loss above MHA at alpha {alpha:g}: MQA {one:+.3f}, '
    f'GQA-{middle} {mid:+.3f}'
  )
  if one <= 0:
    return Claim(text, paper, UNDECIDED, f'{evidence}: no gap to close')
  share = 1 - mid / one
  evidence += f', {share:.0%} closed'
  return Claim(text, paper, SHOWS if share >= _MOST else NOT, evidence)


def _uptraining_needed(run, method, heads, middle) -> Claim:
  text = f'Without uptraining GQA-{middle} is nearer to MHA than MQA is'
  paper = 'Figure 5: GQA is reasonable at alpha 0, MQA needs uptraining'
  gaps = _gaps(run, method, heads, middle)
  if gaps is None or gaps[0][0] != 0:
    return Claim(text, paper, NOT_RUN)
  _, one, mid = gaps[0]
  evidence = (
    f'held-out loss above MHA at alpha 0: MQA {one:+.3f}, '
    f'GQA-{middle} {mid:+.3f}'
  )
  return Claim(text, paper, SHOWS if mid < one else NOT, evidence)


def _uptraining_helps(run, method, heads, middle) -> Claim:
  text = f'Uptraining brings both MQA and GQA-{middle} nearer to MHA'
  paper = 'Figure 5: both gain from 5 %'
  gaps = _gaps(run, method, heads, middle)
  if gaps is None or len(gaps) < 2:
    return Claim(text, paper, NOT_RUN)
  (_, one, mid), (alpha, one_after, mid_after) = gaps[0], gaps[-1]
  evidence = (
    f'held-out loss above MHA: MQA {one:+.3f} to {one_after:+.3f}, '
    f'GQA-{middle} {mid:+.3f} to {mid_after:+.3f} at alpha {alpha:g}'
  )
  closer = abs(one_after) < abs(one) and abs(mid_after) < abs(mid)
  return Claim(text, paper, SHOWS if closer else NOT, evidence)


def _method_order_of_loss(run, num_kv_heads: int, at: int) -> Claim:
  curves = [run.curve(m, num_kv_heads) for m in ('mean', 'first', 'random')]
  when = 'right after conversion' if at == 0 else 'after uptraining'
  text = f'Mean beats first beats random at G = {num_kv_heads}, {when} (loss)'
  paper = 'Figure 4: T5-Large to MQA, alpha 0.05'
  if not all(curves) or (at == 0 and curves[0][0]['alpha'] != 0):
    return Claim(text, paper, NOT_RUN)
  mean, first, random = (c[at]['cross_entropy'] for c in curves)
  evidence = (
    f'alpha {curves[0][at]["alpha"]:g}: mean {mean:.3f}, first {first:.3f}, '
    f'random {random:.3f}'
  )
  return Claim(text, paper, SHOWS if mean < first < random else NOT, evidence)


def _method_order_of_scores(run, num_kv_heads: int) -> Claim:
  text = f'Mean beats first beats random at G = {num_kv_heads} (scores)'
  paper = 'Figure 4: T5-Large to MQA, alpha 0.05'
  systems = [run.system(m, num_kv_heads) for m in ('mean', 'first', 'random')]
  parts = [
    _by_difference(run, text, paper, a, b) for a, b in zip(systems, systems[1:])
  ]
  verdicts = {p.verdict for p in parts}
  verdict = next((v for v in (NOT_RUN, NOT, UNDECIDED) if v in verdicts), SHOWS)
  evidence = ''
  if verdict != NOT_RUN:
    evidence = f'mean - first: {parts[0].evidence}; '
    evidence += f'first - random: {parts[1].evidence}'
  return Claim(text, paper, verdict, evidence)


def _beats_lead(run, heads) -> Claim:
  text = 'Multi-head beats the copied first sentence at summarization'
  paper = 'no claim of the paper: a check that fine-tuning was long enough'
  mha = run.system(None, heads)
  found = mha and run.difference(mha['system'], 'lead')
  if not found:
    return Claim(text, paper, NOT_RUN)
  verdict, evidence = _sign(found['rouge1'])
  return Claim(text, paper, verdict, f'ROUGE-1 differs by {evidence}')
