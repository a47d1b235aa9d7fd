"""The command line as a user meets it: real subprocesses, real files, one line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from palate.cli.demo import SYSTEMS
from palate.evaluation.protocols import MAIN
from palate.experiment import report_of
from palate.runs import FittedRun

CODE = "from palate.cli.main import main; main()"


def palate(*arguments: object, cwd: Path, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    if data is not None:
        environment["PALATE_DATA"] = str(data)
    return subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two fitted runs on the small test world."""
    here = tmp_path_factory.mktemp("palate")
    for name, extra in {"popularity": [], "ease": []}.items():
        done = palate("fit", name, "--data", "world-test", "--out", name, *extra, cwd=here)
        assert done.returncode == 0, done.stderr
    return here


def test_fit_says_what_comes_next(place: Path) -> None:
    done = palate("fit", "item-knn", "--data", "world-test", "--set", "neighbours=20", "--out", "knn", cwd=place)
    assert done.returncode == 0
    assert "palate evaluate knn" in done.stdout
    plan = json.loads((place / "knn" / "run.json").read_text())["plan"]
    assert plan["config"]["neighbours"] == 20


def test_an_existing_run_is_not_overwritten(place: Path) -> None:
    before = (place / "ease" / "run.json").read_bytes()
    done = palate("fit", "ease", "--data", "world-test", "--out", "ease", cwd=place)
    assert done.returncode == 1
    assert "holds a run already" in done.stderr
    assert (place / "ease" / "run.json").read_bytes() == before


