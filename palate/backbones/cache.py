"""Where computed things are kept between runs: vectors by text, language models by the text they were trained on.

Everything here can be computed again, so a damaged file is no error: it is set aside by computing it anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def cache(kind: str) -> Path:
    """The folder of one kind of things: ``$PALATE_CACHE/<kind>``, else ``~/.cache/palate/<kind>``."""
    chosen = os.environ.get("PALATE_CACHE")
    return (Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "palate") / kind


def digest(parts: Iterable[str | bytes]) -> str:
    """A name for content: the hash of its parts and of where each ends."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(content).to_bytes(8, "little"))
        state.update(content)
    return state.hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """A name for what files hold; their own names count, their folders do not."""
    state = hashlib.blake2b(digest_size=16)
    for path in paths:
        state.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                state.update(block)
    return state.hexdigest()
