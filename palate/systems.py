"""The one table of systems. Everything that lists, builds, documents or serves systems reads it.

Adding a system touches its file, one row here, its known-answer test and the changelog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from inspect import isfunction, signature
from typing import Any, Literal, get_type_hints

from palate.core.config import Config, Part, configure, nest, override
from palate.core.errors import ConfigError, nearest
from palate.core.protocols import Continues, Recommender

Pretrained = Literal["no", "encoder", "LM"]


@dataclass(frozen=True)
class System:
    """One row: where the class lives and what a person choosing a system wants to know."""

    name: str
    path: str
    """``module:Class``; imported on first use."""
    title: str
    family: str
    paper: str
    tags: tuple[str, ...] = ()
    """Words of one's own, and those of ``palate.taxonomy``: how items are represented, by what paradigm it learns."""
    needs: tuple[str, ...] = ()
    """What must be known beside who met what, such as ``item text``."""
    learns: tuple[str, ...] = ("network",)
    """What a fit changes by default settings: the system's own, and parts by the field that names them."""
    frozen: tuple[str, ...] = ()
    """Parts that it reads and never changes, likewise; ``tokenizer.encoder`` is a part of a part."""
    presets: tuple[str, ...] = ()
    """Functions of the module that return other settings than the default."""
    pretrained: Pretrained = "no"
    """What its default settings bring along; a run's own settings may bring more or less (``pretrained``)."""
    packages: tuple[str, ...] = ()
    """Modules of optional libraries without which it does not work."""
    ability: Literal["Recommender", "RatingPredictor"] = "Recommender"
    """The protocol of ``core.protocols`` that it answers by."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of its packages that are not installed here."""
        return tuple(package for package in self.packages if find_spec(package) is None)

    @property
    def kind(self) -> type[Recommender]:
        """The system's class."""
        module, _, name = self.path.partition(":")
        return getattr(import_module(module), name)

    def config(self, preset: str | None = None, settings: Mapping[str, Any] | None = None, data: str = "") -> Config:
        """The default settings, or those of a named preset. A preset that differs by another setting or by the
        data set has a parameter of that name, such as ``graph`` or ``data``: it hears what ``settings`` say of it, if
        anything, and which ``data`` are learnt from."""
        if preset is None:
            return default_settings(self.kind)
        if preset not in self.presets:
            raise ConfigError(f"{self.name} has no preset '{preset}'{nearest(preset, (*self.presets, 'default'))}")
        made = getattr(import_module(self.path.partition(":")[0]), preset)
        asked = {field: _name_of(value) for field, value in nest(settings or {}).items()} | {"data": data or None}
        told = {field: asked[field] for field in signature(made).parameters if asked.get(field) is not None}
        config: Config = made(**told)
        return config

    @property
    def continues(self) -> bool:
        """Whether it can go on learning when the catalogue has grown."""
        return issubclass(self.kind, Continues)


