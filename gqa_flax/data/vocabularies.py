"""SentencePiece vocabularies: loading, the mini model's, and its training.

T5's layout: 0 pad, 1 end of sequence, 2 unknown, no beginning of sequence;
100 sentinels at the top, <extra_id_0> the last id, counting down. The
normalisation is T5's too (nmt_nfkc), which turns line breaks into spaces.
"""

from collections.abc import Iterator
import functools
import os
import pathlib

import seqio

from gqa_flax import paths
from gqa_flax.data import corpus
from gqa_flax.data import examples
from gqa_flax.errors import UserError

NUM_SENTINELS = 100
MINI_VOCAB_SIZE = 4096  # pieces and sentinels

# Characters that must be pieces of their own, whatever their frequency.
_GERMAN_LETTERS = 'äöüßÄÖÜ'
_ENGLISH_CHARACTERS = 12_000_000
_GERMAN_REPEATS = 3  # all of it is 0.7 million characters


def load(
  path: str | os.PathLike, num_sentinels: int = NUM_SENTINELS
) -> seqio.SentencePieceVocabulary:
  """The vocabulary of a SentencePiece model file.

  Args:
    path: local path, or gs:// (read by tf.io.gfile).
    num_sentinels: ids added above the file's pieces.

  Raises:
    UserError: if there is no such file, or it is no SentencePiece model.
  """
  path = os.fspath(path)
  local = '://' not in path
  if local and not pathlib.Path(path).is_file():
    raise UserError(f'No SentencePiece model at {path}.')
  vocabulary = seqio.SentencePieceVocabulary(path, extra_ids=num_sentinels)
  try:
    vocabulary.vocab_size  # reads the file
  except Exception as error:  # what is raised depends on the library's version
    raise UserError(f'{path} is not a SentencePiece model: {error}') from error
  return vocabulary


@functools.cache
def mini_vocabulary() -> seqio.SentencePieceVocabulary:
  """The shipped checkpoint's vocabulary: 4,096 ids."""
  return load(paths.mini_vocabulary_path())


def check_vocabulary(vocabulary: seqio.Vocabulary, vocab_size: int):
  """Raises UserError if a vocabulary does not fit a model's embedding.

  Args:
    vocabulary: what turns text into ids.
    vocab_size: rows of the model's embedding. It may exceed the vocabulary's
      size by less than 128 (T5 pads 32,100 to 32,128), but never fall short.
  """
  size = vocabulary.vocab_size
  if not size <= vocab_size < size + 128:
    raise UserError(
      f'The vocabulary has {size} ids, but the model has {vocab_size}: use '
      'the vocabulary that the checkpoint was trained with.'
    )


def train_mini_vocabulary(
  path: str | os.PathLike | None = None, subset: str = 'full'
) -> pathlib.Path:
  """Trains the mini vocabulary on the corpus's training split.

  Unigram, with byte fallback, on a fixed sample of the documents (about 12
  million characters) and, three times, all German messages. One thread, so
  that the same corpus gives the same file. Takes a minute or two. (The
  shipped file is older than the corpus's builder version 2, which took 12
  messages out of training: trained again, 12 of its 3,996 pieces differ.)

  Args:
    path: where to write the model; default the package's own.
    subset: of the corpus.
  """
  import sentencepiece

  path = pathlib.Path(path or paths.mini_vocabulary_path())
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('wb') as f:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=_training_text(subset),
      model_writer=f,
      model_type='unigram',
      vocab_size=MINI_VOCAB_SIZE - NUM_SENTINELS,
      byte_fallback=True,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      pad_piece='<pad>',
      eos_piece='</s>',
      unk_piece='<unk>',
      required_chars=_GERMAN_LETTERS,
      character_coverage=0.9995,
      split_digits=True,
      normalization_rule_name='nmt_nfkc',
      max_sentence_length=1_000_000,
      num_threads=1,
      input_sentence_size=0,
      minloglevel=1,
    )
  return path


def _training_text(subset: str) -> Iterator[str]:
  """Paragraphs of the sampled documents, then the German messages."""
  folder = corpus.build(subset)
  budget = _ENGLISH_CHARACTERS
  for record in corpus.read(folder, 'documents', 'train'):
    if budget <= 0:
      break
    budget -= len(record['text'])
    yield from (
      ' '.join(p.split()) for p in examples.paragraphs(record['text'])
    )
  german = [r['de'] for r in corpus.read(folder, 'translation', 'train')]
  yield from german * _GERMAN_REPEATS
