"""Records of a run that never was, to try tables, plots and claims on."""

from gqa_flax.study import record

HEADS = 8


def spread(median):
  return {
    'median': median,
    'q1': 0.98 * median,
    'q3': 1.03 * median,
    'n': 5,
  }


def a_record(kind, name, result, **params):
  return {
    'format': 1,
    'stage': name,
    'kind': kind,
    'what': kind,
    'key': 'k',
    'preset': 'default',
    'inputs': {
      'params': params,
      'needs': [],
      'corpus': 'c0',
      'checkpoint': 'a1',
      'step': 100,
      'num_heads': HEADS,
      'parameters': 7_700_000,
    },
    'result': result,
    'headline': f'{kind} <done>',
    'outputs': [],
    'seconds': 12.5,
    'attempts': 1,
    'peak_memory_bytes': 2 * 10**9,
    'device': {
      'platform': 'cpu',
      'name': 'Testing CPU',
      'devices': 1,
      'cores': 2,
      'system': 'Linux x86_64',
    },
    'versions': {'jax': '1.2.3'},
    'finished': '2026-01-02 03:04',
  }


def time_record(ms=((8, 4.0), (2, 2.2), (1, 2.0))):
  shape = {
    'batch_size': 16,
    'input_length': 512,
    'output_length': 64,
    'encode_batch_size': None,
    'models': {
      str(g): {
        'encode_ms_per_sample': spread(1.0),
        'decode_ms_per_sample': spread(x),
        'ms_per_sample': spread(x + 1),
        'decode_ms_per_step': spread(x / 4),
      }
      for g, x in ms
    },
  }
  return a_record('time', 'time', {'shapes': [shape]})


def uptrain_record(method, g, losses, alphas=(0.0, 0.05)):
  curve = [
    {
      'alpha': a,
      'step': 100 + round(100 * a),
      'cross_entropy': x,
      'standard_error': 0.01,
      'accuracy': 0.5,
      'tokens': 1000.0,
    }
    for a, x in zip(alphas, losses)
  ]
  result = {
    'method': method,
    'num_kv_heads': g,
    'initial_step': 100,
    'curve': curve,
    'seconds_per_step': 0.6,
  }
  return a_record('uptrain', f'uptrain-{method}-{g}', result)


def interval(value, half=0.5, n=500):
  return {'value': value, 'low': value - half, 'high': value + half, 'n': n}


def metrics(value, half=0.5):
  names = ('average', 'rouge1', 'rouge2', 'rougeLsum', 'bleu', 'f1', 'em')
  return {name: interval(value, half) for name in names}


def compare_record(scores, differences, alpha=0.05):
  """scores: (method, G) -> value; differences: (name, name) -> (value, half)."""
  systems = [
    {
      'system': f'{method or "mha"}-{g}',
      'method': method,
      'num_kv_heads': g,
      'alpha': alpha,
      'seeds': [0],
      'by_seed': [value],
      'metrics': metrics(value),
    }
    for (method, g), value in scores.items()
  ]
  result = {
    'resamples': 1000,
    'confidence': 0.95,
    'bleu_signature': 'nrefs:1|tok:intl',
    'lead': {m: interval(20.0) for m in ('rouge1', 'rouge2', 'rougeLsum')},
    'systems': systems,
    'differences': [
      {'system': a, 'reference': b, 'metrics': metrics(*found)}
      for (a, b), found in differences.items()
    ],
  }
  return a_record('compare', 'compare', result)


def complete_run() -> record.Run:
  """Every figure and every claim can be made of it."""
  losses = {
    (None, 8): (2.40, 2.38),
    ('mean', 2): (5.2, 2.5),
    ('mean', 1): (5.9, 2.7),
    ('first', 2): (5.0, 2.6),
    ('first', 1): (5.6, 2.8),
    ('random', 2): (7.0, 2.9),
    ('random', 1): (7.5, 3.0),
  }
  scores = {key: 30.0 - value[-1] for key, value in losses.items()}
  differences = {
    ('mean-2', 'mha-8'): (-0.1, 0.4),
    ('mean-1', 'mha-8'): (-0.9, 0.4),
    ('mean-2', 'mean-1'): (0.8, 0.3),
    ('mean-1', 'first-1'): (0.5, 0.2),
    ('first-1', 'random-1'): (0.1, 0.3),
    ('mha-8', 'lead'): (5.0, 1.0),
  }
  return record.Run(
    'default',
    (
      time_record(),
      *(uptrain_record(m, g, x) for (m, g), x in losses.items()),
      a_record(
        'finetune', 'finetune-mha', {'steps': 300, 'seed': 0, 'method': None}
      ),
      compare_record(scores, differences),
    ),
  )


def timed_only() -> record.Run:
  return record.Run('quick', (time_record(),))
