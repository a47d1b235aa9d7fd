"""Text to token ids and back: a byte-level BPE taught on the data's own text, or the one that comes with a model.

Sennrich et al. 2016 (arXiv 1508.07909), on bytes: there is no unknown word, and what was read is spelled again letter
for letter. New words (``<a_12>``) become single tokens that text never splits and that survive saving.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from palate.core.errors import ConfigError, DataError, MissingExtraError
from palate.core.ragged import IntArray, Ragged

PAD, START, END, MASK = "<pad>", "<s>", "</s>", "<mask>"
PROBE = "a"
"""A text of one token in every vocabulary."""
ANCHORS = ("=", "\n")
"""What a text may be read behind, so that no space is put before it; a line break joins with least."""


class TextTokenizer:
    """The ids ``pad``, ``start``, ``end`` and ``mask`` (what stands for a hidden token) are in the vocabulary; all but
    ``pad`` may be None."""

    def __init__(self, inner: Any, pad: int, start: int | None, end: int | None, mask: int | None = None) -> None:
        self.inner, self.pad, self.start, self.end, self.mask = inner, pad, start, end, mask

    @classmethod
    def taught(cls, texts: Sequence[str], size: int, *, mask: bool = False) -> Self:
        """A vocabulary of at most ``size`` tokens, of which 256 are the bytes and 3 mark padding, start and end; a
        fourth stands for a hidden token where ``mask`` asks for it.

        The same texts, in any order, give the same vocabulary. Raises ``DataError`` where there is no text.
        """
        distinct = sorted({text for text in texts if text})
        if not distinct:
            raise DataError("a text tokenizer cannot be taught without any text")
        library, special = _library(), [PAD, START, END, *([MASK] if mask else [])]
        inner = library.Tokenizer(library.models.BPE())
        inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = library.decoders.ByteLevel()
        inner.train_from_iterator(
            distinct,
            library.trainers.BpeTrainer(
                vocab_size=size,
                special_tokens=special,
                initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            ),
        )
        return cls(inner, *(inner.token_to_id(word) for word in special))

    @classmethod
    def of_model(cls, folder: Path) -> Self:
        """The tokenizer in a model's folder. Raises ``ConfigError`` where there is none that can be read."""
        library = _library()
        try:
            from transformers import AutoTokenizer

            found = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            own = folder / "tokenizer.json"
            # The library may build another from the vocabulary, by the kind of the model; the file is what was trained.
            text = own.read_text(encoding="utf-8") if own.is_file() else found.backend_tokenizer.to_str()
            inner = library.Tokenizer.from_str(text)
        except ImportError:
            raise MissingExtraError.needing(f"the model in {folder}", "llm") from None
        except Exception as failure:  # each library below has errors of its own
            first = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
            raise ConfigError(f"the text tokenizer in {folder} cannot be read: {first[:200]}") from None
        inner.no_truncation()
        inner.no_padding()
        pads = (found.pad_token_id, found.eos_token_id, 0)
        pad = next(i for i in pads if i is not None)
        return cls(inner, pad, found.bos_token_id, found.eos_token_id, found.mask_token_id)

    @property
    def size(self) -> int:
        """V, added words included."""
        return int(self.inner.get_vocab_size(with_added_tokens=True))

    def read(self, texts: Sequence[str], max_tokens: int | None = None, *, inside: bool = False) -> Ragged:
        """The token ids of each text, nothing put before or after; the first ``max_tokens`` of them.

        ``inside`` reads each as it stands in the middle of a text: tokenizers of the SentencePiece kind (Llama, T5) put
        a space before every text they are given, which is right for the first word of one alone.
        """
        rows = [row.ids for row in self._encoded(texts)]
        for anchor in self._anchors if inside else ():
            for place, ids in enumerate(self._after(anchor, texts)):
                rows[place] = rows[place] if ids is None else ids
        return _ragged([ids[:max_tokens] for ids in rows])

    @cached_property
    def _anchors(self) -> tuple[str, ...]:
        """Texts behind which another reads as in the middle of one, the best last; none where no space is put before a
        text."""
        (alone,) = self._encoded([PROBE])
        written = "".join(alone.tokens)
        if written == PROBE or not written.endswith(PROBE):
            return ()
        behind = {anchor: self._after(anchor, [PROBE])[0] for anchor in ANCHORS}
        return tuple(a for a, ids in behind.items() if ids and ids == [self.inner.token_to_id(PROBE)])

    def _after(self, anchor: str, texts: Sequence[str]) -> list[list[int] | None]:
        """The token ids of each text behind ``anchor``; None where a token belongs to both."""
        found: list[list[int] | None] = []
        for row in self._encoded([anchor + text for text in texts]):
            begins = [start >= len(anchor) for start, _ in row.offsets]
            shared = any(start < len(anchor) < stop for start, stop in row.offsets)
            found.append(None if shared else [i for i, own in zip(row.ids, begins, strict=True) if own])
        return found

    def framed(self, texts: Sequence[str], max_tokens: int, cut: Literal["end", "middle"] = "end") -> Ragged:
        """The token ids of each text between what the tokenizer puts around one (``<s>`` of Llama, ``[CLS]`` and
        ``[SEP]`` of BERT), ``max_tokens`` in all. A longer text loses its end, or what stands between its first and
        its last half; a text without a single token becomes the end or padding."""
        before, after = self._frame()
        inside = max_tokens - len(before) - len(after)
        if inside < 1:
            raise ConfigError(
                f"{max_tokens} tokens leave no room for text beside those that the tokenizer puts around it"
            )
        tail = inside // 2 if cut == "middle" else 0
        rows = []
        for row in self._encoded(texts):
            ids = row.ids
            if len(ids) > inside:
                ids = ids[: inside - tail] + ids[len(ids) - tail :]
            rows.append([*before, *ids, *after] or [self.pad if self.end is None else self.end])
        return _ragged(rows)

    def _frame(self) -> tuple[list[int], list[int]]:
        """What is put before and after a text."""
        row = self.inner.encode("a")
        own = [place for place, special in enumerate(row.special_tokens_mask) if not special]
        return row.ids[: own[0]], row.ids[own[-1] + 1 :]

    def words(self, texts: Sequence[str], max_tokens: int | None = None) -> Ragged:
        """For each token of ``read``: which word of its text it belongs to, from 0; words are parted by spaces."""
        rows = []
        for text, row in zip(texts, self._encoded(texts), strict=True):
            letters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
            begun = np.cumsum(letters == ord(" "))
            # A token may begin with the space before its word, so its last letter says where it belongs.
            last = np.array([stop - 1 for _, stop in row.offsets[:max_tokens]], dtype=np.int64)
            rows.append(begun[np.clip(last, 0, None)] if len(letters) else last)
        return _ragged(rows)

    def spell(self, tokens: Ragged) -> list[str]:
        """The text of each row; padding, start and end are left out."""
        silent = {i for i in (self.pad, self.start, self.end, self.mask) if i is not None}
        rows = [[i for i in row.tolist() if i not in silent] for row in tokens]
        return list(self.inner.decode_batch(rows, skip_special_tokens=False))

    def add(self, words: Sequence[str]) -> IntArray:
        """``[n]`` the id of each word; one that was no token becomes one, behind all others."""
        if any(not word or word != word.strip() for word in words):
            raise DataError("a word that becomes one token cannot be empty or begin or end with white space")
        new = dict.fromkeys(words)
        self.inner.add_tokens([_library().AddedToken(word, normalized=False) for word in new])
        return np.array([self.inner.token_to_id(word) for word in words], dtype=np.int64)

    def fill_up(self, size: int) -> None:
        """Give names to ids below ``size`` that have none, so that words added later stand behind them."""
        missing = size - self.size
        if missing > 0:
            self.add([f"<|unused {number}|>" for number in range(size - missing, size)])

    def copy(self) -> Self:
        return self.from_facts(self.facts())

    def facts(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "json": self.inner.to_str(), "pad": self.pad, "start": self.start, "end": self.end, "mask": self.mask,
        }  # fmt: skip

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        inner = _library().Tokenizer.from_str(facts["json"])
        return cls(inner, facts["pad"], facts["start"], facts["end"], facts.get("mask"))

    def _encoded(self, texts: Sequence[str]) -> Any:
        return self.inner.encode_batch(list(texts), add_special_tokens=False)


def _ragged(rows: Sequence[Any]) -> Ragged:
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    values = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]) if len(rows) else np.zeros(0, np.int64)
    return Ragged.from_lengths(values, lengths)


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise MissingExtraError.needing("a tokenizer of text", "llm") from None
    return tokenizers