def test_evaluate_and_compare_write_the_documented_schema(place: Path) -> None:
    done = palate("evaluate", "popularity", "ease", "--json", "e.json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stdout
    done = palate("compare", "popularity", "ease", "--json", "c.json", "--plot", "c.svg", cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads((place / "c.json").read_text())
    assert found["schema"] == "palate.report/1"
    assert {"data", "split", "protocol", "runs", "comparisons"} <= set(found)
    run = found["runs"][0]
    assert {"name", "system", "pretrained", "seeds", "metrics", "slices", "cost"} <= set(run)
    assert {"value", "low", "high"} <= set(run["metrics"]["recall@10"])
    assert {"fit_seconds", "peak_mb"} <= set(run["cost"])
    pair = found["comparisons"][0]
    assert {"a", "b", "metric", "difference", "low", "high", "p", "p_holm", "effect"} <= set(pair)
    assert (place / "c.svg").read_text().lstrip().startswith("<?xml")
    done = palate("compare", "popularity", "ease", "--slice", "cold-items-among-cold", "--json", "s.json", cwd=place)
    assert done.returncode == 0, done.stderr
    told = json.loads((place / "s.json").read_text())
    assert told["slice"] == "cold-items-among-cold"
    assert told["comparisons"][0]["difference"] == pytest.approx(0), "neither can tell cold items apart"
    assert (place / "compare-cold-items-among-cold.png").exists()
    again = palate("compare", "popularity", "ease", "compare-cold-items-among-cold.png", cwd=place)
    assert again.returncode == 0, "what an earlier comparison drew lies among the runs of compare runs/*"


def test_runs_on_other_splits_are_not_compared(place: Path) -> None:
    done = palate("fit", "popularity", "--data", "world-test", "--split", "temporal", "--out", "later", cwd=place)
    assert done.returncode == 0, done.stderr
    done = palate("compare", "ease", "later", cwd=place)
    assert done.returncode == 1
    assert done.stderr.startswith("palate: ")
    assert "split" in done.stderr


def test_runs_of_one_name_in_two_places_are_told_apart(place: Path) -> None:
    done = palate("fit", "popularity", "--data", "world-test", "--out", "elsewhere/ease", cwd=place)
    assert done.returncode == 0, done.stderr
    done = palate("compare", "ease", "elsewhere/ease", "--json", "two.json", cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads((place / "two.json").read_text())
    assert [run["name"] for run in found["runs"]] == ["ease", "elsewhere/ease"]
    assert {(pair["a"], pair["b"]) for pair in found["comparisons"]} == {("ease", "elsewhere/ease")}


def test_recommend_to_a_user_a_history_and_everybody(place: Path) -> None:
    done = palate("recommend", "ease", "--user", "r0001", "-k", 4, "--json", "--why", cwd=place)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [entry["rank"] for entry in answer["recommended"]] == [1, 2, 3, 4]
    met = {event["item"] for event in answer["history"]}
    assert met
    assert not met & {entry["item"] for entry in answer["recommended"]}
    titles = [event["title"] for event in answer["history"]][:3]
    by_title = palate("recommend", "ease", "--history", ",".join(t.replace(",", ",,") for t in titles), cwd=place)
    assert by_title.returncode == 0, by_title.stderr
    done = palate("recommend", "ease", "--all-users", "--out", "all.parquet", "-k", 4, cwd=place)
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(place / "all.parquet")
    first = table.filter(pl.col("user") == "r0001").sort("rank")
    assert first["item"].to_list() == [entry["item"] for entry in answer["recommended"]]


def test_why_is_what_taking_the_item_out_changes(place: Path) -> None:
    """The stated drop is the score with the whole history minus the score without that item, asked anew."""
    import numpy as np

    from palate.ask import Asker
    from palate.core.ragged import Ragged
    from palate.core.requests import Requests
    from palate.runs import FittedRun

    asker = Asker(FittedRun.open(place / "ease"))
    requests = asker.history(asker.item_ids[:6])
    (answer,) = asker.answer(requests, 3)
    best = Ragged.of([[asker.row_of[answer.items[0]]]])
    for reason in asker.why(requests, answer)[0]:
        kept = [row for row in range(6) if asker.item_ids[row] != reason.item]
        without = asker.system.score(Requests.of([kept]), best)[0]
        assert np.isclose(answer.scores[0] - without, reason.drop, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fit", "saserc", "--data", "world-test"], 1, "did you mean 'sasrec'"),
        (["fit", "ease", "--data", "wordl-test"], 1, "did you mean 'world-test'"),
        (["fit", "ease", "--data", "world-test", "--set", "regg=3"], 1, "did you mean 'reg'"),
        (["fit", "ease", "--data", "world-test", "--set", "reg=many"], 1, "setting 'reg'"),
        (["fit", "ease", "--data", "world-test", "--set", "reg"], 1, "key=value"),
        (["fit", "ease", "--data", "world-test", "--preset", "huge"], 1, "no preset 'huge'"),
        (["fit", "ease", "--data", "world-test", "--split", "leave-two-out"], 1, "leave-one-out"),
        (["fit", "ease"], 2, "data"),
        (["fit", "ease", "--data", "world-test", "--sedes", "3"], 2, "sedes"),
        (["evaluate", "nowhere"], 1, "not a finished run"),
        (["compare", "ease"], 2, "at least two"),
        (["recommend", "ease"], 2, "say who is asked"),
        (["recommend", "ease", "--user", "nobody"], 1, "no user 'nobody'"),
        (["recommend", "ease", "--history", "The Book of Sand and Foam"], 1, "no item or title"),
        (["recommend", "ease", "--all-users"], 2, "--out"),
        (["recommend", "ease", "--user", "r0001", "--out", "f.parquet"], 2, "--all-users"),
        (["recommend", "ease", "--all-users", "--out", "f.parquet", "--why"], 2, "--why"),
        (["fit", "ease", "--data", "world-test", "--seeds", "0"], 2, "at least once"),
        (["fit", "ease", "--data", "world-test", "--tune=-1"], 2, "--tune"),
        (["fit", "sasrec", "--data", "world-test", "--device", "abacus"], 2, "offers"),
        (["fit", "bpr", "--data", "world-test", "--from", "ease"], 2, "cannot continue"),
        (["recommend", "ease", "--user", "r0001", "-k", "0"], 2, "at least one"),
        (["evaluate", "ease", "--protocol", "ful-ranking"], 1, "did you mean 'full-ranking'"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_mistakes_are_one_line(place: Path, arguments: list[str], code: int, said: str) -> None:
    done = palate(*arguments, cwd=place)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr + done.stdout
    assert done.stderr.startswith("palate: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_damaged_run_is_refused(place: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place / "ease", tmp_path / "ease")
    weights = next((tmp_path / "ease" / "seed-0").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    done = palate("recommend", "ease", "--user", "r0001", cwd=tmp_path)
    assert done.returncode == 1
    assert "damaged" in done.stderr


def test_a_run_fitted_on_other_events_is_refused(place: Path, tmp_path: Path) -> None:
    """The manifest of a model that saw the test events betrays it."""
    import shutil

    from palate.core.run import Run
    from palate.data.sources import load
    from palate.systems import build

    shutil.copytree(place / "ease", tmp_path / "ease")
    build("ease").fit(load("world-test"), Run()).save(tmp_path / "ease" / "seed-0")
    done = palate("evaluate", "ease", cwd=tmp_path)
    assert done.returncode == 1
    assert "fitted on other interactions" in done.stderr


def test_tune_searches_and_records(place: Path) -> None:
    done = palate("fit", "ease", "--data", "world-test", "--tune", 4, "--out", "tuned", cwd=place)
    assert done.returncode == 0, done.stderr
    facts = json.loads((place / "tuned" / "run.json").read_text())
    trials = facts["tuned"]["trials"]
    assert len(trials) == 4
    best = max(trials, key=lambda trial: trial["valid"])
    assert facts["tuned"]["best"] == best
    for key, value in best["settings"].items():
        assert facts["plan"]["config"][key] == value


def test_seeds_stay_in_one_run(place: Path) -> None:
    done = palate(
        "fit", "sasrec", "--data", "world-test", "--preset", "tiny", "--set", "training.epochs=2", "--seeds", 2,
        "--out", "seeds", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = palate("evaluate", "seeds", "--json", "seeds.json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "seeds.json").read_text())["runs"][0]["seeds"] == [0, 1]


T0 = 1_600_000_000
EVENTS = [(f"u{u}", f"i{(u + step) % 12}", T0 + 1000 * step + 400 * u) for u in range(30) for step in range(6)]


def write_log(path: Path, events: list[tuple[str, str, int]]) -> None:
    pl.DataFrame(events, schema=["user", "item", "time"], orient="row").write_csv(path)


def test_from_continues_a_log_that_grew_in_place(tmp_path: Path) -> None:
    """The new item stands first in the file; what was learnt about the old ones keeps its place."""
    from palate.core.store import load

    write_log(tmp_path / "log.csv", EVENTS)
    few = ["--set", "training.epochs=2"]
    first = palate("fit", "bpr", "--data", "log.csv", *few, "--set", "width=8", "--out", "first", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    grown = [("u0", "new", T0 + 29_000), *EVENTS, *((f"u{u}", f"i{(u + 6) % 12}", T0 + 30_000 + u) for u in range(30))]
    write_log(tmp_path / "log.csv", grown)
    one = ["--set", "training.epochs=1", "--set", "training.learning_rate=1e-9"]
    second = palate("fit", "bpr", "--data", "log.csv", *one, "--from", "first", "--out", "second", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    items = [pl.read_parquet(tmp_path / run / "items.parquet")["item"].to_list() for run in ("first", "second")]
    assert items[1] == [*items[0], "new"]
    old, new = (load(tmp_path / run / "seed-0").network.state_dict()["items.weight"] for run in ("first", "second"))
    assert new.shape[0] == old.shape[0] + 1
    assert (new[: len(old)] - old).abs().max() < 1e-3
    plan = json.loads((tmp_path / "second" / "run.json").read_text())["plan"]
    assert plan["config"]["width"] == 8
    done = palate("evaluate", "second", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = palate("recommend", "second", "--user", "u0", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_from_refuses_what_the_earlier_run_has_learnt(tmp_path: Path) -> None:
    """A temporal split asks early events that leave-one-out taught."""
    write_log(tmp_path / "log.csv", EVENTS)
    few = ["--set", "training.epochs=1"]
    assert palate("fit", "bpr", "--data", "log.csv", *few, "--out", "first", cwd=tmp_path).returncode == 0
    leak = palate(
        "fit", "bpr", "--data", "log.csv", "--split", "temporal", "--from", "first", "--out", "second", cwd=tmp_path
    )
    assert leak.returncode == 1
    assert "already learned" in leak.stderr
    wider = palate("fit", "bpr", "--data", "log.csv", "--set", "width=3", "--from", "first", cwd=tmp_path)
    assert wider.returncode == 2
    assert "keeps its network" in wider.stderr
    closed = palate("fit", "ease", "--data", "log.csv", "--out", "closed", cwd=tmp_path)
    assert closed.returncode == 0, closed.stderr
    again = palate("fit", "ease", "--data", "log.csv", "--from", "closed", "--out", "on", cwd=tmp_path)
    assert "closed form" in again.stderr


def test_a_refused_fit_leaves_its_folder_free(tmp_path: Path) -> None:
    fit = ["fit", "ease", "--data", "world-test", "--out", "run"]
    assert palate(*fit, "--set", "most_items=3", cwd=tmp_path).returncode == 1
    again = palate(*fit, cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_the_demo_never_removes_runs_of_others(place: Path) -> None:
    done = palate("demo", "--data", "world-test", "--out", ".", cwd=place)
    assert done.returncode == 2
    assert "no demo wrote" in done.stderr
    assert (place / "ease" / "run.json").exists()


def test_the_demo_tells_its_story(tmp_path: Path) -> None:
    done = palate("demo", "--data", "world-test", "--out", "demo", "--budget", 0.05, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in ("simulated", "R@10", "NDCG@10", "lately", "Next came", "SASRec", "EASE", "interval"):
        assert said in done.stdout
    assert (tmp_path / "demo" / "leaderboard.png").read_bytes().startswith(b"\x89PNG")
    opening = next(line for line in done.stdout.splitlines() if line.startswith("Open them all:"))
    folders = opening.split(" serve ")[1].split()
    assert {*folders} == {f"demo/{name}" for name in SYSTEMS}
    figures = {name: report_of(FittedRun.open(tmp_path / "demo" / name)).metrics[MAIN].value for name in SYSTEMS}
    assert folders == sorted(folders, key=lambda folder: -figures[folder.removeprefix("demo/")])


def test_the_demo_opens_its_runs_and_replaces_an_earlier_demo(tmp_path: Path) -> None:
    import urllib.request

    (tmp_path / "demo" / "sasrec").mkdir(parents=True)
    (tmp_path / "demo" / "demo.txt").write_text("of an earlier demo")
    options = ["--data", "world-test", "--out", "demo", "--budget", "0.05", "--serve", "--port", "0"]
    server = subprocess.Popen(
        [sys.executable, "-c", CODE, "demo", *options], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = next(line.split()[-1] for line in server.stdout if line.startswith("serving on "))
        with urllib.request.urlopen(f"{address}/v1/runs") as answer:
            cards = json.loads(answer.read())
        assert {card["name"] for card in cards} == {*SYSTEMS}
        assert any(card["reads_words"] and card["takes_new_items"] for card in cards), "what the pages offer"
    finally:
        server.terminate()
        assert server.wait(60) == 0
        server.stdout.close()  # type: ignore[union-attr]


def test_why_of_a_known_user_of_a_factor_model(place: Path) -> None:
    """BPR knows the user by name; the reasons still are differences of the scores it gives that user."""
    import numpy as np

    from palate.ask import Asker
    from palate.core.ragged import Ragged
    from palate.core.requests import Requests
    from palate.runs import FittedRun

    few = ["--set", "training.epochs=2"]
    assert palate("fit", "bpr", "--data", "world-test", *few, "--out", "bpr", cwd=place).returncode == 0
    asker = Asker(FittedRun.open(place / "bpr"))
    requests = asker.user("r0001")
    (answer,) = asker.answer(requests, 2)
    best = Ragged.of([[asker.row_of[answer.items[0]]]])
    history = requests.histories.row(0)
    reason = asker.why(requests, answer)[0][0]
    kept = [int(row) for row in history if asker.item_ids[row] != reason.item]
    without = asker.system.score(Requests.of([kept], user_rows=requests.user_rows), best)[0]
    assert np.isclose(answer.scores[0] - without, reason.drop, atol=1e-5)


def test_systems_lists_every_row(place: Path) -> None:
    from palate.systems import TABLE

    done = palate("systems", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)] == [row.name for row in TABLE]
    assert all(row.name in palate("systems", cwd=place).stdout for row in TABLE)


def test_a_recipe_is_fitted_into_a_run_of_its_name_and_says_what_was_published(tmp_path: Path) -> None:
    text = 'system = "item-knn"\ndata = "world-test"\nsource = "nowhere"\n[settings]\nneighbours = 7\n[published]\n'
    (tmp_path / "mine.toml").write_text(text + '"recall@10" = 0.5\n', encoding="utf-8")
    done = palate("fit", "mine.toml", "--set", "shrinkage=2", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "published: recall@10 0.5 (nowhere)" in done.stdout
    plan = json.loads((tmp_path / "runs" / "mine" / "plan.json").read_text(encoding="utf-8"))
    assert plan["config"]["neighbours"] == 7
    assert plan["config"]["shrinkage"] == 2


def test_names_shows_how_a_run_names_its_items(place: Path, tmp_path: Path) -> None:
    few = ["--preset", "tiny", "--set", "training.epochs=1", "--quiet"]
    assert palate("fit", "tiger", "--data", "world-test", *few, "--out", "tiger", cwd=tmp_path).returncode == 0
    assert "tiger: beam search, 30 beams" in palate("evaluate", "tiger", cwd=tmp_path).stdout
    shown = palate("names", "tiger", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "collisions:" in shown.stdout
    assert "nearest by vector" in shown.stdout
    told = json.loads(palate("names", "tiger", "--find", "Catriona", "--json", cwd=tmp_path).stdout)
    assert told["health"]["collisions"] == 0
    assert told["names"]["Catriona"].startswith("<a_")
    nameless = palate("names", place / "ease", cwd=tmp_path)
    assert nameless.returncode == 2
    assert "gives items no names" in nameless.stderr


def test_doubts_shows_which_events_are_mistrusted_and_on_the_world_whether_they_are_noise(
    place: Path, tmp_path: Path
) -> None:
    few = ["--preset", "tiny", "--set", "training.epochs=8", "--quiet"]
    assert palate("fit", "llmrec", "--data", "world-test", *few, "--out", "llm", cwd=tmp_path).returncode == 0
    shown = palate("doubts", "llm", "--out", "all.parquet", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    every = pl.read_parquet(tmp_path / "all.parquet")
    assert every.columns == ["user", "item", "title", "loss", "noise"]
    assert every["loss"].is_sorted(descending=True)
    assert f"{every['noise'].sum()} of {every.height:,} events" in shown.stdout
    told = json.loads(palate("doubts", "llm", "-n", "3", "--json", cwd=tmp_path).stdout)
    noise = told["noise"]
    taken = every.head(noise["this run"]["noise"])["noise"]
    assert noise["this run"]["largest"]["value"] == pytest.approx(taken.mean())
    oracle = noise["oracle that knows the order too"]
    assert (oracle["events"], oracle["noise"]) == (every.height, noise["this run"]["noise"]), "about the same events"
    assert oracle["largest"]["value"] > noise["this run"]["largest"]["value"]
    assert [one["title"] for one in told["worst"]] == every["title"].head(3).to_list()
    assert "luck of training" in shown.stdout
    two = ["--preset", "tiny", "--set", "training.epochs=6", "--seeds", "2", "--quiet"]
    assert palate("fit", "llmrec", "--data", "world-test", *two, "--out", "two", cwd=tmp_path).returncode == 0
    shown = palate("doubts", "two", "--out", "both.parquet", cwd=tmp_path)
    both = pl.read_parquet(tmp_path / "both.parquet")
    assert both.columns == ["user", "item", "title", "loss", "loss of seed 0", "loss of seed 1", "noise"]
    of_seeds = both.select("loss of seed 0", "loss of seed 1").to_numpy()
    assert (of_seeds[:, 0] != of_seeds[:, 1]).any()
    assert both["loss"].to_numpy() == pytest.approx(of_seeds.mean(1))
    told = json.loads(palate("doubts", "two", "--json", cwd=tmp_path).stdout)
    assert told["seeds"] == [0, 1]
    taken = told["noise"]["this run"]["noise"]
    found = [float(both.sort(name, descending=True)["noise"].head(taken).mean()) for name in both.columns[4:6]]
    assert told["noise"]["this run"]["largest_by_seed"] == pytest.approx(found)
    assert told["noise"]["this run"]["largest"]["value"] == pytest.approx(sum(found) / 2)
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["seed", "1", f"{found[1]:.3f}"] in lines
    none = palate("doubts", place / "ease", cwd=tmp_path)
    assert none.returncode == 2
    assert "remembers no losses" in none.stderr