TABLE: tuple[System, ...] = (
    System(
        "popularity", "palate.models.collaborative.popularity:Popularity", "Popularity", "collaborative",
        "counts, overall or with a half-life", ("id", "non-personal"), learns=("counts",), presets=("recent",),
    ),
    System(
        "item-knn", "palate.models.collaborative.item_knn:ItemKNN", "ItemKNN", "collaborative",
        "Deshpande & Karypis 2004", ("id", "neighbourhood", "closed form"), learns=("similarities",),
        presets=("recent", "ml_100k"),
    ),
    System(
        "ease", "palate.models.collaborative.ease:EASE", "EASE", "collaborative",
        "Steck 2019, arXiv 1905.03375", ("id", "linear", "closed form"), learns=("weights",),
        presets=("recent", "ml_100k"),
    ),
    System(
        "als", "palate.models.collaborative.als:ALS", "ALS", "collaborative",
        "Hu, Koren & Volinsky 2008", ("id", "matrix factorisation"), learns=("factors",), presets=("recent", "ml_100k"),
    ),
    System(
        "bpr", "palate.models.collaborative.bpr:BPR", "BPR-MF", "collaborative",
        "Rendle et al. 2009, arXiv 1205.2618", ("id", "matrix factorisation", "gradient"), presets=(),
    ),
    System(
        "lightgcn", "palate.models.graph.lightgcn:LightGCN", "LightGCN", "graph",
        "He et al. 2020, arXiv 2002.02126", ("id", "graph", "gradient"), presets=("paper",),
    ),
    System(
        "gccf", "palate.models.graph.gccf:GCCF", "LR-GCCF", "graph",
        "Chen et al. 2020, arXiv 2001.10167", ("id", "graph", "gradient"), presets=("paper",),
    ),
    System(
        "sgl", "palate.models.graph.sgl:SGL", "SGL", "graph",
        "Wu et al. 2021, arXiv 2010.10783", ("id", "graph", "self-supervised", "gradient"), presets=("paper",),
    ),
    System(
        "simgcl", "palate.models.graph.simgcl:SimGCL", "SimGCL", "graph",
        "Yu et al. 2022, arXiv 2112.08679", ("id", "graph", "self-supervised", "gradient"), presets=("paper",),
    ),
    System(
        "autocf", "palate.models.graph.autocf:AutoCF", "AutoCF", "graph",
        "Xia et al. 2023, arXiv 2303.07797", ("id", "graph", "self-supervised", "masked", "gradient"),
        presets=("paper",),
    ),
    System(
        "text-cosine", "palate.models.content.text_cosine:TextCosine", "Text cosine", "content",
        "frozen vectors of item texts, mean of the history", ("text", "item text", "words", "new items"),
        ("item text",), (), ("encoder",), presets=("tiny",), pretrained="encoder",
    ),
    System(
        "gru4rec", "palate.models.sequential.gru4rec:GRU4Rec", "GRU4Rec", "sequential",
        "Hidasi et al. 2016, arXiv 1511.06939", ("id", "pre-training/next-token", "recurrent", "gradient"),
        presets=("tiny",),
    ),
    System(
        "bert4rec", "palate.models.sequential.bert4rec:BERT4Rec", "BERT4Rec", "sequential",
        "Sun et al. 2019, arXiv 1904.06690", ("id", "pre-training/masked", "attention", "cloze", "gradient"),
        presets=("tiny",),
    ),
    System(
        "sasrec", "palate.models.sequential.sasrec:SASRec", "SASRec", "sequential",
        "Kang & McAuley 2018, arXiv 1808.09781", ("id", "pre-training/next-token", "attention", "gradient"),
        presets=("tiny", "paper_2018"),
    ),
    System(
        "hstu", "palate.models.sequential.hstu:HSTU", "HSTU", "sequential",
        "Zhai et al. 2024, arXiv 2402.17152", ("id", "pre-training/next-token", "attention", "time", "gradient"),
        presets=("tiny", "paper_ml_1m", "large"),
    ),
    System(
        "tiger", "palate.models.generative.tiger:TIGER", "TIGER", "generative",
        "Rajput et al. 2023, arXiv 2305.05065",
        ("id", "text", "pre-training/next-token", "semantic IDs", "encoder-decoder", "gradient"), ("item text",),
        ("network", "tokenizer"), ("tokenizer.encoder",),
        presets=("tiny", "small", "paper"), pretrained="encoder",
    ),
    System(
        "lc-rec", "palate.models.generative.lc_rec:LCRec", "LC-Rec", "generative",
        "Zheng et al. 2024, arXiv 2311.09049",
        ("id", "text", "instruction-tuning/full", "instruction-tuning/lora", "prompt-tuning/soft", "semantic IDs",
         "language model", "instructions", "gradient"),
        ("item text",), ("backbone", "tokenizer"), ("tokenizer.encoder",),
        presets=("tiny", "unaligned", "paper"), pretrained="encoder", packages=("transformers", "tokenizers"),
    ),
    System(
        "p5", "palate.models.generative.p5:P5", "P5 with an item index", "generative",
        "Hua et al. 2023, arXiv 2305.06569",
        ("id", "text", "pre-training/next-token", "instruction-tuning/full", "prompts", "names", "gradient"),
        learns=("network", "tokenizer"), presets=("tiny", "small", "paper"), packages=("tokenizers",),
    ),
    System(
        "mender-tok", "palate.models.generative.mender_tok:MenderTok", "Mender-Tok", "generative",
        "Paischer et al. 2025, arXiv 2412.08604",
        ("id", "text", "fine-tuning/full", "fine-tuning/lora", "prompt-tuning/soft", "names", "words", "preferences",
         "new items", "language model", "gradient"),
        ("item text",), ("network", "tokenizer"), ("reader", "encoder", "tokenizer.encoder"),
        presets=("tiny", "paper"), pretrained="encoder", packages=("transformers", "tokenizers"),
    ),
    System(
        "mender-emb", "palate.models.generative.mender_emb:MenderEmb", "Mender-Emb", "generative",
        "Paischer et al. 2025, arXiv 2412.08604",
        ("id", "text", "names", "words", "preferences", "new items", "gradient"), ("item text",),
        ("network", "tokenizer"), ("encoder", "tokenizer.encoder"), presets=("tiny", "paper"), pretrained="encoder",
    ),
    System(
        "rlmrec", "palate.models.alignment.rlmrec:RLMRec", "RLMRec", "alignment",
        "Ren et al. 2024, arXiv 2310.15950",
        ("hybrid", "prompting/zero-shot", "graph", "profiles", "self-supervised", "gradient"), ("item text",),
        ("network", "graph"), ("encoder",),
        presets=("tiny", "generative", "paper", "paper_generative"), pretrained="encoder",
    ),
    System(
        "llmrec", "palate.models.alignment.llmrec:LLMRec", "LLMRec", "alignment",
        "Wei et al. 2024, arXiv 2311.00423",
        ("hybrid", "prompting/zero-shot", "graph", "augmentation", "side information", "gradient"), ("item text",),
        ("network", "base"), ("encoder",),
        presets=("tiny", "paper"), pretrained="encoder",
    ),
    System(
        "ulmrec", "palate.models.reranking.ulmrec:ULMRec", "ULMRec", "reranking",
        "Shao et al. 2024, arXiv 2412.05543",
        ("text", "instruction-tuning/full", "instruction-tuning/lora", "prompt-tuning/soft", "re-ranks", "user index",
         "language model", "gradient"),
        ("item text",), ("backbone", "user_index", "retriever"), ("user_index.encoder",),
        presets=("tiny", "paper"), pretrained="encoder", packages=("transformers", "tokenizers"),
    ),
    System(
        "hllm", "palate.models.hierarchical.hllm:HLLM", "HLLM", "hierarchical",
        "Chen et al. 2024, arXiv 2409.12740",
        ("text", "fine-tuning/full", "fine-tuning/lora", "prompt-tuning/soft", "item text", "language model",
         "contrastive", "gradient"),
        ("item text",), ("network", "item_model", "user_model"),
        presets=("tiny", "minilm", "paper"), pretrained="encoder", packages=("transformers", "tokenizers"),
    ),
    System(
        "lite-llm4rec", "palate.models.hierarchical.lite_llm4rec:LiteLLM4Rec", "Lite-LLM4Rec", "hierarchical",
        "Wang et al. 2024, arXiv 2402.09543",
        ("text", "id", "fine-tuning/full", "fine-tuning/lora", "prompt-tuning/soft", "item text", "language model",
         "gradient"),
        ("item text",), ("network", "item_model", "rec_model"), presets=("tiny", "cold", "paper"), pretrained="encoder",
        packages=("transformers", "tokenizers"),
    ),
    System(
        "rank-prompted", "palate.models.reranking.rank_prompted:RankPrompted", "Prompted ranking", "reranking",
        "Hou et al. 2024, arXiv 2305.08845",
        ("text", "prompting/conventional", "prompting/zero-shot", "prompting/few-shot", "prompting/chain-of-thought",
         "prompt-tuning/hard", "language model", "re-ranks", "prompts"),
        ("item text",), ("retriever",), ("backbone", "chat"),
        presets=("tiny", "few_shot", "chain_of_thought", "conventional", "hard_prompt"),
        packages=("transformers", "tokenizers"),
    ),
    System(
        "rating-average", "palate.models.rating.average:RatingAverage", "Average rating", "rating",
        "heuristics of Kang et al. 2023, arXiv 2305.06474", ("id", "heuristic"), ("ratings",), ("averages",),
        presets=("everybody", "user"), ability="RatingPredictor",
    ),
    System(
        "rating-mf", "palate.models.rating.mf:RatingMF", "MF of ratings", "rating",
        "Koren, Bell & Volinsky 2009", ("id", "matrix factorisation", "gradient"), ("ratings",),
        presets=("tiny",), ability="RatingPredictor",
    ),
    System(
        "rating-mlp", "palate.models.rating.mlp:RatingMLP", "MLP of ratings", "rating",
        "He et al. 2017, arXiv 1708.05031", ("id", "neural", "gradient"), ("ratings",),
        presets=("tiny",), ability="RatingPredictor",
    ),
    System(
        "rating-transformer", "palate.models.rating.transformer_mlp:TransformerMLP", "Transformer-MLP", "rating",
        "Kang et al. 2023, arXiv 2305.06474", ("text", "attention", "gradient"), ("ratings", "item text"),
        presets=("tiny",), ability="RatingPredictor",
    ),
    System(
        "rating-lm", "palate.models.rating.rating_lm:RatingLM", "Tuned language model", "rating",
        "Kang et al. 2023, arXiv 2305.06474",
        ("text", "pre-training/next-token", "pre-training/masked", "fine-tuning/full", "fine-tuning/lora",
         "prompt-tuning/soft", "language model", "prompts", "gradient"),
        ("ratings", "item text"), ("network", "backbone"),
        presets=("tiny", "small", "classification", "paper"), packages=("transformers", "tokenizers"),
        ability="RatingPredictor",
    ),
    System(
        "rating-prompted", "palate.models.rating.prompted:RatingPrompted", "Prompted language model", "rating",
        "Kang et al. 2023, arXiv 2305.06474",
        ("text", "prompting/conventional", "prompting/zero-shot", "prompting/few-shot", "prompting/chain-of-thought",
         "prompt-tuning/hard", "language model", "prompts"),
        ("ratings", "item text"), (), ("backbone", "chat"),
        presets=("tiny", "few_shot", "chain_of_thought", "conventional", "hard_prompt"),
        packages=("transformers", "tokenizers"), ability="RatingPredictor",
    ),
)  # fmt: skip


