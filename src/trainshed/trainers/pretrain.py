"""Language-model training, from random weights or on from a checkpoint.

The loss is the mean negative log-likelihood of the next token. Rows are texts (``{"text": ...}``), which are
packed into blocks without attention from one to another (arXiv 2107.02027), or pairs (``{"prompt": ...,
"completion": ...}``), where the prompt's tokens may count less; pairs are batched by length instead. Both end
with the token that ends a text. Left out: training on retrieved passages (see `ralt`).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from trainshed.config.formats import accepted_formats
from trainshed.config.resolved import RunConfig
from trainshed.config.schema import DataSection, ModelSection
from trainshed.config.trainers.pretrain import PretrainParameters
from trainshed.data.loading import load_rows
from trainshed.data.rows import known_splits, open_rows
from trainshed.errors import ConfigError, DataError
from trainshed.models.build import build_llama
from trainshed.models.causal_lm import add_lora, load_tokenizer, save_causal_lm
from trainshed.models.precision import resolve_device
from trainshed.models.sections import load_section, lora_settings
from trainshed.models.seeds import derive_seed
from trainshed.models.tokenizers import train_byte_bpe
from trainshed.progress import say, task
from trainshed.trainers.base import RunContext, TrainerSettings
from trainshed.trainers.checkpoints import written_into
from trainshed.trainers.packing import TokenRow, collate_rows, pack, pair_row, text_rows
from trainshed.trainers.token_loss import check_packing, weighted_token_loss
from trainshed.trainers.transformers_family import TransformersTrainer

#: the architecture that is built where the section ``model`` does not say otherwise
DEFAULT_SHAPE: Mapping[str, int] = {
    "hidden_size": 192,
    "num_layers": 4,
    "num_heads": 6,
    "intermediate_size": 512,
    "max_length": 512,
}
DEFAULT_VOCAB_SIZE = 4096
_TOKENIZE_AT_ONCE = 512
_VALIDATION = ("validation", "valid", "val", "dev")


class PretrainTrainer(TransformersTrainer):
    """Trains a causal language model on texts and pairs.

    Parameters
    ----------
    model
        Any causal language model of `transformers`, plain or with adapters.
    tokenizer
        Its tokenizer, with a token that ends a text.
    train_dataset
        Texts, ``{"text": ...}`` or ``{"prompt": ..., "completion": ...}``, mixed as one likes.
    eval_dataset
        The same, held out.
    parameters
        How rows are made of them.
    **more
        What `TransformersTrainer` takes: ``arguments``, ``seed``, ``settings``, ``callbacks``.

    Raises
    ------
    DataError
        When a row is neither, names the row.
    """

    algorithm: ClassVar[str] = "pretrain"
    parameters_class: ClassVar[type[PretrainParameters]] = PretrainParameters

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        train_dataset: Iterable[Any],
        *,
        eval_dataset: Iterable[Any] | None = None,
        parameters: PretrainParameters | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.model, self.tokenizer = model, tokenizer
        self.parameters = parameters or self.parameters_class()
        if self.parameters.packing:
            check_packing(model)
        if tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has no token that ends a text", fix="set its eos_token")
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit and self.parameters.block_size > limit:
            raise ConfigError(
                f"rows of {self.parameters.block_size} tokens are longer than the model's {limit}",
                where="training.block_size",
                fix=f"at most {limit}, or a larger model.max_length",
            )
        self._train = self._rows(train_dataset, "training text")
        self._eval = None if eval_dataset is None else self._rows(eval_dataset, "validation text")

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Make the trainer that a run's configuration describes, building tokenizer and model if need be."""
        config, training = context.config, context.config.training
        if training is None or not isinstance(training.own, cls.parameters_class):
            raise ConfigError(f"the run has no parameters of {cls.algorithm}", where="training")
        seed = config.execution.seed
        train, held_out = read_corpora(config.data, training.own.text_column, seed=seed)
        model, tokenizer = cls.make_model(config, training.own, train)
        return cls(
            model,
            tokenizer,
            train,
            eval_dataset=held_out or None,
            parameters=training.own,
            arguments=training.arguments,
            seed=seed,
            settings=TrainerSettings.from_context(context),
        )

    @classmethod
    def make_model(
        cls, config: RunConfig, own: Any, rows: Sequence[Mapping[str, str]]
    ) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load or build what a run trains, and its tokenizer.

        Parameters
        ----------
        config
            The run.
        own
            Its parameters, of `parameters_class`.
        rows
            Texts and pairs to train a tokenizer on.
        """
        seed = config.execution.seed
        if config.model.model_name_or_path is not None:
            return load_section(config.model, seed=derive_seed(seed, "pretrain", "adapters"))
        return build_section(
            config.model,
            rows,
            block_size=own.block_size,
            seed=derive_seed(seed, "pretrain", "weights"),
            device=config.execution.device,
        )

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self.model

    def train_data(self) -> Sequence[TokenRow]:
        """Return the rows to learn from."""
        return self._train

    def eval_data(self) -> Sequence[TokenRow] | None:
        """Return the held-out rows."""
        return self._eval

    def lengths(self, data: Sequence[TokenRow]) -> Sequence[int]:
        """Return the tokens of each row."""
        return [len(row) for row in data]

    def collate(self, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
        """Return a batch, padded on the right."""
        pad = self.tokenizer.pad_token_id
        return collate_rows(rows, self.tokenizer.eos_token_id if pad is None else pad)

    def loss_sum(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the tokens' negative log-likelihoods."""
        return weighted_token_loss(
            model, batch["input_ids"], batch["weights"], position_ids=batch.get("position_ids")
        )

    def loss_weight(self, batch: dict[str, Tensor]) -> float:
        """Return the sum of the tokens' weights."""
        return batch["weights"].sum().item()

    def save(self, path: str | Path) -> None:
        """Write weights (or adapters) and tokenizer in the Hugging Face layout."""
        with written_into(Path(path)) as partial:
            save_causal_lm(self.model, self.tokenizer, partial)

    def cut_text(self, ids: Sequence[int]) -> list[TokenRow]:
        """Return a text's tokens as rows of at most ``block_size``."""
        return text_rows(ids, self.parameters.block_size)

    def _rows(self, dataset: Iterable[Any], what: str) -> list[TokenRow]:
        """Return training rows: texts packed or cut, pairs as they are."""
        size, weight = self.parameters.block_size, self.parameters.prompt_loss_weight
        texts: list[TokenRow] = []
        pairs: list[TokenRow] = []
        given = list(dataset)
        end, cut = self.tokenizer.eos_token_id, 0
        with task(f"tokenize {what}", len(given)) as shown:
            for start in range(0, len(given), _TOKENIZE_AT_ONCE):
                part = [
                    self._parts(row, start + i)
                    for i, row in enumerate(given[start : start + _TOKENIZE_AT_ONCE])
                ]
                first = self._tokenize([prompt for prompt, _ in part])
                second = self._tokenize([completion or "" for _, completion in part])
                for number, (_, completion) in enumerate(part):
                    if completion is None:
                        texts += self.cut_text([*first[number], end])
                        continue
                    answer = [*second[number], end]
                    if len(answer) >= size:
                        raise DataError(
                            f"a completion of {len(answer)} tokens does not fit a row of {size}",
                            where=f"{what}, row {start + number + 1}",
                            fix=f"training.block_size: {len(answer) + 1} or more",
                        )
                    cut += len(first[number]) + len(answer) > size
                    pairs.append(pair_row(first[number], answer, size, weight))
                shown.advance(len(part))
        if cut:
            say(f"{what}: the beginning of {cut} prompts was cut to fit rows of {size} tokens")
        return (pack(texts, size) if self.parameters.packing else texts) + pairs

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        found = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return found["input_ids"]

    def _parts(self, row: Any, number: int) -> tuple[str, str | None]:
        """Return (text, None) or (prompt, completion)."""
        if isinstance(row, str):
            return row, None
        column = self.parameters.text_column
        known = [name for name in (column, "prompt", "completion") if isinstance(row.get(name), str)]
        if known == [column]:
            return row[column], None
        if {"prompt", "completion"} <= set(known):
            return row["prompt"], row["completion"]
        raise DataError(
            f"the row has neither a text nor a pair, but {', '.join(sorted(row)) or 'nothing'}",
            where=f"row {number + 1}",
            fix=f'{{"{column}": "..."}} or {{"prompt": "...", "completion": "..."}}',
        )


