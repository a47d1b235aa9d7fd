"""Tokens: who may read, who may write. Kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, get_args

from palate.core.errors import ConfigError, MisuseError

Scope = Literal["read", "write"]
"""What a token allows; ``write`` allows reading too."""

SHORTEST = 16
"""Letters of the shortest token: one that can be guessed is none."""
VARIABLES: Mapping[str, Scope] = {"PALATE_READ_TOKEN": "read", "PALATE_WRITE_TOKEN": "write"}


@dataclass(frozen=True)
class Tokens:
    """Hashes of tokens with what each allows; without any, everybody who can connect may do everything."""

    scopes: tuple[tuple[bytes, Scope], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.scopes)

    def scope_of(self, token: str) -> Scope | None:
        """What this token allows, None for a stranger. Takes the same time whichever it is."""
        asked = _hash(token)
        found: Scope | None = None
        for known, scope in self.scopes:
            if hmac.compare_digest(asked, known):
                found = scope
        return found

    @classmethod
    def of(cls, given: Mapping[str, Scope]) -> Tokens:
        """From tokens as they are. Raises ``ConfigError`` for one that is too short."""
        for token in given:
            if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
                raise ConfigError(f"an API token has at least {SHORTEST} printable letters without spaces")
        return cls(tuple((_hash(token), scope) for token, scope in given.items()))


def read_tokens(path: Path | None, environment: Mapping[str, str]) -> Tokens:
    """Tokens of a file, a line each such as ``read h7Kq…``, and of ``PALATE_READ_TOKEN`` and ``PALATE_WRITE_TOKEN``."""
    given: dict[str, Scope] = {}
    lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        scope, _, token = line.strip().partition(" ")
        if scope not in get_args(Scope) or not token.strip():
            raise ConfigError(f"{path}, line {number}: write 'read TOKEN' or 'write TOKEN'")
        given[token.strip()] = scope  # type: ignore[assignment]
    given |= {environment[name]: scope for name, scope in VARIABLES.items() if environment.get(name)}
    return Tokens.of(given)


def check_address(host: str, tokens: Tokens) -> None:
    """Raises ``MisuseError`` where others than this machine could connect without a token."""
    if not is_loopback(host) and not tokens:
        raise MisuseError(
            f"--host {host} can be reached from other machines: give API tokens by --tokens FILE, or stay on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