def system(name: str) -> System:
    """The row of that name. Raises ``ConfigError`` naming the nearest."""
    for row in TABLE:
        if row.name == name:
            return row
    raise ConfigError(f"there is no system '{name}'{nearest(name, (row.name for row in TABLE))}")


def able(ability: Literal["Recommender", "RatingPredictor"]) -> tuple[System, ...]:
    """The rows whose systems answer by this protocol."""
    return tuple(row for row in TABLE if row.ability == ability)


def _name_of(value: Any) -> Any:
    """Of the component that a setting names, None where it names none; any other value as it is."""
    return value.get("name") if isinstance(value, Mapping) else value


def default_settings(kind: type) -> Config:
    """A class that takes parts names its settings; any other says them when it is made."""
    return kind.config_type() if hasattr(kind, "config_type") else kind().config


TOKENIZERS = {
    "random": "palate.tokenizers.random:Random",
    "independent": "palate.tokenizers.independent:Independent",
    "title": "palate.tokenizers.title:Title",
    "sequential": "palate.tokenizers.sequential:Sequential",
    "collaborative": "palate.tokenizers.collaborative:Collaborative",
    "semantic": "palate.tokenizers.semantic:Semantic",
    "hybrid": "palate.tokenizers.hybrid:Hybrid",
    "rq-vae": "palate.tokenizers.rq_vae:RQVAE",
    "residual-kmeans": "palate.tokenizers.residual_kmeans:ResidualKMeans",
    "product": "palate.tokenizers.product:Product",
}

