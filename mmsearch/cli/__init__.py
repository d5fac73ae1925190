"""The command line: the only code that prints, and the place where errors become exit codes.

Starting up is most of the time of a search, so this module imports next to nothing and every command imports what
it needs inside its function.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main", "run"]

INTERRUPTED = 130
BROKEN_PIPE = 141


def main() -> NoReturn:
    """The console script: run the command of ``sys.argv`` and end the process with its exit code."""
    gc.disable()  # imports make many objects and no garbage; commands that run longer switch it on again
    code = run(sys.argv[1:])
    # Nothing is left to do but to free memory piece by piece, which the operating system does faster.
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command, print what a user did wrong in one line, and return the exit code.

    A bug is not a user's mistake: its exception passes through, with its traceback.
    """
    from mmsearch.errors import MmsearchError

    try:
        from mmsearch.cli.app import app

        try:
            app(list(arguments), prog_name="mmsearch")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        sys.stderr.flush()
    except MmsearchError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted; what was committed is kept", INTERRUPTED)
    except BrokenPipeError:
        return BROKEN_PIPE  # the reader of our output has seen enough
    except OSError as error:
        return _complain(_disk_trouble(error), 4)
    return code


def _complain(message: str, code: int) -> int:
    from mmsearch.cli.text import safe

    with contextlib.suppress(OSError):  # the disk or pipe behind it may be what we complain about
        sys.stdout.flush()
    sys.stderr.write(f"mmsearch: {safe(message, keep_lines=True)}\n")
    sys.stderr.flush()
    return code


def _disk_trouble(error: OSError) -> str:
    """What to tell about an error of a disk; any other OSError is a bug and raised again."""
    import errno

    advice = {
        errno.ENOSPC: "free some space and run it again",
        errno.EDQUOT: "free some space and run it again",
        errno.EFBIG: "files may not grow that big here; write elsewhere",
        errno.EROFS: "write elsewhere",
        errno.EACCES: "change its rights, or run as the user that owns it",
        errno.EPERM: "change its rights, or run as the user that owns it",
        errno.EIO: "the disk does not answer as it should; check it",
    }
    if error.errno not in advice:
        raise error
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}: {advice[error.errno]}"
