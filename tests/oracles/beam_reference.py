"""Beam search in plain numpy: the rule of T5X's t5x/decoding.py.

One sequence at a time, full passes instead of a cache, lists instead of
arrays: slow, and simple enough to read against the original.
"""

from collections.abc import Callable
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Beams:
  """What a search found for one source.

  Attributes:
    tokens: beams, best first; each a list of ids, end-of-sequence included if
      it was reached.
    scores: log-probability over the length penalty, best first.
    steps: number of decoder passes.
  """

  tokens: list[list[int]]
  scores: list[float]
  steps: int


def length_penalty(alpha: float, length: int) -> float:
  """((5 + length) / 6) ** alpha, of T5X's `brevity_penalty`."""
  return ((5.0 + length) / 6.0) ** alpha


def beam_search(
  next_logits: Callable[[list[list[int]]], np.ndarray],
  *,
  num_beams: int,
  max_length: int,
  eos_id: int = 1,
  alpha: float = 0.6,
  end_among: int | None = None,
) -> Beams:
  """Searches one source.

  Args:
    next_logits: prefixes, all of one length -> [prefixes, vocab] logits of the
      next token.
    num_beams: beams kept, K.
    max_length: tokens decoded at most.
    eos_id: end of sequence.
    alpha: exponent of the length penalty.
    end_among: how many of the best candidates may end a beam: 2 K (None) is
      T5X's rule, K transformers'.
  """
  live = [(0.0, [])]  # log-probability, prefix; best first
  finished = []  # score, tokens; best first
  step = 0
  while step < max_length and not _hopeless(
    live, finished, num_beams, length_penalty(alpha, max_length + 1)
  ):
    log_probs = _log_softmax(next_logits([prefix for _, prefix in live]))
    step += 1
    totals = np.array([score for score, _ in live])[:, None] + log_probs
    best = [
      (totals[i, token], live[i][1] + [int(token)])
      for i, token in _largest(totals, 2 * num_beams)
    ]
    ended = [c for c in best[:end_among] if c[1][-1] == eos_id]
    live = [c for c in best if c[1][-1] != eos_id][:num_beams]
    finished += [(s / length_penalty(alpha, step), t) for s, t in ended]
    finished = sorted(finished, key=lambda c: -c[0])[:num_beams]
  result = finished or live
  return Beams([t for _, t in result], [float(s) for s, _ in result], step)


def _hopeless(live, finished, num_beams: int, max_penalty: float) -> bool:
  """Whether no live beam can still beat the worst of the K finished ones."""
  if len(finished) < num_beams:
    return False
  return finished[-1][0] > live[0][0] / max_penalty


def _largest(x: np.ndarray, count: int) -> list[tuple[int, int]]:
  """Row and column of the largest entries, the largest first."""
  flat = np.argsort(-x, axis=None, kind='stable')[:count]
  return list(zip(*np.unravel_index(flat, x.shape)))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
  logits = np.asarray(logits, np.float64)
  shifted = logits - logits.max(axis=-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
