"""``python -m tabinet.agent --config FILE``: the agent without the rest of the command line (it starts a little faster)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tabinet.agent.main import run
from tabinet.agent.parameters import parse_parameters
from tabinet.errors import TabinetError


def main() -> int:
    """Exit code 0 after a signal; 2 for a bad file, 3 when the surroundings are wrong."""
    parser = argparse.ArgumentParser(prog="python -m tabinet.agent", description="The agent of one host.")
    parser.add_argument("--config", required=True, help="TOML file; see docs/parameters.md")
    path = Path(parser.parse_args().config)
    try:
        return run(parse_parameters(path.read_text(), os.environ, source=str(path)))
    except OSError as error:
        sys.stderr.write(f"error: {path}: {error.strerror}\n")
        return 3
    except TabinetError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
