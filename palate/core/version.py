"""The version of what a system compares, for those who keep something that was made from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt


class Version:
    """A hash of arrays, made once and kept while they are made of the very same objects.

    Whoever changes an array in place must not expect another version: replace the object instead.
    """

    def __init__(self) -> None:
        self._made_of: tuple[object, ...] = ()
        self._said = ""

    def of(self, made_of: tuple[object, ...], arrays: Callable[[], Iterable[npt.NDArray[Any]]]) -> str:
        """The hash of ``arrays()``, which follow from the objects ``made_of`` alone."""
        if len(made_of) != len(self._made_of) or any(
            one is not other for one, other in zip(made_of, self._made_of, strict=True)
        ):
            digest = hashlib.blake2b(digest_size=16)
            for array in arrays():
                digest.update(f"{array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
            self._made_of, self._said = made_of, digest.hexdigest()
        return self._said
