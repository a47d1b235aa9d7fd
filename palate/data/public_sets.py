"""The public data sets that Palate knows by name, with where each file is fetched and where that was read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Remote:
    """A file to fetch. sha256 None = not known when this was written; it is recorded at the first download."""

    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """A public data set: the folder its files lie in and how to get them, or ``why_not``; who reads it where another
    set lies in the same folder, as ``module:function`` of the loaders."""

    folder: str
    remotes: tuple[Remote, ...] = ()
    why_not: str = "its publisher asks to fetch it by hand"
    loader: str = ""


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_TWEETS = "https://raw.githubusercontent.com/sidooms/MovieTweetings/master/snapshots/100K"
XREC = ("amazon", "yelp", "google")
_S3REC = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/master/data"


def _movielens(name: str, sha256: str | None = None) -> Source:
    return Source(name, (Remote(f"{_GROUPLENS}/{name}.zip", sha256),))


def _s3rec(folder: str, stem: str) -> Source:
    # Files as listed under data/ of RUCAIBox/CIKM2020-S3Rec.
    return Source(folder, (Remote(f"{_S3REC}/{stem}.txt"), Remote(f"{_S3REC}/{stem}_item2attributes.json")))


SOURCES: Mapping[str, Source] = {
    # URLs and checksums of 100K, latest-small, 1M, 20M and 25M: tensorflow/datasets, url_checksums/movielens.txt.
    "ml-100k": _movielens(
        "ml-100k", "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
    ),
    "ml-100k-plots": Source(
        "ml-100k", loader="movielens:ml_100k_plots",
        why_not="needs omdb_metadata.jsonl, one OMDb record a line (see data/ml-100k of "
        "vectorsss/movielens_100k_1m_extension), beside the files of ml-100k",
    ),
    # GroupLens replaces latest-small now and then, so no checksum is asked of it.
    "ml-latest-small": _movielens("ml-latest-small"),
    "ml-1m": _movielens(
        "ml-1m", "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"
    ),
    "ml-20m": _movielens(
        "ml-20m", "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3"
    ),
    "ml-25m": _movielens(
        "ml-25m", "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa"
    ),
    # URL from grouplens.org/datasets/movielens/32m; no checksum was found.
    "ml-32m": _movielens("ml-32m"),
    "amazon-2014-beauty": _s3rec("amazon-2014-beauty", "Beauty"),
    "amazon-2014-sports": _s3rec("amazon-2014-sports", "Sports_and_Outdoors"),
    "amazon-2014-toys": _s3rec("amazon-2014-toys", "Toys_and_Games"),
    "yelp-s3rec": _s3rec("yelp-s3rec", "Yelp"),
    "lastfm-s3rec": _s3rec("lastfm-s3rec", "LastFM"),
    "amazon-2014-beauty-days": Source("amazon-2014-beauty/irec", why_not="see data/Beauty of CTLab-ITMO/IRec"),
    "amazon-2018-games": Source("amazon-2018-games", why_not="see llmrank/dataset of RUCAIBox/LLMRank"),
    # URL from the README of zygmuntz/goodbooks-10k (its first release).
    "goodbooks-10k": Source(
        "goodbooks-10k",
        (Remote("https://github.com/zygmuntz/goodbooks-10k/releases/download/v1.0/goodbooks-10k.zip"),),
    ),
    # Files as listed under snapshots/100K of sidooms/MovieTweetings.
    "movietweetings-100k": Source(
        "movietweetings-100k", tuple(Remote(f"{_TWEETS}/{name}.dat") for name in ("ratings", "movies", "users"))
    ),
    # URL and checksum: facebookresearch/ParlAI, parlai/tasks/redial/build.py.
    "redial": Source(
        "redial",
        (Remote(
            "https://github.com/ReDialData/website/raw/data/redial_dataset.zip",
            "b48756681ec6f84e0af36979c5e9baa21ea8d9e7036b8764ea9b787bb0baf69b",
        ),),
    ),
    # URLs as used by several readers of the set, such as those of cseweb.ucsd.edu/~wckang.
    "steam": Source("steam", tuple(
        Remote(f"https://cseweb.ucsd.edu/~wckang/{name}.json.gz") for name in ("steam_reviews", "steam_games")
    )),
    "yelp": Source("yelp", why_not="accept its terms at https://www.yelp.com/dataset"),
    # Files under data/ of HKUDS/XRec; its pickles are to be converted, so they are not fetched.
    **{f"xrec-{name}": Source(f"xrec-{name}", why_not=f"see data/{name} of HKUDS/XRec") for name in XREC},
    "pixelrec": Source("pixelrec", why_not="see the links at https://github.com/westlake-repl/PixelRec"),
}  # fmt: skip

# Any category of the three Amazon editions, named as in its file: ``amazon-2023-Video_Games``. URL patterns: of 2014
# snap.stanford.edu/data/amazon/productGraph/categoryFiles, of 2018 jmcauley.ucsd.edu/data/amazon_v2, of 2023
# mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw (amazon-reviews-2023.github.io).
AMAZON: Mapping[str, tuple[str, str]] = {
    "2014": (
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_{}_5.json.gz",
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_{}.json.gz",
    ),
    "2018": (
        "https://jmcauley.ucsd.edu/data/amazon_v2/categoryFilesSmall/{}_5.json.gz",
        "https://jmcauley.ucsd.edu/data/amazon_v2/metaFiles2/meta_{}.json.gz",
    ),
    "2023": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/review_categories/{}.jsonl.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/meta_categories/meta_{}.jsonl.gz",
    ),
}
CATEGORY = re.compile(r"amazon-(2014|2018|2023)-([A-Za-z_]+)")
SHORT = {"giftcards": "Gift_Cards", "appliances-reviews": "Appliances"}


def remotes_of_category(edition: str, category: str) -> tuple[Remote, ...]:
    """Reviews and metadata of one category of an Amazon edition."""
    category = SHORT.get(category, category)
    return tuple(Remote(pattern.format(category)) for pattern in AMAZON[edition])