def read_texts(section: DataSection, split: str, text_column: str = "text") -> list[dict[str, Any]]:
    """Read the rows of a split.

    Parameters
    ----------
    section
        Names the dataset, its splits and columns.
    split
        ``train`` or ``validation``. A dataset without a validation split gives no rows for it.
    text_column
        Column that holds a text.

    Raises
    ------
    DataError
        When the dataset is missing or a row is neither a text nor a pair; names file and row.
    """
    if section.dataset_name is None:
        raise ConfigError(
            "no dataset is named", where="data.dataset_name", fix="a .jsonl file, a directory or a hub name"
        )
    held_out = split != "train"
    name = section.validation_split if held_out else section.train_split
    if held_out and not {name, *_VALIDATION} & set(
        known_splits(section.dataset_name, name=section.dataset_config)
    ):
        return []
    limit = section.max_eval_samples if held_out else section.max_train_samples
    columns = {ours: section.columns.get(ours, ours) for ours in ("prompt", "completion")}
    columns[text_column] = section.columns.get("text", text_column)
    rows = []
    opened = open_rows(section.dataset_name, split=name, name=section.dataset_config)
    for where, row in islice(opened, limit):
        found = {ours: row[theirs] for ours, theirs in columns.items() if isinstance(row.get(theirs), str)}
        if text_column not in found and not {"prompt", "completion"} <= found.keys():
            raise DataError(
                f"the row has neither a text nor a pair, but {', '.join(sorted(row)) or 'nothing'}",
                where=where,
                fix=f'{{"{text_column}": "..."}}, or {{"prompt": "...", "completion": "..."}}',
            )
        rows.append(found)
    return rows


