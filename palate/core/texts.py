"""Texts as arrays, so that a saved folder holds them beside its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray


def packed(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], IntArray]:
    """The UTF-8 bytes of all texts, and how many each has ``[n]``."""
    coded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return np.frombuffer(b"".join(coded), dtype=np.uint8), np.array([len(one) for one in coded], dtype=np.int64)


def unpacked(content: npt.NDArray[np.uint8], lengths: IntArray) -> list[str]:
    """The texts again."""
    whole, ends = content.tobytes(), np.cumsum(lengths)
    return [
        whole[end - length : end].decode("utf-8", "surrogatepass") for end, length in zip(ends, lengths, strict=True)
    ]
