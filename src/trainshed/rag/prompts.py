"""Prompts as token ids whose parts (passage, question, answer) have exact boundaries.

A template names `{context}` and `{query}` once each, in either order. The order matters for speed: with the
question first, all passages of one question share a long part before the passage. The parts are tokenised
apart and concatenated as ids, so what is trained, scored and generated starts from the same ids. When a
prompt is too long, only the passage is cut.

Left out: conversations of several turns, and how several passages become one context (the caller joins them).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainshed.errors import ConfigError, DataError, ModelError
from trainshed.files import canonical_json, digest_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASSAGE_FIRST = "{context}\nQuestion: {query}\nAnswer:"
QUESTION_FIRST = "Question: {query}\nContext: {context}\nAnswer:"

_CONTEXT, _QUERY = "{context}", "{query}"
# Stand-ins that no tokenizer knows and no chat template has a reason to change.
_CONTEXT_MARK, _QUERY_MARK = "⟦0c0ntext0⟧", "⟦0query0⟧"


class PromptTemplate:
    """The text around a question and its passage.

    Parameters
    ----------
    text
        Has ``{context}`` and ``{query}`` once each; every other brace is literal.
    no_context
        The prompt for a question without a passage, with ``{query}`` once. By default ``text`` without the
        line of ``{context}``, or without the placeholder only if ``{query}`` is on that line too.
    answer_prefix
        What stands between the prompt and an answer; it counts as part of the answer's first token. Not used
        with a chat template, which ends in its own separator.
    chat
        Whether the prompt becomes the user message of the tokenizer's chat template. None means: if the
        tokenizer has one. True with a tokenizer that has none is an error.

    Raises
    ------
    ConfigError
        When a placeholder is missing or stands there twice.
    """

    def __init__(
        self, text: str, *, no_context: str | None = None, answer_prefix: str = " ", chat: bool | None = None
    ) -> None:
        for placeholder in (_CONTEXT, _QUERY):
            _require_once(text, placeholder, "the prompt template")
        self.text = text
        self.no_context = _without_context(text) if no_context is None else no_context
        _require_once(self.no_context, _QUERY, "the template for questions without a passage")
        if _CONTEXT in self.no_context:
            raise ConfigError(
                "the template for questions without a passage has a place for one",
                where=repr(self.no_context),
                fix="remove {context} from no_context",
            )
        self.answer_prefix = answer_prefix
        self.chat = chat

    @property
    def question_first(self) -> bool:
        """Whether the question stands before the passage, so that a question's passages share their start."""
        return self.text.index(_QUERY) < self.text.index(_CONTEXT)

    @property
    def digest(self) -> str:
        """A hash of everything that decides the prompt's text."""
        return digest_text(canonical_json([self.text, self.no_context, self.answer_prefix, self.chat]))

    def form(self, *, with_context: bool) -> str:
        """Return the template text for a question with or without a passage."""
        return self.text if with_context else self.no_context

    def uses_chat(self, tokenizer: "PreTrainedTokenizerBase") -> bool:
        """Return whether prompts for ``tokenizer`` go through its chat template.

        Raises
        ------
        ConfigError
            When a chat template is demanded and the tokenizer has none.
        """
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if self.chat and not has_template:
            raise ConfigError(
                "the prompt is to be a chat message, but the tokenizer has no chat template",
                where=str(getattr(tokenizer, "name_or_path", "") or "tokenizer"),
                fix="set chat to false, or use a tokenizer with a chat_template",
            )
        return has_template if self.chat is None else self.chat

    def __repr__(self) -> str:
        return f"PromptTemplate({self.text!r})"


