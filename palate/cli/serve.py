"""``palate serve``: one or more runs over HTTP."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

PACKAGES = ("fastapi", "uvicorn", "httptools", "structlog", "prometheus_client")


def serve(
    run: Path,
    /,
    *more: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    store: str | None = None,
    tokens: Path | None = None,
    fits: Path | None = None,
    watch: float = 5.0,
    timeout: Annotated[float, Parameter(name="--timeout")] = 10.0,
    waiting: int = 1024,
    index: Literal["exact", "usearch", "faiss"] = "exact",
    index_settings: Annotated[tuple[str, ...], Parameter(name="--index-set", negative="")] = (),
    mcp: Annotated[bool, Parameter(negative="")] = False,
    mcp_http: Annotated[bool, Parameter(negative="")] = False,
    allow_writes: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Serve fitted runs over HTTP, with pages for people, until the process is told to stop; /openapi.json says what
    may be asked. With --mcp an assistant that starts this command gets the same as tools.

    Parameters
    ----------
    run
        A run folder that palate fit wrote, or a link to one; served under the folder's name.
    more
        Further runs.
    host
        Where to listen. Any address but this machine's own needs --tokens.
    port
        0 takes a free one.
    store
        Where events and added items are kept: a SQLite file (by default serving.sqlite beside the first run), or a
        PostgreSQL database as postgresql://USER@HOST/NAME, which several servers may share.
    tokens
        A file of API tokens, a line each: read TOKEN or write TOKEN. PALATE_READ_TOKEN and PALATE_WRITE_TOKEN count
        too.
    fits
        The folder whose fits, finished or under way, the page Runs shows; by default that of the first run.
    watch
        Look every so many seconds whether a folder holds another run now; 0 does not (SIGHUP always looks).
    timeout
        Seconds that an answer may take.
    waiting
        Questions that may wait for a run; further ones are told to come back later.
    index
        Search item vectors by an index; its recall against exact search is measured and told when a run is opened.
    index_settings
        One setting of the index as key=value: reach and effort of usearch, probe_share of faiss, at_least (the recall
        below which it is refused).
    mcp
        Be an MCP server on standard input and output instead of an HTTP server.
    mcp_http
        Be an MCP server at /mcp too, with the same tokens.
    allow_writes
        Let MCP clients write events.
    """
    from palate.core.config import parse_settings
    from palate.core.errors import MissingExtraError, MisuseError

    if any(find_spec(package) is None for package in PACKAGES):
        raise MissingExtraError.needing("palate serve", "serve")
    if not 0 <= port < 2**16 or timeout <= 0 or waiting < 1 or watch < 0:
        raise MisuseError("--port is 0 to 65535, --timeout and --waiting are above 0, --watch is not below 0")
    if index_settings and index == "exact":
        raise MisuseError("--index-set is for an index: add --index usearch or --index faiss")
    if (mcp or mcp_http) and find_spec("mcp") is None:
        raise MissingExtraError.needing("palate serve --mcp", "mcp")
    if mcp and mcp_http:
        raise MisuseError("--mcp speaks on standard input and output, --mcp-http over HTTP; drop one")
    if allow_writes and not (mcp or mcp_http):
        raise MisuseError("--allow-writes is for MCP clients: add --mcp or --mcp-http")
    from palate.serving.auth import check_address, read_tokens
    from palate.serving.served import Limits
    from palate.serving.server import Address
    from palate.serving.server import serve as answer
    from palate.serving.service import Service

    allowed = read_tokens(tokens, os.environ)
    check_address(host, allowed)
    folders = [run, *more]
    service = Service(
        folders,
        store or run.absolute().parent / "serving.sqlite",
        fits=fits,
        limits=Limits(waiting=waiting, seconds=timeout, index=index, index_settings=parse_settings(index_settings)),
    )
    service.watch(watch)
    if mcp:
        from palate.serving.tools import make_tools

        try:
            make_tools(service, writes=allow_writes).run("stdio")
        finally:
            service.close()
        return
    tools = None
    if mcp_http:
        from palate.serving.tools import ToolsDoor

        tools = ToolsDoor(service, allowed, writes=allow_writes)
    answer(service, Address(host, port), allowed, lambda where: print(f"serving on {where}", flush=True), tools)
