"""``tabinet``: the root command, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import sys

import click

from tabinet import __version__
from tabinet.cli import agent, labs, resources, status
from tabinet.cli.output import fail
from tabinet.errors import InputError, SetupError, StoreDenied, StoreUnavailable, TabinetError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tabinet")
@click.option(
    "--config",
    "config",
    metavar="FILE",
    envvar="TABINET_CONFIG",
    help="Configuration file (default: /etc/tabinet/tabinet.toml, or the running lab's).",
)
@click.pass_context
def tabinet(context: click.Context, config: str | None) -> None:
    """Tabinet: every host a router, every workload a route of its own, policy on each host.

    \b
    Begin with:   tabinet lab up          a whole fabric in network namespaces on this machine
                  tabinet lab check       compare what policy says with what packets do
                  tabinet get wep -A      the workloads
                  tabinet apply -f FILE   change policy
    """
    context.obj = config


for _command in (
    resources.apply,
    resources.get,
    resources.delete,
    status.status,
    agent.agent,
    labs.lab,
    labs.demo,
):
    tabinet.add_command(_command)


def main() -> None:
    """Runs the command line and exits."""
    try:
        code = tabinet.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except InputError as error:
        for problem in error.problems:
            fail(str(problem))
        fail(f"{len(error.problems)} problem{'s' if len(error.problems) > 1 else ''}; nothing was changed")
        sys.exit(2)
    except (SetupError, StoreUnavailable, StoreDenied) as error:
        fail(str(error))
        sys.exit(3)
    except TabinetError as error:
        fail(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (``| head``): what it wanted to see, it has seen.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