def read_corpora(
    section: DataSection, text_column: str = "text", *, seed: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read the rows to train on and to hold out.

    A single dataset may mix texts and pairs (see `read_texts`). The sources of a mixture, the built-in
    corpus, and a dataset that is divided by fraction hold one or the other.

    Parameters
    ----------
    section
        Names the datasets, how they are mixed and what is held out.
    text_column
        Column that holds a text.
    seed
        Decides the mixture and the division: ``execution.seed``.

    Raises
    ------
    DataError
        When a dataset is missing or a row is neither a text nor a pair; names file and row.
    """
    divided = section.validation_fraction is not None or section.test_fraction is not None
    if not (section.mixture or divided or section.format or section.dataset_name == "builtin"):
        return read_texts(section, "train", text_column), read_texts(section, "validation", text_column)
    if text_column != "text":
        section = section.model_copy(update={"columns": {"text": text_column, **section.columns}})
    loaded = load_rows(section, accepts=accepted_formats("pretrain"), seed=seed)
    if loaded.format.conversational:
        raise DataError(
            "the rows are conversations, which pre-training does not take",
            where="data",
            fix="texts, or prompts and completions as text",
        )
    for note in loaded.notes:
        say(note)
    names = {"text": text_column, "prompt": "prompt", "completion": "completion"}
    train, held_out = (
        [{names[column]: row[column] for column in loaded.format.columns} for row in loaded.rows(split)]
        for split in ("train", "validation")
    )
    return train, held_out


def build_section(
    section: ModelSection,
    rows: Sequence[Mapping[str, str]],
    *,
    block_size: int,
    seed: int,
    device: str = "cpu",
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Build the model that a section describes, and train a tokenizer for it where none is named.

    Parameters
    ----------
    section
        Shape and vocabulary; what it leaves open is `DEFAULT_SHAPE`.
    rows
        Texts and pairs to train the tokenizer on.
    block_size
        Longest row; the model is built to take at least that.
    seed
        Decides the weights.
    device
        Where it will be trained: on a CPU plain attention is chosen, which is up to half as fast again there
        as the fused one on rows of a few hundred tokens.
    """
    tokenizer = make_tokenizer(section, rows)
    shape: dict[str, Any] = {
        name: getattr(section, name) or default for name, default in DEFAULT_SHAPE.items()
    }
    if section.max_length is None:
        shape["max_length"] = max(shape["max_length"], block_size)
    if section.hidden_size and not section.intermediate_size:
        shape["intermediate_size"] = section.hidden_size * 8 // 3
    model: Any = build_llama(tokenizer, seed=seed, **shape)
    attention = section.attn_implementation or ("eager" if resolve_device(device).type == "cpu" else None)
    if attention:
        model.set_attn_implementation(attention)
    lora = lora_settings(section)
    return (add_lora(model, lora, seed=seed) if lora else model), tokenizer


def make_tokenizer(section: ModelSection, rows: Sequence[Mapping[str, str]]) -> PreTrainedTokenizerBase:
    """Load the tokenizer that a section names, or train one on texts and pairs."""
    if section.tokenizer_name_or_path is not None:
        return load_tokenizer(section.tokenizer_name_or_path)
    texts = ("".join(row.values()) for row in rows)
    return train_byte_bpe(texts, vocab_size=section.vocab_size or DEFAULT_VOCAB_SIZE)
