"""Vocabularies: the shipped one, bad files, and training one."""

import pytest
import sentencepiece

from gqa_flax import paths
from gqa_flax.data import vocabularies
from gqa_flax.errors import UserError


def test_mini_vocabulary_has_t5s_layout():
  vocabulary = vocabularies.mini_vocabulary()
  assert vocabulary.vocab_size == 4096
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
  assert vocabulary.tokenizer.bos_id() == -1
  own = sentencepiece.SentencePieceProcessor(
    model_file=str(paths.mini_vocabulary_path())
  )
  assert own.get_piece_size() == 3996  # seqio adds the sentinels
  assert vocabulary.encode('<extra_id_0> <extra_id_99>')[-1] == 3996
  assert 4095 in vocabulary.encode('<extra_id_0>')


@pytest.mark.parametrize(
  'text', ['Größe ändern: Straße, Übung.', 'naïve 漢字 🙂', 'x_1 = {"a": [2]}']
)
def test_mini_vocabulary_loses_no_character(text):
  vocabulary = vocabularies.mini_vocabulary()
  ids = vocabulary.encode(text)
  assert vocabulary.unk_id not in ids
  assert vocabulary.decode(ids) == text


def test_mini_vocabulary_german_letters_are_pieces():
  tokenizer = vocabularies.mini_vocabulary().tokenizer
  for letter in 'äöüßÄÖÜ':
    assert tokenizer.piece_to_id(letter) != tokenizer.unk_id()


def test_load_missing_or_corrupt_file_is_one_line(tmp_path):
  with pytest.raises(UserError, match='No SentencePiece model at .*none'):
    vocabularies.load(tmp_path / 'none')
  corrupt = tmp_path / 'corrupt.model'
  corrupt.write_bytes(paths.mini_vocabulary_path().read_bytes()[:1000])
  with pytest.raises(UserError, match='is not a SentencePiece model'):
    vocabularies.load(corrupt)


def test_check_vocabulary_names_both_sizes():
  vocabulary = vocabularies.mini_vocabulary()
  vocabularies.check_vocabulary(vocabulary, 4096)
  vocabularies.check_vocabulary(vocabulary, 4200)  # padded, as T5's 32,128
  for size in (4095, 4224, 32128):
    with pytest.raises(UserError, match=f'4096 ids.*{size}'):
      vocabularies.check_vocabulary(vocabulary, size)


def test_train_is_deterministic(tiny_corpus, tmp_path, monkeypatch):
  monkeypatch.setattr(vocabularies, 'MINI_VOCAB_SIZE', 900)
  monkeypatch.setattr(vocabularies, '_ENGLISH_CHARACTERS', 100_000)
  first = vocabularies.train_mini_vocabulary(tmp_path / 'a.model', 'small')
  again = vocabularies.train_mini_vocabulary(tmp_path / 'b.model', 'small')
  assert first.read_bytes() == again.read_bytes()
  vocabulary = vocabularies.load(first)
  assert vocabulary.vocab_size == 900
  assert vocabulary.decode(vocabulary.encode('Größe')) == 'Größe'
