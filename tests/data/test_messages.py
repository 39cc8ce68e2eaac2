"""Message catalogues, written with polib and read back."""

import polib
import pytest

from gqa_flax.data import messages


@pytest.fixture
def catalogue(tmp_path):
  po = polib.POFile()
  po.metadata = {'Content-Type': 'text/plain; charset=utf-8'}
  po.extend(
    [
      polib.POEntry(msgid='Save the file', msgstr='Datei\n speichern'),
      polib.POEntry(msgctxt='menu', msgid='_Open file', msgstr='Datei ö_ffnen'),
      polib.POEntry(
        msgid='%d file found',
        msgid_plural='%d files found',
        msgstr_plural={0: '%d Datei gefunden', 1: '%d Dateien gefunden'},
      ),
      polib.POEntry(msgid='Not yet done', msgstr=''),
      polib.POEntry(msgid='In doubt', msgstr='Im Zweifel', flags=['fuzzy']),
      polib.POEntry(msgid='Long gone', msgstr='Weg', obsolete=True),
    ]
  )
  po.save(str(tmp_path / 'a.po'))
  po.save_as_mofile(str(tmp_path / 'a.mo'))
  return tmp_path


@pytest.mark.parametrize('name', ['a.po', 'a.mo'])
def test_read_catalogue_text_and_compiled_are_the_same(catalogue, name):
  pairs = messages.read_catalogue(str(catalogue / name))
  assert {p for p in pairs if messages.is_translation(*p)} == {
    ('Save the file', 'Datei speichern'),
    ('Open file', 'Datei öffnen'),
    ('%d file found', '%d Datei gefunden'),
    ('%d files found', '%d Dateien gefunden'),
  }


@pytest.mark.parametrize(
  'english, german',
  [
    ('Save the file', ''),
    ('New York', 'New York'),
    ('label_file_name', 'Dateiname'),
    ('%(name)s %s', '%(name)s: %s'),
    ('Count: {number}', 'Anzahl: {number}'),
    ('<b>%s</b> &nbsp; ${x}', 'ja'),
    ('Yes or no', 'J' * 100),
    ('word ' * 200, 'Wort ' * 200),
  ],
)
def test_is_translation_refuses_what_teaches_nothing(english, german):
  assert not messages.is_translation(english, german)
