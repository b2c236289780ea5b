"""A whole tiny RAG system: 40 passages, a BERT encoder and a Llama, both with some ten thousand weights.

Each passage says which word an animal keeps, each question asks for it. Everything heavy is imported inside.
"""

import copy
import itertools
import random

import pytest

COLORS = ["red", "blue", "green", "white", "black", "brown", "grey", "pink"]
ANIMALS = ["cat", "dog", "fox", "owl", "hen"]
STARTS, ENDS = ["ka", "lo", "mi", "ne", "su"], ["bor", "dan", "fir", "gul"]
ANSWERS = ["".join(pair) for pair in itertools.product(STARTS, ENDS)]
ANSWERS += [word[::-1] for word in ANSWERS]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["the", "keeps", "word", "which", "has", "?", *COLORS, *ANIMALS, *ANSWERS]


def passage_text(color: str, animal: str, answer: str) -> str:
    return f"the {color} {animal} keeps the word {answer}"


def question_text(color: str, animal: str) -> str:
    return f"which word has the {color} {animal} ?"


@pytest.fixture(scope="session")
def facts():
    """Return (color, animal, answer) of every passage."""
    pairs = itertools.product(COLORS, ANIMALS)
    return [(color, animal, ANSWERS[number]) for number, (color, animal) in enumerate(pairs)]


@pytest.fixture(scope="session")
def passages(facts):
    from trainshed.data.passages import Passage

    texts = [passage_text(*fact) for fact in facts]
    return [
        Passage(f"p{row}", text, title=f"page {row}", doc_id=f"d{row // 4}", start=100, end=100 + len(text))
        for row, text in enumerate(texts)
    ]


@pytest.fixture(scope="session")
def examples(facts):
    from trainshed.data.examples import RagExample

    return [
        RagExample(question_text(color, animal), answer, id=f"q{row}", passage_id=f"p{row}")
        for row, (color, animal, answer) in enumerate(facts)
    ]


def save_bert(directory, seed: int):
    """Write a plain AutoModel encoder that knows `WORDS`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.2,
        hidden_dropout_prob=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def encoder_directory(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("encoder"), seed=0)


@pytest.fixture(scope="session")
def other_encoder_directory(tmp_path_factory):
    """The same architecture with other weights."""
    return save_bert(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="session")
def tokenizer(facts):
    from trainshed.models.tokenizers import train_byte_bpe

    texts = [
        passage_text(*fact) + f"\nQuestion: {question_text(*fact[:2])}\nAnswer: {fact[2]}" for fact in facts
    ]
    return train_byte_bpe(texts, vocab_size=520)


@pytest.fixture(scope="session")
def random_llama(tokenizer):
    from trainshed.models.build import build_llama

    return build_llama(
        tokenizer,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        max_length=128,
        seed=0,
    )


@pytest.fixture(scope="session")
def copying_llama(random_llama, tokenizer):
    """A decoder that reads the answer from the passage, whatever the question."""
    import torch

    from trainshed.rag.answer_logits import AnswerModel
    from trainshed.rag.instances import build_instances, ralt_backward
    from trainshed.rag.prompts import PASSAGE_FIRST, PromptTemplate, PromptTokenizer

    model = copy.deepcopy(random_llama).train()
    prompts = PromptTokenizer(PromptTemplate(PASSAGE_FIRST), tokenizer, max_length=128)
    draw = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    steps = 300
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    for _ in range(steps):
        batch = []
        for _ in range(16):
            c, a, y = (
                int(torch.randint(n, (), generator=draw)) for n in (len(COLORS), len(ANIMALS), len(ANSWERS))
            )
            text = passage_text(COLORS[c], ANIMALS[a], ANSWERS[y])
            batch += build_instances(prompts, question_text(COLORS[c], ANIMALS[a]), [text], ANSWERS[y])
        ralt_backward(AnswerModel(model), batch)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


@pytest.fixture
def make_system(passages, encoder_directory, random_llama, tokenizer):
    """Return a function that makes a new system, which nothing else shares."""
    from trainshed.models.encoders import load_encoder
    from trainshed.rag.building import build_store
    from trainshed.rag.generator import Generator
    from trainshed.rag.retriever import Retriever
    from trainshed.rag.system import RAGConfig, RAGSystem

    def make(*, model=None, store="memory", reranker=None, **config):
        retriever = Retriever(load_encoder(str(encoder_directory)), name="tiny")
        return RAGSystem(
            generator=Generator(copy.deepcopy(model or random_llama), tokenizer),
            retriever=retriever,
            knowledge_store=build_store(passages, retriever, store=store),
            rag_config=RAGConfig(**{"top_k": 3, "max_new_tokens": 6, **config}),
            reranker=reranker,
        )

    return make


#: what a policy chooses from
CHOICES = [f"k{number}" for number in range(8)]


@pytest.fixture(scope="session")
def choosing_tokenizer():
    """Return a tokenizer of `CHOICES`, a word a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = {word: number for number, word in enumerate(["<pad>", "<eos>", ":", *CHOICES])}
    words = Tokenizer(models.WordLevel(known, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture(scope="session")
def choosing_rows():
    """Return prompts of three choices, of which the first is right: to learn from, and held out."""
    rows = [{"prompt": f"{' '.join(c)} :", "answer": c[0]} for c in itertools.permutations(CHOICES, 3)]
    random.Random(0).shuffle(rows)
    return rows[:-80], rows[-80:]


@pytest.fixture(scope="session")
def choosing_llama(choosing_tokenizer, choosing_rows):
    """A decoder that answers with any one of the choices and ends, so that one in three is right."""
    from trainshed.config.trainers.pretrain import PretrainParameters
    from trainshed.models.build import build_llama
    from trainshed.trainers.base import TrainerSettings
    from trainshed.trainers.pretrain import PretrainTrainer

    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64, "max_length": 16}
    model = build_llama(choosing_tokenizer, seed=0, **shape)
    chance = random.Random(0)
    rows = [
        {"prompt": row["prompt"], "completion": f" {chance.choice(row['prompt'].split()[:3])}"}
        for row in choosing_rows[0] * 3
    ]
    PretrainTrainer(
        model,
        choosing_tokenizer,
        rows,
        parameters=PretrainParameters(block_size=8, prompt_loss_weight=0.0),
        arguments={
            "max_steps": 300,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 32,
            "lr_scheduler_type": "cosine",
        },
        settings=TrainerSettings(device="cpu"),
    ).train()
    return model
