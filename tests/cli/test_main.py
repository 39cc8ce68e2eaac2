import errno
import os
import subprocess
import sys

import pytest

import gqa_flax
from gqa_flax.cli import arguments
from gqa_flax.cli import main
from gqa_flax.cli import terminal
from gqa_flax.errors import UserError


@pytest.fixture
def command(monkeypatch):
  """Registers a command `try` that calls what the test sets."""

  class Command:
    run = staticmethod(lambda args: 0)

    @staticmethod
    def add_parser(subparsers):
      parser = subparsers.add_parser('try')
      parser.add_argument('--number', type=int)
      arguments.add_gin(parser)
      parser.set_defaults(run=lambda args: Command.run(args))

  monkeypatch.setitem(sys.modules, 'gqa_flax.cli.try', Command)
  monkeypatch.setattr(main, 'COMMANDS', ('try', 'inspect'))
  return Command


def raising(error):
  def run(args):
    raise error

  return staticmethod(run)


def test_importing_main_imports_nothing_heavy():
  code = (
    'import sys; from gqa_flax.cli import main; main.build_parser();'
    " heavy = {'jax', 'flax', 'numpy', 'orbax', 'tensorflow', 'seqio', 'gin'};"
    ' print(sorted(heavy & set(sys.modules)))'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True)
  assert done.stdout == b'[]\n', done.stderr


def test_exit_code_is_the_commands(command):
  assert main.main(['try']) == 0
  command.run = staticmethod(lambda args: 2)
  assert main.main(['try']) == 2


def test_user_error_is_one_line_and_code_2(command, capsys):
  command.run = raising(UserError('a (1) must be\nb (2).'))
  assert main.main(['try']) == 2
  assert capsys.readouterr().err == 'gqa-flax: error: a (1) must be b (2).\n'


@pytest.mark.parametrize(
  'code', ['ENOSPC', 'EDQUOT', 'EFBIG', 'EACCES', 'EROFS']
)
def test_disk_error_is_one_line_and_code_2(command, capsys, code):
  number = getattr(errno, code)
  command.run = raising(OSError(number, os.strerror(number), '/some/file'))
  assert main.main(['try']) == 2
  assert capsys.readouterr().err == (
    f'gqa-flax: error: /some/file: {os.strerror(number)}.\n'
  )


@pytest.mark.parametrize('error', [ValueError('x'), OSError(errno.EBADF, 'x')])
def test_bug_shows_its_traceback(command, error):
  command.run = raising(error)
  with pytest.raises(type(error)):
    main.main(['try'])


def test_interrupt_is_code_130(command, capsys):
  command.run = raising(KeyboardInterrupt())
  assert main.main(['try']) == 130
  assert capsys.readouterr().err == 'gqa-flax: interrupted\n'


@pytest.mark.parametrize(
  'argv, words',
  [
    ([], 'required'),
    (['nothing'], 'invalid choice'),
    (['try', '--unknown=1'], 'unrecognized arguments: --unknown=1'),
    (['try', '--num=1'], 'unrecognized arguments: --num=1'),
    (['try', '--number=x'], "invalid int value: 'x'"),
    (['try', '--gin.x'], 'expected --gin.NAME=VALUE, got --gin.x'),
    (['inspect', 'p', '--gin.x=1'], 'this command takes no gin bindings'),
  ],
)
def test_bad_command_line_is_one_line_and_code_2(command, capsys, argv, words):
  with pytest.raises(SystemExit) as stopped:
    main.main(argv)
  assert stopped.value.code == 2
  err = capsys.readouterr().err
  assert err.startswith('gqa-flax: error: ')
  assert words in err
  assert err.count('\n') == 1


def test_gin_flags_arrive_in_order(command):
  seen = []
  command.run = staticmethod(lambda args: seen.append(args))
  argv = ['try', '--gin_file=a.gin', "--gin.X='a=b c'", '--gin_file=b.gin']
  main.main([*argv, '--number=3', '--gin.train.STEPS=5'])
  assert seen[0].gin_file == ['a.gin', 'b.gin']
  assert seen[0].gin_bindings == ["X='a=b c'", 'train.STEPS=5']
  assert seen[0].number == 3


def test_gin_flags_do_not_leak_into_the_next_command_line(command):
  seen = []
  command.run = staticmethod(lambda args: seen.append(args))
  main.main(['try', '--gin_file=a.gin', '--gin.x=1'])
  main.main(['try'])
  assert (seen[1].gin_file, seen[1].gin_bindings) == ([], [])


def test_version(capsys):
  with pytest.raises(SystemExit) as stopped:
    main.main(['--version'])
  assert stopped.value.code == 0
  assert capsys.readouterr().out == f'gqa-flax {gqa_flax.__version__}\n'


@pytest.mark.parametrize('name', main.COMMANDS)
def test_every_command_has_help(capsys, name):
  with pytest.raises(SystemExit) as stopped:
    main.main([name, '--help'])
  assert stopped.value.code == 0
  assert 'usage: gqa-flax' in capsys.readouterr().out


@pytest.mark.parametrize(
  'nbytes, text',
  [(999, '999 B'), (1200, '1.2 kB'), (11.4e9, '11.4 GB'), (2e12, '2.0 TB')],
)
def test_size(nbytes, text):
  assert terminal.size(nbytes) == text
