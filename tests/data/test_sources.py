"""Data sets by name: where they are sought, how they are fetched, what is said when they are nowhere."""

from __future__ import annotations

import functools
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from palate.core.errors import ConfigError, DataError, DownloadError
from palate.data import sources
from palate.data.build import dataset_from
from palate.data.folder import write_folder
from palate.data.public_sets import AMAZON, SOURCES, Remote, Source, remotes_of_category
from palate.data.sources import load

ML_100K = {
    "u.data": "1\t1\t5\t20\n",
    "u.item": "1|A (1990)|01-Jan-1990||url|0|1" + "|0" * 17 + "\n",
    "u.user": "1|24|M|writer|00000\n",
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here sees the data of this machine."""
    monkeypatch.setenv("PALATE_DATA", str(tmp_path / "shared"))
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))


def put(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_the_shared_folder_comes_before_the_cache(tmp_path: Path) -> None:
    put(tmp_path / "cache" / "ml-100k", ML_100K)
    assert load("ml-100k").n_interactions == 1
    put(tmp_path / "shared" / "ml-100k", {**ML_100K, "u.data": "1\t1\t5\t20\n1\t1\t5\t21\n"})
    assert load("ml-100k").n_interactions == 2


def test_without_settings_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PALATE_DATA")
    monkeypatch.delenv("PALATE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sources.places() == [tmp_path / ".cache" / "palate" / "data"]


def test_any_own_folder_beside_the_public_sets_has_its_name(tmp_path: Path) -> None:
    log = pl.DataFrame({"user": ["a", "a"], "item": ["x", "y"], "rating": [1.0, 5.0]})
    write_folder(dataset_from("shop", log), tmp_path / "shared" / "shop")
    assert load("shop").n_interactions == 2
    chosen = load("shop", positive="rating>=4")
    assert chosen.n_interactions == 1
    assert chosen.n_items == 2


def test_some_users_of_any_source(tmp_path: Path) -> None:
    """A table and the own folder made of it: the same people, and the name says how many."""
    log = pl.DataFrame({"user": [f"u{n % 9}" for n in range(90)], "item": [f"i{n // 9}" for n in range(90)]})
    log.write_csv(tmp_path / "shop.csv")
    few = load(tmp_path / "shop.csv", users=4)
    write_folder(load(tmp_path / "shop.csv"), tmp_path / "own")
    again = load(tmp_path / "own", users=4)
    assert (few.name, few.n_users, few.n_interactions) == ("shop-4-users", 4, 40)
    assert (again.name, set(again.user_ids)) == ("shop-4-users", set(few.user_ids))
    write_folder(few, tmp_path / "kept")
    assert load(tmp_path / "kept").about.notes[-1] == "4 of 9 users, drawn by lot over their ids"
    with pytest.raises(ConfigError, match="setting 'users' cannot be 0"):
        load(tmp_path / "shop.csv", users=0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ml100k", "no data set 'ml100k'; did you mean 'ml-100k'"),
        ("wrld", "no data set 'wrld'; did you mean 'world'"),
        ("events.csv", "there is no file or folder 'events.csv'"),
        ("no/such/place", "there is no file or folder 'no/such/place'"),
        ("yelp", "'yelp' is not on this machine .*accept its terms at"),
    ],
)
def test_an_unknown_name_is_one_sentence(name: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as problem:
        load(name)
    assert "\n" not in str(problem.value)


def test_a_folder_that_nobody_knows_lists_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path / "mine", {"notes.md": "x"})
    with pytest.raises(DataError, match=r"has no layout that is known \(it holds notes\.md\)"):
        load(tmp_path / "mine")


def test_the_world_by_name() -> None:
    world = load("world-test")
    assert (world.n_items, world.about.simulated) == (60, True)
    with pytest.raises(DataError, match="options such as positive or min_count do not apply"):
        load("world-test", min_count=5)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine and the folder it shows."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", folder
    http.shutdown()
    http.server_close()
    thread.join()


def test_an_archive_is_fetched_once_into_the_cache(
    site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = site
    with zipfile.ZipFile(folder / "ml-100k.zip", "w") as packed:
        for name, text in ML_100K.items():
            packed.writestr(f"ml-100k/{name}", text)
    monkeypatch.setattr(sources, "SOURCES", {"ml-100k": Source("ml-100k", (Remote(f"{url}/ml-100k.zip"),))})
    assert load("ml-100k").n_interactions == 1
    assert (tmp_path / "cache" / "ml-100k" / "u.data").is_file()
    (folder / "ml-100k.zip").unlink()
    assert load("ml-100k").n_interactions == 1


def test_a_folder_appears_only_when_all_its_files_are_there(
    site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = site
    (folder / "Toys.txt").write_text("1 5 3\n")
    remotes = (Remote(f"{url}/Toys.txt"), Remote(f"{url}/Toys_item2attributes.json"))
    monkeypatch.setattr(sources, "SOURCES", {"toys": Source("toys", remotes)})
    with pytest.raises(DownloadError, match=r"404 .*; or put the files into .*toys yourself"):
        load("toys")
    assert not (tmp_path / "cache" / "toys").exists()
    (folder / "Toys_item2attributes.json").write_text('{"5": [1], "3": [1]}')
    assert load("toys").n_interactions == 2


def test_categories_of_amazon_have_their_files() -> None:
    for edition in AMAZON:
        reviews, meta = remotes_of_category(edition, "Video_Games")
        assert "Video_Games" in reviews.url
        assert "meta_Video_Games.json" in meta.url
    assert remotes_of_category("2018", "giftcards")[0].url.endswith("/Gift_Cards_5.json.gz")


def test_the_table_of_sources_is_well_formed() -> None:
    for name, source in SOURCES.items():
        assert name == name.lower()
        for remote in source.remotes:
            assert remote.url.startswith("https://")
            assert remote.sha256 is None or len(remote.sha256) == 64
