"""Independent: one new word an item, so nothing is shared and every embedding is learnt from that item alone.

The IID of Hua et al. 2023 (arXiv 2305.06569).
"""

from __future__ import annotations

import numpy as np

from palate.core.codes import Codes
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.naming import NamesItems, all_live
from palate.core.ragged import IntArray
from palate.core.run import Run


class IndependentConfig(Config):
    pass


class Independent(NamesItems[IndependentConfig]):
    """Item row i is the token ``<item_i>``; a new item is a new word, which a model must make room for."""

    config_type = IndependentConfig

    def name(self, train: Dataset, run: Run) -> Codes:
        tokens = np.arange(train.n_items, dtype=np.int32)[:, None]
        return Codes(tokens, tuple(f"<item_{row}>" for row in tokens.ravel()), True, all_live(train.n_items))

    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        return self.codes.grown(item_rows.astype(np.int32)[:, None], [f"<item_{row}>" for row in item_rows])
