"""What command lines share: exit statuses, one line for a user's mistake, a word when stopped.

Exit status: 0; 2 for a user's mistake, with one line that names the file and the cure; 130 or 143
when stopped by Ctrl-C or SIGTERM.
"""

import os
import signal
import sys
from contextlib import contextmanager

import typer

from cmrseg.data import BadInput
from cmrseg.machine import trouble


class Terminated(BaseException):
    """SIGTERM; not a KeyboardInterrupt, of which typer makes an exit of its own."""


@contextmanager
def hint(message):
    """Say what to do next, which ``message`` returns, when the work inside is stopped."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        print(message(), file=sys.stderr)
        raise


def run(app: typer.Typer) -> None:
    """Run a command line; a user's mistake is one line and status 2, never a traceback."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    # Threads that wait should soon sleep: spinning, they take the cores that other programs need.
    # But not at once: that makes a small training twice as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name need not be text, nor the terminal know it
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except Terminated:
        sys.exit(143)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as problem:
        if (message := _in_words(problem)) is None:
            raise
        print("error: " + " ".join(message.split()), file=sys.stderr)
        sys.exit(2)


def _on_sigterm(*_) -> None:
    raise Terminated


def _in_words(problem: Exception) -> str | None:
    """What to say of a user's mistake, or of too small a machine; None for a mistake of ours."""
    if isinstance(problem, (BadInput, FloatingPointError)):
        return str(problem)
    if lacks := trouble(problem):
        return ". ".join(lacks)
    if isinstance(problem, OSError):
        place = problem.filename or "output"
        return f"{place}: {problem.strerror}. Check the path, its permissions and the space left"
    if hasattr(problem, "format_message"):  # of the command line's parser
        return f"{problem.format_message().rstrip('.?')}. See --help"
    return None
