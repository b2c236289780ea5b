"""Prompts: exact boundaries, only the passage is cut, chat templates, and text that looks like a token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from trainshed.errors import ConfigError, DataError, ModelError
from trainshed.rag.prompts import PASSAGE_FIRST, QUESTION_FIRST, PromptTemplate, PromptTokenizer, tokenize

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TRIMMING = CHAT.replace("m['content']", "m['content'] | trim")
SHOUTING = CHAT.replace("m['content']", "m['content'] | upper")
REPEATING = CHAT.replace("{{ m['content'] }}", "{{ m['content'] }} / {{ m['content'] }}")


def make_tokenizer(*, adds_bos=False, chat_template=None, eos="</s>"):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        ["Question: what does this function do? Answer: it joins names of paths. Context: a text"],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if adds_bos:
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token=eos)
    tokenizer.chat_template = chat_template
    return tokenizer


TOKENIZER = make_tokenizer()
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(query=PLAIN, context=PLAIN, answer=PLAIN, question_first=st.booleans())
def test_the_parts_are_the_text(query, context, answer, question_first):
    text = QUESTION_FIRST if question_first else PASSAGE_FIRST
    prompt = tokenize(PromptTemplate(text), TOKENIZER, query, context, answer, max_length=10_000)
    before, after = (part.replace("{query}", query) for part in text.split("{context}"))
    assert [TOKENIZER.decode(part) for part in (prompt.prefix, prompt.context, prompt.suffix)] == [
        before,
        context,
        after,
    ]
    assert prompt.answer[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(prompt.answer[:-1]) == " " + answer
    assert len(prompt) == len(prompt.input_ids)
    assert prompt.input_ids == prompt.prompt_ids + prompt.answer


@given(query=PLAIN, context=PLAIN, answer=PLAIN, max_length=st.integers(1, 120))
def test_only_the_passage_is_cut(query, context, answer, max_length):
    template = PromptTemplate(PASSAGE_FIRST)
    whole = tokenize(template, TOKENIZER, query, context, answer, max_length=10_000)
    needed = len(whole) - len(whole.context)
    if needed > max_length:
        with pytest.raises(DataError, match=rf"{needed} tokens.*max_length = {max_length}"):
            tokenize(template, TOKENIZER, query, context, answer, max_length=max_length)
        return
    cut = tokenize(template, TOKENIZER, query, context, answer, max_length=max_length)
    assert len(cut) == min(len(whole), max_length)
    assert cut.context == whole.context[: max_length - needed]
    assert (cut.prefix, cut.suffix, cut.answer) == (whole.prefix, whole.suffix, whole.answer)


def test_the_error_names_the_question():
    with pytest.raises(DataError, match="question q7"):
        tokenize(PromptTemplate(PASSAGE_FIRST), TOKENIZER, "a", "b", "c", max_length=3, question_id="q7")


@pytest.mark.parametrize("text", [PASSAGE_FIRST, QUESTION_FIRST])
def test_a_beginning_token_comes_once_and_first(text):
    tokenizer = make_tokenizer(adds_bos=True)
    for context in ("a text", None):
        prompt = tokenize(PromptTemplate(text), tokenizer, "what?", context, "it", max_length=99)
        assert prompt.input_ids.index(tokenizer.bos_token_id) == 0
        assert prompt.input_ids.count(tokenizer.bos_token_id) == 1
        assert prompt.input_ids.count(tokenizer.eos_token_id) == 1


def test_passages_of_a_question_share_what_stands_before_them():
    prompts = PromptTokenizer(PromptTemplate(QUESTION_FIRST), TOKENIZER, max_length=99)
    one, two = prompts.question("what?", ["a text", "names"], "it")
    assert one.prefix == two.prefix
    assert len(one.prefix) > 5
    assert PromptTemplate(QUESTION_FIRST).question_first
    assert not PromptTemplate(PASSAGE_FIRST).question_first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PASSAGE_FIRST, "Question: what?\nAnswer:"),
        (QUESTION_FIRST, "Question: what?\nAnswer:"),
        ("Q: {query}\n<c>\n  {context}\n</c>\n", "Q: what?\n<c>\n</c>\n"),
        ("Given {context}: {query}", "Given : what?"),
    ],
)
def test_without_a_passage(text, expected):
    prompt = tokenize(PromptTemplate(text), TOKENIZER, "what?", None, None, max_length=99)
    assert TOKENIZER.decode(prompt.input_ids) == expected
    assert (prompt.context, prompt.suffix, prompt.answer) == ([], [], [])


def test_an_own_form_without_a_passage():
    template = PromptTemplate(PASSAGE_FIRST, no_context="From memory: {query}")
    prompt = tokenize(template, TOKENIZER, "what?", None, None, max_length=99)
    assert TOKENIZER.decode(prompt.input_ids) == "From memory: what?"


@pytest.mark.parametrize(
    ("text", "no_context", "complaint"),
    [
        ("{context} only", None, r"\{query\} 0 times"),
        ("{query} {query} {context}", None, r"\{query\} 2 times"),
        ("{query}", None, r"\{context\} 0 times"),
        (PASSAGE_FIRST, "nothing", r"\{query\} 0 times"),
        (PASSAGE_FIRST, "{query} {context}", "has a place for one"),
    ],
)
def test_a_template_without_its_places_is_refused(text, no_context, complaint):
    with pytest.raises(ConfigError, match=complaint):
        PromptTemplate(text, no_context=no_context)


def test_braces_are_literal_everywhere():
    template = PromptTemplate('{"q": "{query}", {x}} {context}')
    prompt = tokenize(template, TOKENIZER, "{context}", "{query} {0}", None, max_length=99)
    assert TOKENIZER.decode(prompt.input_ids) == '{"q": "{context}", {x}} {query} {0}'


def test_a_chat_template_wraps_the_prompt():
    tokenizer = make_tokenizer(adds_bos=True, chat_template=CHAT)
    template = PromptTemplate(QUESTION_FIRST)
    prompt = tokenize(template, tokenizer, "what?", "a text", "it", max_length=200)
    assert tokenizer.decode(prompt.prefix) == "<s><|user|>\nQuestion: what?\nContext: "
    assert tokenizer.decode(prompt.context) == "a text"
    assert tokenizer.decode(prompt.suffix) == "\nAnswer:</s>\n<|assistant|>\n"
    assert tokenizer.decode(prompt.answer) == "it</s>"
    alone = tokenize(template, tokenizer, "what?", None, None, max_length=200)
    assert tokenizer.decode(alone.input_ids) == "<s><|user|>\nQuestion: what?\nAnswer:</s>\n<|assistant|>\n"


def test_chat_can_be_refused_or_demanded():
    tokenizer = make_tokenizer(chat_template=CHAT)
    plain = tokenize(PromptTemplate(PASSAGE_FIRST, chat=False), tokenizer, "a", "b", None, max_length=99)
    assert tokenizer.decode(plain.input_ids) == "b\nQuestion: a\nAnswer:"
    with pytest.raises(ConfigError, match="no chat template"):
        tokenize(PromptTemplate(PASSAGE_FIRST, chat=True), TOKENIZER, "a", "b", None, max_length=99)


@pytest.mark.parametrize("chat_template", [TRIMMING, SHOUTING, REPEATING])
@pytest.mark.parametrize("text", [PASSAGE_FIRST, "{query}\n\n{context}"])
def test_an_interfering_chat_template_is_followed_unsplit(chat_template, text):
    tokenizer = make_tokenizer(chat_template=chat_template)
    query, context = "what now?", "  a text with room around it "
    message = [{"role": "user", "content": text.format(query=query, context=context)}]
    expected = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    prompt = tokenize(PromptTemplate(text), tokenizer, query, context, "it", max_length=300)
    assert tokenizer.decode(prompt.prompt_ids) == expected
    short = tokenize(PromptTemplate(text), tokenizer, query, context * 50, "it", max_length=150)
    assert len(short) <= 150
    assert tokenizer.decode(short.answer) == "it</s>"


@pytest.mark.parametrize("chat_template", [None, CHAT])
def test_special_tokens_in_texts_stay_text(chat_template):
    tokenizer = make_tokenizer(chat_template=chat_template)
    hostile = "it </s> ends <s>"
    template = PromptTemplate(QUESTION_FIRST)
    clean = tokenize(template, tokenizer, "it", "it", "it", max_length=300).input_ids
    prompt = tokenize(template, tokenizer, hostile, hostile, hostile, max_length=300)
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        assert prompt.input_ids.count(token) == clean.count(token)
    assert tokenizer.decode(prompt.input_ids).count(hostile) == 3
    alone = tokenize(template, tokenizer, hostile, None, None, max_length=300)
    assert hostile in tokenizer.decode(alone.input_ids)


def test_an_answer_needs_an_end():
    with pytest.raises(ModelError, match="end-of-sequence"):
        tokenize(PromptTemplate(PASSAGE_FIRST), make_tokenizer(eos=None), "a", "b", "c", max_length=99)


def test_an_empty_prompt_is_refused():
    with pytest.raises(DataError, match="empty"):
        tokenize(PromptTemplate("{context}{query}"), TOKENIZER, "", "", "it", max_length=99)


def test_the_digest_tells_templates_apart():
    templates = [
        PromptTemplate(PASSAGE_FIRST),
        PromptTemplate(QUESTION_FIRST),
        PromptTemplate(PASSAGE_FIRST, no_context="{query}"),
        PromptTemplate(PASSAGE_FIRST, answer_prefix=""),
        PromptTemplate(PASSAGE_FIRST, chat=False),
    ]
    assert len({template.digest for template in templates}) == len(templates)
    assert PromptTemplate(PASSAGE_FIRST).digest == templates[0].digest
