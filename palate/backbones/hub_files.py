"""Models as folders of files: a folder of one's own, or a name on the Hugging Face hub and the copy kept here.

The network is used only where the settings say ``download``. Weights are safetensors; files that hold code or pickles
are neither fetched nor read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from palate.backbones.cache import digest_of_files
from palate.core.errors import ConfigError, DownloadError, MissingExtraError

READ = ("*.safetensors", "*.json", "*.txt", "*.model")
"""Weights, settings and vocabularies."""


def hub_folder(model: str, download: bool) -> Path:
    """The folder of ``model``, a path or a name such as ``owner/name``. Raises one sentence where there is none."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder} holds no model: it has no config.json")
        if not any(folder.glob("*.safetensors")):
            raise ConfigError(f"{folder} holds no weights as .safetensors, the only form that is read")
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ConfigError(f"there is no folder '{model}'")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError.needing(f"the model '{model}'", "llm") from None
    try:
        return Path(snapshot_download(model, local_files_only=not download, allow_patterns=[*READ, "*/config.json"]))
    except Exception as failure:  # the hub's errors and those of whatever carries them
        if download:
            raise DownloadError(f"'{model}' cannot be fetched from the hub: {first_line(failure)}") from None
        raise ConfigError(
            f"'{model}' is neither a folder nor a model that was fetched before; allow the download with download=true"
        ) from None


def digest_of_model(folder: Path) -> str:
    """A name for what a model's folder holds; read once, then again only when a file has changed."""
    paths = sorted(path for pattern in READ for path in folder.glob(pattern))
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    return _digest(stamps)


@lru_cache(maxsize=32)
def _digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    return digest_of_files(path for path, _, _ in stamps)


def first_line(failure: Exception) -> str:
    """What a library says went wrong, short enough for one sentence."""
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0][:200]


@contextmanager
def quietly() -> Iterator[None]:
    """The library's own reports and bars stay off the terminal inside; its settings come back after."""
    from transformers.utils import logging

    loud, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(loud)
        if bars:
            logging.enable_progress_bar()