@dataclass(slots=True)
class TokenizedPrompt:
    """One prompt as token ids in four parts, in the order in which the model reads them.

    Without a passage, or when a chat template does not let the parts be told apart, the whole prompt is
    ``prefix``.
    """

    prefix: list[int]
    """Everything before the passage, with the beginning-of-sequence token if the tokenizer adds one."""
    context: list[int] = field(default_factory=list)
    """The passage, as much of it as fits."""
    suffix: list[int] = field(default_factory=list)
    """Everything after the passage, up to the answer."""
    answer: list[int] = field(default_factory=list)
    """The answer and the end-of-sequence token; empty when there is no answer."""

    @property
    def input_ids(self) -> list[int]:
        """The four parts together."""
        return self.prefix + self.context + self.suffix + self.answer

    @property
    def prompt_ids(self) -> list[int]:
        """The parts before the answer."""
        return self.prefix + self.context + self.suffix

    def __len__(self) -> int:
        return len(self.prefix) + len(self.context) + len(self.suffix) + len(self.answer)


class PromptTokenizer:
    """Turns questions, passages and answers into `TokenizedPrompt` for one template and tokenizer.

    Parameters
    ----------
    template
        The text around them.
    tokenizer
        Any Hugging Face tokenizer.
    max_length
        The longest prompt and answer together, in tokens.
    """

    def __init__(
        self, template: PromptTemplate, tokenizer: "PreTrainedTokenizerBase", *, max_length: int
    ) -> None:
        self.template, self.tokenizer, self.max_length = template, tokenizer, max_length
        self.chat = template.uses_chat(tokenizer)
        self._start = [] if self.chat else _start_ids(tokenizer)
        special = getattr(tokenizer, "all_special_tokens", [])
        self._special = [token for token in special if token]

    def question(
        self,
        query: str,
        contexts: Sequence[str | None],
        answer: str | None = None,
        *,
        question_id: str | None = None,
    ) -> list[TokenizedPrompt]:
        """Tokenise one question with each of its passages; what they share is tokenised once.

        Parameters
        ----------
        query
            The question.
        contexts
            Its passages; None stands for no passage.
        answer
            The answer, which gets the end-of-sequence token; None leaves it out.
        question_id
            What an error calls the question; its text when None.

        Returns
        -------
        list[TokenizedPrompt]
            One for each of ``contexts``, none longer than ``max_length``.

        Raises
        ------
        DataError
            When the question and the answer alone are longer than ``max_length``.
        ModelError
            When there is an answer and the tokenizer has no end-of-sequence token.
        """
        ending = [] if answer is None else self._answer(answer)
        where = f"question {question_id or repr(query)}"
        shared: TokenizedPrompt | None = None
        prompts = []
        for context in contexts:
            if context is None:
                prompt = TokenizedPrompt(self._without_passage(query), answer=ending)
                self._room(prompt, where)
            elif (pieces := self._pieces(query, context)) is None:
                prompt = self._whole(query, context, ending, where)
            else:
                if shared is None:
                    before, after = (self._encode(piece, query) for piece in pieces)
                    shared = TokenizedPrompt(self._start + before, [], after, ending)
                passage = self._encode_literally(context)[: self._room(shared, where)]
                prompt = TokenizedPrompt(shared.prefix, passage, shared.suffix, ending)
            prompts.append(prompt)
        return prompts

    def _answer(self, answer: str) -> list[int]:
        """Return an answer's ids with the end-of-sequence token."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token, so no answer can end",
                where=str(getattr(self.tokenizer, "name_or_path", "") or "tokenizer"),
                fix="set tokenizer.eos_token",
            )
        return [*self._encode_literally(answer if self.chat else self.template.answer_prefix + answer), end]

    def _room(self, prompt: TokenizedPrompt, where: str) -> int:
        """Return how many tokens are left for a passage, or raise when the rest alone is too long."""
        needed = len(prompt)
        if needed == len(prompt.answer):
            raise DataError("the prompt is empty", where=where, fix="give the question a text")
        if needed > self.max_length:
            raise DataError(
                f"question and answer alone are {needed} tokens, more than max_length = {self.max_length}",
                where=where,
                fix=f"set max_length to at least {needed}, use a shorter template, or leave the question out",
            )
        return self.max_length - needed

    def _without_passage(self, query: str) -> list[int]:
        marked = self.template.no_context.replace(_QUERY, _QUERY_MARK)
        if not self.chat:
            return self._start + self._encode(marked, query)
        message, real = self._message(marked), self._message(marked.replace(_QUERY_MARK, query))
        return self._encode(message, query) if _same(message, query, real) else self._ids(real)

    def _message(self, content: str) -> str:
        """Return ``content`` as the user message of the chat template, ready for the answer."""
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        )

    def _pieces(self, query: str, context: str) -> tuple[str, str] | None:
        """Return the text before and after the passage, the question still marked.

        None when a chat template interferes: when it repeats, trims or rewrites what it is given, the real
        message is not the marked one with the marks replaced.
        """
        marked = self.template.text.replace(_QUERY, _QUERY_MARK)
        if not self.chat:
            before, after = marked.split(_CONTEXT)
            return before, after
        message = self._message(marked.replace(_CONTEXT, _CONTEXT_MARK))
        if message.count(_CONTEXT_MARK) != 1:
            return None
        before, after = message.split(_CONTEXT_MARK)
        real = self._message(self._fill(query, context))
        return (before, after) if _same(before + context + after, query, real) else None

    def _fill(self, query: str, context: str) -> str:
        """Return the template's text with question and passage; braces inside them stay literal."""
        before, after = self.template.text.split(_CONTEXT)
        return before.replace(_QUERY, query) + context + after.replace(_QUERY, query)

    def _whole(self, query: str, context: str, ending: list[int], where: str) -> TokenizedPrompt:
        """Tokenise a chat message that cannot be split; the passage is shortened until it fits."""
        empty = self._ids(self._message(self._fill(query, "")))
        self._room(TokenizedPrompt(empty, answer=ending), where)
        passage = self._encode_literally(context)
        while True:
            prompt = TokenizedPrompt(self._ids(self._message(self._fill(query, context))), answer=ending)
            excess = len(prompt) - self.max_length
            if excess <= 0 or not passage:
                return prompt
            passage = passage[:-excess]
            context = str(self.tokenizer.decode(passage)) if passage else ""

    def _encode(self, marked: str, query: str) -> list[int]:
        """Return the ids of template text; a special token that the question spells out stays plain text."""
        if _QUERY_MARK in marked and any(token in query for token in self._special):
            before, after = marked.split(_QUERY_MARK)
            return self._ids(before) + self._encode_literally(query) + self._ids(after)
        return self._ids(marked.replace(_QUERY_MARK, query))

    def _encode_literally(self, text: str) -> list[int]:
        """Return the ids of text from outside, in which a special token is plain text."""
        return self._ids(text, split_special_tokens=any(token in text for token in self._special))

    def _ids(self, text: str, *, split_special_tokens: bool = False) -> list[int]:
        if not text:
            return []
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=split_special_tokens, verbose=False
        )
        return list(encoded["input_ids"])