GRAPHS = {
    "lightgcn": "palate.models.graph.lightgcn:LightGCN",
    "gccf": "palate.models.graph.gccf:GCCF",
    "sgl": "palate.models.graph.sgl:SGL",
    "simgcl": "palate.models.graph.simgcl:SimGCL",
    "autocf": "palate.models.graph.autocf:AutoCF",
}

RETRIEVERS = (
    "popularity", "item-knn", "ease", "als", "text-cosine", "gru4rec", "bert4rec", "sasrec", "hstu",
)  # fmt: skip
"""Systems that others may take as their first stage: quick to fit, and they score the whole catalogue."""

COMPONENTS: dict[str, dict[str, str]] = {
    "tokenizer": TOKENIZERS,
    "first": TOKENIZERS,
    "second": TOKENIZERS,
    "encoder": {
        "auto": "palate.backbones.auto:Auto",
        "minilm": "palate.backbones.hub_encoder:MiniLM",
        "hub": "palate.backbones.hub_encoder:HubEncoder",
        "endpoint": "palate.backbones.endpoint:Endpoint",
        "tf-idf": "palate.backbones.tf_idf:TfIdf",
    },
    "chat": {
        "endpoint": "palate.backbones.chat_endpoint:ChatEndpoint",
        "hub": "palate.backbones.hub_chat:HubChat",
        "scripted": "palate.backbones.scripted:Scripted",
        "recorder": "palate.backbones.scripted:Recorder",
        "replay": "palate.backbones.scripted:Replay",
    },
    "user_index": {"reviews": "palate.tokenizers.user_index:UserIndex"},
    "graph": GRAPHS,
    "base": {**GRAPHS, "bpr": "palate.models.collaborative.bpr:BPR"},
    "retriever": {name: system(name).path for name in RETRIEVERS},
    "annotator": {
        "extractive": "palate.annotation.extractive:Extractive",
        "chat": "palate.annotation.chat:ChatAnnotator",
        "imported": "palate.annotation.imported:Imported",
    },
    "sentiment": {
        "lexicon": "palate.annotation.sentiment:Lexicon",
        "hub": "palate.backbones.hub_sentiment:HubSentiment",
    },
    "reader": {
        "minilm": "palate.backbones.encoder_model:MiniLMModel",
        "nano": "palate.backbones.nano:Nano",
        "hub": "palate.backbones.hub:Hub",
        "hub-encoder": "palate.backbones.encoder_model:HubEncoderModel",
    },
    "item_model": {
        "nano": "palate.backbones.nano:Nano",
        "hub": "palate.backbones.hub:Hub",
        "minilm": "palate.backbones.encoder_model:MiniLMModel",
        "hub-encoder": "palate.backbones.encoder_model:HubEncoderModel",
    },
    "rec_model": {
        "minilm": "palate.backbones.encoder_model:MiniLMModel",
        "nano": "palate.backbones.nano:Nano",
        "hub": "palate.backbones.hub:Hub",
        "hub-encoder": "palate.backbones.encoder_model:HubEncoderModel",
        "llama": "palate.backbones.vector_model:Llama",
    },
    "user_model": {
        "llama": "palate.backbones.vector_model:Llama",
        "hub": "palate.backbones.vector_model:HubDecoder",
    },
    "backbone": {
        "nano": "palate.backbones.nano:Nano",
        "hub": "palate.backbones.hub:Hub",
    },
}
"""Parts that systems put together, by the field of the settings that names one: name → ``module:Class``."""


