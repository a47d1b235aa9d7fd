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
    "names": "palate.cli.names:names",
    "doubts": "palate.cli.doubts:doubts",
    "serve": "palate.cli.serve:serve",
    "curve": "palate.cli.curve:curve",
    "annotate": "palate.cli.annotate:annotate",
    "bench": "palate.cli.bench:app",
}.items():
    app.command(where, name=command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    # Threads that wait by spinning starve each other on a busy machine: an epoch was seen to take seven times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one command. A user's mistake becomes one line on stderr: misuse 2, else 1; anything else is a bug."""
    from palate.core.errors import MisuseError, PalateError

    try:
        app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as problem:
        return _fail(str(problem).splitlines()[0], 2)
    except MisuseError as problem:
        return _fail(str(problem), 2)
    except (PalateError, OSError) as problem:
        return _fail(str(problem), 1)
    except KeyboardInterrupt:
        return _fail("stopped; a fit that was under way goes on with --resume", 130)
    return 0


def _fail(said: str, code: int) -> int:
    print(f"palate: {said}", file=sys.stderr)
    return code