def tokenize(
    template: PromptTemplate,
    tokenizer: "PreTrainedTokenizerBase",
    query: str,
    context: str | None = None,
    answer: str | None = None,
    *,
    max_length: int,
    question_id: str | None = None,
) -> TokenizedPrompt:
    """Tokenise one question with one passage, or without; see `PromptTokenizer.question`."""
    prompts = PromptTokenizer(template, tokenizer, max_length=max_length)
    return prompts.question(query, [context], answer, question_id=question_id)[0]


def _require_once(text: str, placeholder: str, what: str) -> None:
    count = text.count(placeholder)
    if count != 1:
        raise ConfigError(
            f"{what} has {placeholder} {count} times",
            where=repr(text),
            fix=f"write {placeholder} exactly once",
        )


def _without_context(text: str) -> str:
    """Return a template without its passage, and without the line it stood on (its label too)."""
    lines = [line for line in text.split("\n") if _CONTEXT not in line or _QUERY in line]
    return "\n".join(lines).replace(_CONTEXT, "")


def _same(marked: str, query: str, real: str) -> bool:
    """Return whether text with the question's mark is ``real`` once the question stands there."""
    return marked.count(_QUERY_MARK) <= 1 and marked.replace(_QUERY_MARK, query) == real


def _start_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return what the tokenizer puts before every text (a beginning-of-sequence token, or nothing)."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start]
    return []
