"""A process of its own: loads every saved system of a folder and writes its rankings. Knows no dataset."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from palate.core import store
from tests.contract.questions import read


def main(folder: Path, threads: int, k: int) -> None:
    torch.set_num_threads(threads)
    requests = read(folder / "questions.npz")
    answers: dict[str, np.ndarray] = {}
    for saved in sorted(path for path in folder.iterdir() if path.is_dir()):
        rankings = store.load(saved).recommend(requests, k)
        answers[f"{saved.name}/item_rows"], answers[f"{saved.name}/scores"] = rankings.item_rows, rankings.scores
    np.savez(folder / "answers.npz", allow_pickle=False, **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
