"""Stages that choose, decode, score and compare."""

import itertools
import json
import pathlib

import numpy as np

from gqa_flax.data import corpus as corpus_lib
from gqa_flax.data import metrics
from gqa_flax.data import summarization
from gqa_flax.study import bootstrap
from gqa_flax.study import comparison
from gqa_flax.study import experiments
from gqa_flax.study.job import Done
from gqa_flax.study.job import Job
from gqa_flax.training import models
from gqa_flax.training import prediction


def corpus(job: Job) -> Done:
  """What the corpus holds. It was built, if need be, to plan the stages."""
  found = corpus_lib.statistics(job.params['subset'])
  dev = {
    task: n['validation']['examples'] for task, n in found['counts'].items()
  }
  characters = sum(n['train']['characters'] for n in found['counts'].values())
  result = {
    'subset': job.params['subset'],
    'content_hash': found['content_hash'],
    'counts': found['counts'],
    'distributions': found.get('distributions'),
    'python': found.get('python'),
  }
  told = ', '.join(f'{n} {task}' for task, n in dev.items())
  return Done(
    result,
    f'{characters / 1e6:.1f} M characters to train on; dev: {told}',
    extra_seconds=job.facts.corpus_seconds,
  )


def lead(job: Job) -> Done:
  """Scores the copied first sentence, a line an example as `evaluate`."""
  folder = corpus_lib.build(job.params['subset'])
  dev = corpus_lib.read(folder, 'summarization', 'validation')
  dev = list(itertools.islice(dev, job.params['examples']))
  found = summarization.score_lead_baseline(dev)
  lines = [
    {
      'task': experiments.SUMMARIZATION.name,
      'index': i,
      'inputs': record['inputs'],
      'references': record['targets'],
      'prediction': found['predictions'][i],
      'scores': {m: s[i] for m, s in found['per_example'].items()},
    }
    for i, record in enumerate(dev)
  ]
  job.folder.mkdir(parents=True, exist_ok=True)
  path = job.folder / 'predictions.jsonl'
  temporary = path.with_suffix('.tmp')
  with temporary.open('w', encoding='utf-8') as f:
    for line in lines:
      f.write(json.dumps(line, ensure_ascii=False) + '\n')
  temporary.replace(path)
  return Done(
    {'examples': len(dev), 'scores': found['scores']},
    f'ROUGE-1 {found["scores"]["rouge1"]:.2f} on {len(dev)} examples',
    (f'{job.stage.folder}/predictions.jsonl',),
  )


def select(job: Job) -> Done:
  """The checkpoint with the best mean of the three main metrics."""
  (source,) = job.needed('finetune')
  steps = job.needs[source]['result']['checkpoints']
  candidates = [
    job.partial(f'{step}', lambda step=step: _candidate(job, source, step))
    for step in steps
  ]
  # Of equals the earliest.
  best = max(candidates, key=lambda c: (c['score'], -c['step']))
  result = {**_identity(job), 'candidates': candidates, 'step': best['step']}
  return Done(
    result,
    f'step {best["step"]}, average {best["score"]:.2f}, of '
    + ', '.join(f'{c["step"]}: {c["score"]:.2f}' for c in candidates),
  )


def _candidate(job: Job, source: str, step: int) -> dict:
  scores = {}
  for task in experiments.TASKS:
    scores |= _score(job, source, step, task, None)
  main = float(np.mean([scores[task.main] for task in experiments.TASKS]))
  return {'step': step, 'score': main, 'scores': scores}


def evaluate(job: Job) -> Done:
  """Greedy predictions and scores of the chosen checkpoint."""
  (source,) = job.needed('finetune')
  (selection,) = job.needed('select')
  step = job.needs[selection]['result']['step']
  scores, outputs = {}, []
  for task in experiments.TASKS:
    path = _predictions(job.folder, task)
    scores[task.name] = job.partial(
      task.name,
      lambda task=task, path=path: _score(job, source, step, task, path),
    )
    outputs.append(f'{job.stage.folder}/{path.name}')
  told = ', '.join(
    f'{experiments.METRIC_LABELS[t.main]} {scores[t.name][t.main]:.2f}'
    for t in experiments.TASKS
  )
  return Done(
    {**_identity(job), 'step': step, 'scores': scores}, told, tuple(outputs)
  )


def _identity(job: Job) -> dict:
  names = ('system', 'method', 'num_kv_heads', 'alpha', 'seed')
  return {name: job.params[name] for name in names}


