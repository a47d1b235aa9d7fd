"""No rule leaks on random logs with repeats and ties in time: judged event by event, without the checks themselves."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.dataset import Dataset
from palate.core.errors import DataError
from palate.core.split import Cases, Split
from palate.data.split import check, split
from tests.data.split_logs import events, log

N_ITEMS = 8
DOMAINS = ["book"] * 3 + ["film"] * 4 + ["song"]
EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, N_ITEMS - 1), st.integers(0, 9)), min_size=1, max_size=60)
SHARES, SEEDS = st.floats(0.05, 0.45), st.integers(0, 9)
RULES = st.one_of(
    st.just(("leave-one-out", {})),
    st.builds(lambda n: ("few-shot", {"n": n}), st.integers(1, 4)),
    st.builds(
        lambda a, b, asked: ("temporal", {"valid_from": a, "test_from": b, "asked": asked}),
        st.floats(0.1, 0.6), st.floats(0.6, 0.95), st.sampled_from(["every", "first"]),
    ),
    st.builds(lambda share, seed: ("cold-items", {"share": share, "seed": seed}), SHARES, SEEDS),
    st.builds(lambda share, seed: ("cold-users", {"share": share, "seed": seed}), SHARES, SEEDS),
    st.builds(
        lambda share, seed: ("cross-domain", {"source": "book", "target": "film", "share": share, "seed": seed}),
        SHARES, SEEDS,
    ),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(EVENTS, RULES)
def test_no_rule_ever_leaks(rows: list[tuple[int, int, int]], rule: tuple[str, dict[str, object]]) -> None:
    dataset = log(rows, n_users=6, domain=DOMAINS)
    name, chosen = rule
    try:
        made = split(dataset, name, **chosen)
    except DataError:
        return  # too little data to split, said in one sentence
    everything, taught = events(dataset), Counter(events(made.train))
    assert not taught - Counter(everything)
    asked = made.valid.events.tolist() + made.test.events.tolist()
    assert len(asked) == len(set(asked))
    assert not Counter(everything[event] for event in asked) - (Counter(everything) - taught)
    for cases in (made.valid, made.test):
        assert cases.targets.tolist() == [everything[event][1] for event in cases.events]
        _histories_are_earlier_events(dataset, cases)
    _special_to_the_rule(name, chosen, made)
    assert check(made) == made.proof


def _histories_are_earlier_events(dataset: Dataset, cases: Cases) -> None:
    everything = events(dataset)
    for history, event in zip(cases.requests.histories, cases.events, strict=True):
        before = iter(item for user, item, _ in everything[:event] if user == everything[event][0])
        assert all(any(item == earlier for earlier in before) for item in history)  # a subsequence, in order


def _special_to_the_rule(name: str, chosen: dict[str, object], made: Split) -> None:
    train, everything = events(made.train), events(made.dataset)
    asked = [everything[event] for cases in (made.valid, made.test) for event in cases.events]
    if name == "temporal":
        assert max(time for *_, time in train) < min(time for *_, time in asked)
    if name == "cold-items":
        assert not {item for _, item, _ in train} & {item for _, item, _ in asked}
        hidden = set(made.test.targets.tolist())
        assert not hidden & {item for history in made.valid.requests.histories for item in history.tolist()}
    if name in ("cold-users", "cross-domain"):
        assert not set(made.valid.user_rows.tolist()) & set(made.test.user_rows.tolist())
    if name == "cold-users":
        assert not {user for user, *_ in train} & {user for user, *_ in asked}
    if name == "cross-domain":
        assert not [row for row in train if DOMAINS[row[1]] == "song"]
        assert not [row for row in train if DOMAINS[row[1]] == "film" and row[0] in {user for user, *_ in asked}]
    if name == "few-shot":
        assert max(Counter(user for user, *_ in train).values()) <= int(str(chosen["n"]))
    if name in ("leave-one-out", "few-shot", "cross-domain"):
        for user, _, time in asked:
            assert all(own <= time for other, _, own in train if other == user)
