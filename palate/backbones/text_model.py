"""What every language model here can do, whether it came from a hub or was taught on the data's own text.

One class holds a ``transformers`` network and a text tokenizer and gives systems the door of
``core.protocols.LanguageModel``. How it is tuned is a setting: all of it, low-rank adapters with the base frozen
(LoRA, Hu et al. 2022, arXiv 2106.09685), a prompt of learnt vectors before a frozen model (``backbones.soft_prompt``),
or the rows of added tokens alone. Added rows are always trained.
Shapes: b texts, S tokens, D width, V tokens, m vectors of a learnt prompt.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.backbones.added_rows import add_rows, logits_of
from palate.backbones.hub_files import quietly
from palate.backbones.packed import Attend, Branches, Groups, can_pack, packed_states, padded_states
from palate.backbones.soft_prompt import add_words, insert_prompt, prompt_of
from palate.backbones.text_tokenizer import TextTokenizer
from palate.core import store
from palate.core.config import Config
from palate.core.errors import ConfigError, MissingExtraError, StoreError, TrainingError
from palate.core.ragged import IntArray, Ragged
from palate.core.run import Run


class TuneConfig(Config):
    """How a language model is tuned for its task."""

    tune: Literal["full", "lora", "prompt", "new-rows"] = "full"
    """All weights; or with the base frozen: adapters on linear layers, a learnt prompt before whatever is read, or only
    the rows of added tokens."""
    lora_rank: int = Field(8, ge=1)
    lora_alpha: float = Field(32.0, gt=0)
    """What an adapter adds is scaled by alpha / rank."""
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    lora_layers: tuple[str, ...] = ()
    """How the names of the layers end that get adapters, such as q_proj; none named = every linear layer."""
    prompt_vectors: int = Field(16, ge=1)
    """m, of a learnt prompt."""


class Optimise(Protocol):
    """The training loop, ``training.loop.optimise``."""

    def __call__(
        self, module: nn.Module, batches: Any, loss: Callable[[Any], Tensor], run: Run, config: Any, /
    ) -> object: ...


C = TypeVar("C", bound=TuneConfig)


class TextModel(ABC, Generic[C]):
    """A language model. Subclasses say where the network and the tokenizer come from."""

    config_type: ClassVar[type[Config]]
    pretrained: Literal["no", "encoder", "LM"]

    def __init__(self, config: C | None = None) -> None:
        self.config: C = config or self.config_type()  # type: ignore[assignment]
        self.version = ""
        self._model: Any = None
        self._tokenizer: TextTokenizer | None = None
        self._first_size = 0
        self._fitted_on = store.NO_DATA

    @abstractmethod
    def prepare(
        self, texts: Sequence[str], run: Run, optimise: Optimise | None = None, *, fitted_on: str = store.NO_DATA
    ) -> Self:
        """Ready for data that reads like ``texts``, begun anew. ``fitted_on`` is the fingerprint of the interactions
        that the texts were written from, where they were."""

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The network, on the device it was moved to."""
        if self._model is None:
            raise TrainingError(f"{type(self).__name__} is not ready yet: call prepare or load first")
        return self._model

    @property
    def tokenizer(self) -> TextTokenizer:
        if self._tokenizer is None:
            raise TrainingError(f"{type(self).__name__} is not ready yet: call prepare or load first")
        return self._tokenizer

    @property
    def kind(self) -> Literal["causal", "seq2seq", "encoder"]:
        return "seq2seq" if self.model.config.is_encoder_decoder else "causal"

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def prompt(self) -> IntArray:
        """``[m]`` the ids of the learnt prompt, all below 0; empty where there is none."""
        found = prompt_of(self.model)
        return -1 - np.arange(0 if found is None else len(found), dtype=np.int64)

    @property
    def opening(self) -> IntArray:
        """The ids that every question to it begins with: its start, where it has one, and the learnt prompt."""
        start = self.tokenizer.start
        return self.prompt if start is None or self.kind == "seq2seq" else np.concatenate([[start], self.prompt])

    # -- text ----------------------------------------------------------------------------------------------------------

    def read(self, texts: Sequence[str], max_tokens: int | None = None, *, inside: bool = False) -> Ragged:
        return self.tokenizer.read(texts, max_tokens, inside=inside)

    def framed(self, texts: Sequence[str], max_tokens: int, cut: Literal["end", "middle"] = "end") -> Ragged:
        """The token ids of each text with what the model's own tokenizer puts around one; ``max_tokens`` in all. A
        learnt prompt stands before that and counts for nothing."""
        framed = self.tokenizer.framed(texts, max_tokens, cut)
        if not len(self.prompt):
            return framed
        return Ragged.of([self.prompt] * len(framed)).joined(framed)

    def spell(self, tokens: Ragged) -> list[str]:
        return self.tokenizer.spell(tokens)

    def padded(self, tokens: Ragged, side: Literal["left", "right"] = "right") -> tuple[Tensor, Tensor]:
        """Ids ``[b, S]`` and which of them are no padding ``[b, S]``, on the network's device."""
        return padded(tokens, self.tokenizer.pad, side, self.model.device)

    def add_tokens(self, words: Sequence[str]) -> IntArray:
        """``[n]`` ids. New rows are drawn from torch's random state; an optimiser made before does not know them."""
        ids = self.tokenizer.add(words)
        have = self.model.get_input_embeddings().num_embeddings
        if self.tokenizer.size > have:
            add_words(self.model, self.tokenizer.size - have)
        return ids

    # -- the network ---------------------------------------------------------------------------------------------------

    def embed(self, tokens: Tensor) -> Tensor:
        """``[b, S]`` → ``[b, S, D]``."""
        return self.model.get_input_embeddings()(tokens)

    def states(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """``[b, S, D]``, ``[b, S]`` → ``[b, S, D]``; padding may stand on either side and its states mean nothing."""
        model = self.model
        if self.kind == "seq2seq":
            return model.get_encoder()(inputs_embeds=embeddings, attention_mask=mask.long()).last_hidden_state
        places = (mask.long().cumsum(1) - 1).clamp(min=0)
        out = model.base_model(
            inputs_embeds=embeddings, attention_mask=mask.long(), position_ids=places, use_cache=False
        )
        return out.last_hidden_state

    def branched_states(self, embeddings: Tensor, places: Tensor, branching: Branches) -> Tensor:
        """``[b, S, D]`` → ``[b, S, D]`` of a causal model whose rows branch; tokens stand at ``places`` ``[b, S]``."""
        reader = self.model.base_model
        if can_pack(reader):
            flat = packed_states(reader, embeddings.flatten(0, 1), places.flatten(), branching.attend, causal=True)
            return flat.view_as(embeddings)
        seen = branching.seen(embeddings.shape[1])
        hidden = torch.zeros(seen.shape, dtype=embeddings.dtype, device=seen.device)
        hidden.masked_fill_(~seen, torch.finfo(hidden.dtype).min)
        out = reader(inputs_embeds=embeddings, attention_mask=hidden[:, None], position_ids=places, use_cache=False)
        return out.last_hidden_state

    def packed_states(self, embeddings: Tensor, groups: Groups, attend: Attend) -> Tensor:
        """``[P, D]`` → ``[P, D]``: ``states`` of packed sequences, longest first, by ``attend`` where it can."""
        reader = self.model.base_model
        if can_pack(reader):
            return packed_states(reader, embeddings, groups.positions, attend, causal=self.kind == "causal")
        return padded_states(self.states, embeddings, groups)

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """``[..., D]`` → ``[..., V]``, or ``[..., n]`` of the ids ``tokens`` ``[n]``."""
        config = self.model.config
        if getattr(config, "scale_decoder_outputs", False):  # T5 with one table for input and output
            states = states * config.d_model**-0.5
        head = self.model.get_output_embeddings()
        found = head(states) if tokens is None else logits_of(head, states, tokens)
        cap = getattr(config, "final_logit_softcapping", None)
        return found if cap is None else torch.tanh(found / cap) * cap

    # -- how it begins -------------------------------------------------------------------------------------------------

    def _begin(self, model: Any, tokenizer: TextTokenizer) -> None:
        """Take a fresh network and its tokenizer, and freeze and adapt as the settings say."""
        self._first_size = int(model.get_input_embeddings().num_embeddings)
        tokenizer.fill_up(self._first_size)
        if tokenizer.size > self._first_size:
            add_rows(model, tokenizer.size - self._first_size)
        self._model, self._tokenizer = model, tokenizer
        self._adapt()

    def _adapt(self) -> None:
        if self.config.tune == "full":
            return
        rows = {id(parameter) for parameter in _added_rows(self.model)}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in rows)
        if self.config.tune == "lora":
            _insert_adapters(self.model, self.config)
        if self.config.tune == "prompt":
            special = {self.tokenizer.pad, self.tokenizer.start, self.tokenizer.end, self.tokenizer.mask}
            words = np.setdiff1d(np.arange(self._first_size), [i for i in special if i is not None])
            insert_prompt(self.model, self.config.prompt_vectors, words)

    def merge(self) -> Self:
        """Fold adapters into the weights beside which they stand, ``W + alpha / rank · B A``: the same answers up to
        rounding, that of bf16 where the base is, without the adapters' work. What is saved from now on is whole and
        needs no base; it would go on learning as ``tune=full``. Raises ``ConfigError`` where there are no adapters."""
        if self.config.tune != "lora":
            raise ConfigError(f"there are no adapters to merge: this model is tuned with tune={self.config.tune}")
        _merge_adapters(self.model)
        self.config = self.config.model_copy(update={"tune": "full"})
        self.model.requires_grad_(True)
        return self

    # -- on disk -------------------------------------------------------------------------------------------------------

    def _by_reference(self) -> bool:
        """Whether the base stays where it is and only what was learnt is saved."""
        return False

    def _base(self, facts: Mapping[str, Any]) -> Any:
        """The network as it was before anything was added, to be filled with saved weights."""
        return build_network(facts["architecture"])

    def save(self, folder: Path) -> None:
        parameters = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad or not self._by_reference()
        }
        kept = self.model.state_dict()
        buffers = {name: buffer for name, buffer in self.model.named_buffers() if name in kept}
        weights = {name: tensor.detach().cpu() for name, tensor in (parameters | buffers).items()}
        architecture = json.loads(self.model.config.to_json_string(use_diff=False))
        store.save(
            folder, self, config=self.config, fitted_on=self._fitted_on,
            arrays={name: _as_array(tensor) for name, tensor in weights.items()},
            facts={
                "architecture": architecture | {"vocab_size": self._first_size},
                "added": int(self.model.get_input_embeddings().num_embeddings) - self._first_size,
                "tokenizer": self.tokenizer.facts(),
                "bf16": sorted(name for name, tensor in weights.items() if tensor.dtype == torch.bfloat16),
                "version": self.version,
            },
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        found = stored.begun(cls)
        facts = stored.facts
        found.version, found._fitted_on = facts["version"], stored.fitted_on
        with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
            model = found._base(facts)
            found._first_size = facts["architecture"]["vocab_size"]
            if facts["added"]:
                add_rows(model, facts["added"])
            found._model, found._tokenizer = model, TextTokenizer.from_facts(facts["tokenizer"])
            found._adapt()
        half = set(facts["bf16"])
        weights = {name: _as_tensor(array, name in half) for name, array in stored.arrays().items()}
        _fill(found._model, weights, folder, partly=found._by_reference())
        found._model.eval()
        return found


def padded(tokens: Ragged, pad: int, side: Literal["left", "right"], device: Any = "cpu") -> tuple[Tensor, Tensor]:
    """Ids ``[b, S]`` filled up with ``pad`` on one side, and which of them are no padding ``[b, S]``."""
    lengths = torch.from_numpy(np.asarray(tokens.lengths, dtype=np.int64))
    width = int(lengths.max()) if len(lengths) else 0
    places = torch.arange(width)
    mask = places < lengths[:, None] if side == "right" else places >= width - lengths[:, None]
    ids = torch.full(mask.shape, pad)
    ids[mask] = torch.from_numpy(tokens.flat().astype(np.int64))
    return ids.to(device), mask.to(device)


def build_network(architecture: Mapping[str, Any]) -> Any:
    """A network with weights drawn from torch's random state, of the architecture that ``save`` wrote."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    except ImportError:
        raise MissingExtraError.needing("a language model", "llm") from None
    settings = dict(architecture)
    dtype = settings.pop("dtype", None) or "float32"
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with quietly():
        if dtype == "float32":  # in another type the library builds by changing the default of the whole process
            return kind._model_mapping[type(config)](config).eval()
        return kind.from_config(config, dtype=getattr(torch, dtype)).eval()


def _added_rows(model: Any) -> list[nn.Parameter]:
    table = model.get_input_embeddings()
    both = (getattr(table, "table", table) if prompt_of(model) is not None else table, model.get_output_embeddings())
    return [module.rows for module in both if hasattr(module, "rows")]


def _insert_adapters(model: Any, config: TuneConfig) -> None:
    """Adapters on every linear layer but the head, or on those named; they are drawn from torch's random state and add
    nothing yet. Raises ``ConfigError`` where no layer has such a name."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtraError.needing("tuning with adapters (tune=lora)", "llm") from None
    output = model.get_output_embeddings()
    head = set() if output is None else {id(module) for module in output.modules()}
    linear = {name: m for name, m in model.named_modules() if _is_linear(m) and id(m) not in head}
    if config.lora_layers:
        linear = {name: m for name, m in linear.items() if name.endswith(config.lora_layers)}
    if not linear:
        raise ConfigError(f"no linear layer of this model ends in {' or '.join(config.lora_layers)}: see lora_layers")
    before = {id(parameter) for parameter in model.parameters()}
    training = model.training
    inject_adapter_in_model(
        LoraConfig(
            r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout,
            target_modules=list(linear), fan_in_fan_out=not any(isinstance(m, nn.Linear) for m in linear.values()),
        ),
        model,
    )  # fmt: skip
    rows = {id(parameter) for parameter in _added_rows(model)}
    for parameter in model.parameters():
        new = id(parameter) not in before
        if new:
            parameter.data = parameter.data.float()
        parameter.requires_grad_(new or id(parameter) in rows)
    model.train(training)


def _merge_adapters(model: Any) -> None:
    """Each layer with adapters gives way to the one it holds, which takes over what they add."""
    from peft.tuners.lora import LoraLayer

    for name, layer in [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer)]:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _is_linear(module: nn.Module) -> bool:
    # GPT-2 keeps its linear layers as a one-dimensional convolution of its own.
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _fill(model: nn.Module, weights: Mapping[str, Tensor], folder: Path, partly: bool) -> None:
    own = dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if n in model.state_dict()}
    expected = {name for name, tensor in own.items() if tensor.requires_grad or not partly}
    buffers = {name for name, tensor in own.items() if not isinstance(tensor, nn.Parameter)}
    wrong = sorted((expected | buffers) ^ set(weights)) or [n for n in weights if own[n].shape != weights[n].shape]
    if wrong:
        raise StoreError(f"{folder}: the weights '{wrong[0]}' do not fit this language model; save it again")
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


def _as_array(tensor: Tensor) -> np.ndarray:
    """NumPy knows no bfloat16: its bits travel as whole numbers."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def _as_tensor(array: np.ndarray, half: bool) -> Tensor:
    found = torch.from_numpy(array)
    return found.view(torch.bfloat16) if half else found