def _predictions(folder: pathlib.Path, task: experiments.Task) -> pathlib.Path:
  return folder / f'{task.name}.jsonl'


def _score(job: Job, source: str, step: int, task, path) -> dict[str, float]:
  checkpoint = job.folder_of(source) / f'checkpoint_{step}'
  model = models.from_checkpoint(checkpoint)
  return prediction.evaluate_task(
    model,
    models.restore_params(model, checkpoint),
    task.name + job.params['suffix'],
    sequence_length={
      'inputs': job.params['inputs'],
      'targets': job.params['targets'],
    },
    batch_size=job.params['batch_size'],
    max_examples=job.params['examples'],
    predictions_path=path,
  )


def compare(job: Job) -> Done:
  """Intervals of every system, and of the differences the claims rest on."""
  systems, estimates = _estimates(job)
  lead_estimates = _lead_estimates(job)
  result = {
    'resamples': job.params['resamples'],
    'confidence': bootstrap.CONFIDENCE,
    'bleu_signature': metrics.bleu_signatures()['bleu'],
    'lead': {m: e.record() for m, e in lead_estimates.items()},
    'systems': [
      {
        **system,
        'metrics': {m: e.record() for m, e in estimates[name].items()},
      }
      for name, system in systems.items()
    ],
    'differences': [
      {
        'system': of,
        'reference': reference,
        'metrics': comparison.differences(estimates[of], estimates[reference]),
      }
      for of, reference in _pairs(systems)
    ]
    + [
      {
        'system': name,
        'reference': 'lead',
        'metrics': comparison.differences(estimates[name], lead_estimates),
      }
      for name in systems
    ],
  }
  return Done(result, f'{len(systems)} systems')


def _estimates(job: Job):
  """({name: system}, {name: {metric: Estimate}}), runs of all seeds joined."""
  systems, predictions = {}, {}
  for stage in job.needed('evaluate'):
    found = job.needs[stage]['result']
    name = found['system']
    system = systems.setdefault(
      name,
      {
        'system': name,
        **{k: found[k] for k in ('method', 'num_kv_heads', 'alpha')},
        'seeds': [],
        'by_seed': [],
      },
    )
    mains = [found['scores'][t.name][t.main] for t in experiments.TASKS]
    system['seeds'].append(found['seed'])
    system['by_seed'].append(float(np.mean(mains)))
    for task in experiments.TASKS:
      lines = comparison.read_predictions(
        _predictions(job.folder_of(stage), task)
      )
      runs = predictions.setdefault(name, {}).setdefault(task.name, [])
      runs.append(lines)
  _check_all_alike(job, predictions)
  count = job.params['resamples']
  return systems, {
    name: comparison.estimates(p, count) for name, p in predictions.items()
  }


def _lead_lines(job: Job) -> comparison.Lines:
  (lead_stage,) = job.needed('lead')
  return comparison.read_predictions(
    job.folder_of(lead_stage) / 'predictions.jsonl'
  )


def _lead_estimates(job: Job) -> dict[str, bootstrap.Estimate]:
  return comparison.estimates(
    {experiments.SUMMARIZATION.name: [_lead_lines(job)]},
    job.params['resamples'],
  )


def _check_all_alike(job: Job, predictions):
  for task in experiments.TASKS:
    runs = [run for p in predictions.values() for run in p[task.name]]
    if task is experiments.SUMMARIZATION:
      runs.append(_lead_lines(job))
    comparison.check_same_examples(task.name, runs)


def _pairs(systems) -> list[tuple[str, str]]:
  """(system, reference): against multi-head, fewer heads, another method.

  Always at the same alpha; and the same variant without uptraining.
  """
  pairs = []
  for name, s in systems.items():
    for other, r in systems.items():
      same_alpha = s['alpha'] == r['alpha']
      same_method = s['method'] == r['method']
      same_heads = s['num_kv_heads'] == r['num_kv_heads']
      control = r['method'] is None and s['method'] is not None
      fewer = same_method and r['num_kv_heads'] < s['num_kv_heads']
      method = same_heads and _rank(s['method']) < _rank(r['method'])
      uptrained = same_method and same_heads and r['alpha'] < s['alpha']
      if uptrained or (same_alpha and (control or fewer or method)):
        pairs.append((name, other))
  return pairs


def _rank(method: str | None) -> int:
  """Mean before first before random, the paper's order."""
  return -1 if method is None else experiments.METHODS.index(method)
