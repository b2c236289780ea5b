"""The built-in corpus, built once for all tests, a chat template, and a tokenizer with a first token."""

import copy

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from trainshed.data.builtin import build_corpus
from trainshed.data.corpus import Corpus


@pytest.fixture(scope="session")
def builtin_corpus() -> Corpus:
    return build_corpus()


@pytest.fixture(scope="session")
def small_corpus() -> Corpus:
    return build_corpus(max_passages=300, seed=1)


@pytest.fixture(scope="session")
def chat_template() -> str:
    """Marks each turn and ends it, marks what the assistant says, and refuses tools."""
    return (
        "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
        "<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<eos>"
        "{% endgeneration %}{% else %}{{ m['content'] }}<eos>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


@pytest.fixture(scope="session")
def chatty(tokenizer, chat_template):
    """A tokenizer that writes conversations."""
    made = copy.deepcopy(tokenizer)
    made.chat_template = chat_template
    return made


@pytest.fixture(scope="session")
def with_bos():
    """A tokenizer that puts a token before every text, as Llama's does."""
    words = {word: number for number, word in enumerate(["<s>", "</s>", "<unk>", "a", "b", "c", "d"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
