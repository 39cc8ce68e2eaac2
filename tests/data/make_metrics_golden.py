"""Writes metrics_golden.json with the `t5` package (0.9.4).

pip install --no-deps t5 Babel
python tests/data/make_metrics_golden.py
"""

import json
import pathlib

import t5.evaluation.metrics
import t5.evaluation.qa_utils

# Answers, prediction.
_ANSWERS = [
  (['The array to sum.'], 'array to sum'),
  (['The array to sum.'], 'the sum of an array'),
  (['a list', 'A list of ints, in order.'], 'list of ints'),
  (['x_1 or y-2'], 'x 1 or y 2'),
  (['Größe des Feldes'], 'größe DES feldes!'),
  (['‘quoted’ “text”'], 'quoted text'),
  (['something'], ''),
  (['The'], 'the'),
  (['no common word'], 'entirely different'),
  (['to be or not to be'], 'to to be'),
]
_BLEU = [
  (['Die Datei wurde gelöscht.'], ['Die Datei wurde gelöscht.']),
  (
    ['Die Datei wurde gelöscht.', 'Ungültiges Datum: „%s“', 'Name'],
    ['Die Datei ist gelöscht worden.', 'Ungültige Zeit: „%s“', 'Der Name'],
  ),
  (['Wählen Sie bitte die Größe aus.'], ['']),
]


def main():
  answers = []
  for accepted, prediction in _ANSWERS:
    scores = t5.evaluation.metrics.trivia_qa([accepted], [prediction])
    answers.append(
      {
        'answers': accepted,
        'prediction': prediction,
        'em': float(scores['em']),
        'f1': float(scores['f1']),
      }
    )
  mean = t5.evaluation.metrics.trivia_qa(*map(list, zip(*_ANSWERS)))
  bleu = [
    {
      'targets': targets,
      'predictions': predictions,
      'bleu': t5.evaluation.metrics.bleu(targets, predictions)['bleu'],
    }
    for targets, predictions in _BLEU
  ]
  golden = {
    'answers': answers,
    'answers_mean': {k: float(v) for k, v in mean.items()},
    'bleu': bleu,
  }
  path = pathlib.Path(__file__).with_name('metrics_golden.json')
  path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + '\n')


if __name__ == '__main__':
  main()
