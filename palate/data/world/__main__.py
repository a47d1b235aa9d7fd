"""``python -m palate.data.world [NAME]`` prints the card of a world: sizes, signals, controls, ceilings."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from palate.data.world.assemble import World, world
from palate.data.world.catalogue import real_records
from palate.data.world.dials import NAMED, VERSION
from palate.data.world.oracle import last_events, recall_at_10
from palate.data.world.signals import CONTRASTS, ceilings, cold_targets, presence

# which control removes which contrast
_CONTROL: dict[str, Any] = {name: name.split(":")[0] for name in CONTRASTS}


def card(name: str, seed: int = 0) -> str:
    """The card as text. Every figure in ``docs/world.md`` is printed here."""
    planted = world(name, seed=seed)
    data, (cold, early) = planted.dataset, cold_targets(planted)
    lines = [
        f"world '{name}', version {VERSION}, seed {seed} (simulated)",
        f"  {data.n_users} readers, {data.n_items} items, {data.n_interactions} events, "
        f"{planted.truth.noise.mean():.1%} noise, {data.interactions['rating'].to_numpy().mean():.2f} stars on average",
        f"  {len(planted.cold_rows)} cold items: {cold} last events, {early} events before their release",
        "  " + ", ".join(f"{key}={value}" for key, value in planted.config.model_dump().items()),
        "",
        f"{'contrast':<18}{'planted':>9}{'shuffled':>10}",
    ]
    found = presence(planted)
    for contrast, control in _CONTROL.items():
        absent = CONTRASTS[contrast](world(name, seed=seed, shuffled=control))
        lines.append(f"{contrast:<18}{found[contrast]:>9.3f}{absent:>10.3f}")
    lines += ["", f"{'recall@10':<46}{'all':>7}{'warm':>7}{'cold, among cold':>18}"]
    lines += [_row(f"plain: {label}", *figures) for label, figures in _plain(planted).items()]
    for ceiling in ceilings(planted):
        label = "oracle: " + " + ".join(ceiling.knows)
        lines.append(_row(label, ceiling.every, ceiling.warm, ceiling.cold_among_cold))
    return "\n".join(lines)


def _row(label: str, *figures: float) -> str:
    return f"{label:<46}{figures[0]:>7.3f}{figures[1]:>7.3f}{figures[2]:>18.3f}"


def _plain(planted: World) -> dict[str, tuple[float, float, float]]:
    """Counting and neighbours, fitted without the last two events of each reader: the floor a system starts from."""
    data = planted.dataset
    targets, before = last_events(planted)
    from_end = np.searchsorted(data.user_rows, data.user_rows, side="right") - np.arange(data.n_interactions)
    train = np.zeros((data.n_users, data.n_items))
    train[data.user_rows[from_end > 2], data.item_rows[from_end > 2]] = 1.0
    counts = train.sum(0)
    together = train.T @ train
    norm = np.sqrt(np.maximum(counts, 1))
    alike = together / norm[:, None] / norm
    np.fill_diagonal(alike, 0)
    alike *= alike >= np.sort(alike, axis=1)[:, -20:-19]  # the 20 nearest of each item
    scored = {
        "chance": np.zeros(before.shape),
        "most read": np.broadcast_to(counts, before.shape),
        "item-kNN, 20 neighbours": before @ alike.T,
    }
    cold_item = planted.truth.items.cold
    cold = cold_item[targets]
    rows = {}
    for label, scores in scored.items():
        every = recall_at_10(scores, targets, before)
        among = recall_at_10(scores[cold], targets[cold], before[cold], cold_item)
        rows[label] = (float(every.mean()), float(every[~cold].mean()), float(among.mean()))
    return rows


def sample(n: int = 20, seed: int = 1) -> str:
    """``n`` records drawn from all books and films, for checking against a source."""
    records = [*real_records("book"), *real_records("film")]
    chosen = np.random.default_rng(seed).choice(len(records), n, replace=False)
    lines = []
    for row in sorted(chosen):
        record = records[row]
        series = f"; {record.series} {record.series_position}" if record.series else ""
        lines.append(f"{record.title} | {record.author} | {record.year}{series}")
    return "\n".join(lines)


def main() -> None:
    """Print the card of a world, or twenty records."""
    parser = argparse.ArgumentParser(prog="python -m palate.data.world", description=__doc__)
    parser.add_argument("name", nargs="?", default="small", choices=list(NAMED))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", action="store_true", help="print twenty random records instead")
    asked = parser.parse_args()
    print(sample() if asked.records else card(asked.name, asked.seed))


if __name__ == "__main__":
    main()
