"""``tabinet``: the root command, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tabinet import __version__
from tabinet.cli.place import STORE_OPTIONS
from tabinet.cli.roster import Roster

if TYPE_CHECKING:
    from tabinet.errors import TabinetError


@click.command(cls=Roster, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tabinet")
@STORE_OPTIONS
def tabinet() -> None:
    """Tabinet: every host a router, every workload a route of its own, policy on each host.

    \b
    Begin with:   tabinet lab up          a whole fabric in network namespaces on this machine
                  tabinet lab check       compare what policy says with what packets do
                  tabinet get wep -A      the workloads
                  tabinet apply -f FILE   change policy
    """


def main() -> None:
    """Runs the command line and exits."""
    code = run(sys.argv[1:])
    code = _flush(code)
    # Python's own end takes modules and gRPC apart, a sixth of the time of a `tabinet get`. Nothing of ours is left to be done there:
    # commands close their stores, stop their programs and join their threads before they return.
    os._exit(code)


def _flush(code: int) -> int:
    """What was written is out; the exit code, which is another one when it could not be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            # The reader of our output went away (``| head``): what it wanted to see, it has seen.
            continue
        except OSError as error:
            os.write(2, f"error: the output could not be written: {error.strerror}\n".encode())
            code = code or 3
    return code


def run(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit code. Every error of ours and every wrong usage has been told on standard error."""
    try:
        code = tabinet.main(list(arguments), prog_name="tabinet", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except BrokenPipeError:
        return 0  # see _flush
    except OSError as error:
        from tabinet.cli.output import fail

        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 3
    except _our_errors() as error:
        return explain(error)
    return code if isinstance(code, int) else 0


def _our_errors() -> type[TabinetError]:
    """The root of our errors. Looked up only when something was raised: importing it costs ``--help`` a tenth of its time."""
    from tabinet.errors import TabinetError

    return TabinetError


def explain(error: TabinetError) -> int:
    """Says what went wrong on standard error; returns the exit code."""
    from tabinet.cli.output import fail
    from tabinet.errors import InputError, SetupError, StoreDenied, StoreUnavailable

    match error:
        case InputError(problems=problems):
            for problem in problems:
                fail(str(problem))
            fail(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}; nothing was changed")
            return 2
        case SetupError() | StoreUnavailable() | StoreDenied():
            fail(str(error))
            return 3
        case _:
            fail(str(error))
            return 1


if __name__ == "__main__":
    main()
