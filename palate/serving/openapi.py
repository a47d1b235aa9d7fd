"""What the API looks like, without a run: ``python -m palate.serving.openapi FILE`` writes it for the web app."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from palate.serving.app import make_app
from palate.serving.auth import Tokens
from palate.serving.served import Limits
from palate.serving.service import Service


def description() -> dict[str, Any]:
    """The OpenAPI 3.1 document. Routes are only described here, so nobody has to be there to answer."""
    return make_app(cast(Service, SimpleNamespace(limits=Limits())), Tokens()).openapi()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(description(), indent=1) + "\n", encoding="utf-8")