def component(field: str, part: Part) -> Any:
    """The part named in a system's settings, made with its own settings and, in turn, its own parts."""
    kind, config = _named(field, part)
    return _made(kind, config, f"{field} {part.name}")


def parts_of(config: Config) -> dict[str, Any]:
    """What each ``Part`` among the settings names, by field."""
    return {field: component(field, part) for field, part in _parts(config)}


def check_parts(config: Config) -> None:
    """Raises ``ConfigError`` where settings name a component that does not exist, or settings that it does not have,
    however deep; nothing is made."""
    for field, part in _parts(config):
        check_parts(_named(field, part)[1])


def _parts(config: Config) -> list[tuple[str, Part]]:
    named = ((field, getattr(config, field)) for field in type(config).model_fields)
    return [(field, part) for field, part in named if isinstance(part, Part)]


def _named(field: str, part: Part) -> tuple[Any, Config]:
    """The class of a component, and its settings."""
    table = COMPONENTS[field]
    if part.name not in table:
        raise ConfigError(f"there is no {field} '{part.name}'{nearest(part.name, table)}")
    module, _, name = table[part.name].partition(":")
    kind = getattr(import_module(module), name)
    where = f"{field} {part.name}"
    if part.preset is None:
        return kind, _settings_of(kind.config_type, part.settings, where)
    preset = vars(import_module(module)).get(part.preset)
    if not isfunction(preset) or preset.__annotations__ != {"return": kind.config_type.__name__}:
        raise ConfigError(f"{where} has no preset '{part.preset}'")
    return kind, override(preset(), part.settings, where=where)


def _settings_of(kind: type[Config], settings: Mapping[str, Any], where: str) -> Config:
    """The defaults with ``settings`` on top, also inside a section: ``graph.training.epochs=5`` keeps the graph's own
    learning rate."""
    if any(field.is_required() for field in kind.model_fields.values()):
        return configure(kind, settings, where=where)
    return override(kind(), settings, where=where)


def build(name: str, settings: Mapping[str, Any] | None = None, preset: str | None = None) -> Recommender:
    """An unfitted system: its default or preset settings with ``settings`` on top (keys may be dotted)."""
    row = system(name)
    config = override(row.config(preset, settings), settings or {}, where=name)
    found: Recommender = _made(row.kind, config, name)
    return found


def _made(kind: Any, config: Config, where: str) -> Any:
    """One of ``kind`` with its parts. Raises ``ConfigError`` where its annotator does not write what it reads."""
    parts = parts_of(config)
    if "annotator" in parts:
        wanted = get_type_hints(kind.__init__)["annotator"]
        asked = [name for one in wanted.__mro__ for name in vars(one) if not name.startswith("_")]
        lacks = [name for name in asked if not hasattr(parts["annotator"], name)]
        if lacks:
            what, other = " and ".join(name.replace("_", " ") for name in lacks), dict(_parts(config))["annotator"].name
            raise ConfigError(f"{where} needs an annotator that writes {what}; name another one than {other}")
    return kind(config, **parts)


def pretrained(made: object) -> Pretrained:
    """What of a system, or of its parts and theirs, has seen more than the data at hand; the most telling of them."""
    parts = getattr(made, "parts", None) or {}
    found = {getattr(made, "pretrained", "no"), *map(pretrained, parts.values())}
    return next(kind for kind in ("LM", "encoder", "no") if kind in found)
