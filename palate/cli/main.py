"""``palate``: one app, a file a command. A user's error is one line; exit codes: 0 done, 1 failed, 2 misuse."""

from __future__ import annotations

import os
import sys

import cyclopts

import palate

app = cyclopts.App(
    name="palate",
    help="Train any recommender on the same footing, see with honest statistics which is better, and use it.",
    version=palate.__version__,
)
for command, where in {
    "demo": "palate.cli.demo:demo",
    "systems": "palate.cli.systems:systems",
    "data": "palate.cli.data:app",
    "fit": "palate.cli.fit:fit",
    "evaluate": "palate.cli.evaluate:evaluate",
    "compare": "palate.cli.compare:compare",
    "recommend": "palate.cli.recommend:recommend",
    "bench": "palate.cli.bench:app",
}.items():
    app.command(where, name=command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    # Threads that wait by spinning starve each other on a busy machine: an epoch was seen to take seven times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one command. A ``PalateError`` becomes one line on stderr and 1; misuse 2; anything else is a bug."""
    from palate.core.errors import PalateError

    try:
        app(arguments, exit_on_error=False, print_error=True)
    except cyclopts.CycloptsError:
        return 2
    except PalateError as problem:
        print(f"palate: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("palate: stopped; a fit that was under way goes on with --resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    return 0
