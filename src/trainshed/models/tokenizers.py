"""A byte-level BPE tokenizer trained on given texts.

Byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2): every text can be written, so there is no
unknown token. Left out: loading existing tokenizers (see `causal_lm`).
"""

from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerFast

from trainshed.errors import ConfigError, DataError

#: characters of the byte alphabet, which every vocabulary holds
_BYTES = 256


def train_byte_bpe(
    texts: Iterable[str], *, vocab_size: int, special_tokens: Sequence[str] = ("<pad>", "<eos>")
) -> PreTrainedTokenizerFast:
    """Train a tokenizer; the same texts in the same order give the same one.

    Parameters
    ----------
    texts
        What to learn merges from.
    vocab_size
        Most entries, special tokens and the 256 bytes included; a small corpus gives fewer.
    special_tokens
        The first pads, the second ends a text (and begins none); others are kept whole.

    Raises
    ------
    ConfigError
        When the vocabulary has no room for the bytes, or fewer than two special tokens are given.
    DataError
        When there is no text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    least = _BYTES + len(special_tokens)
    if vocab_size < least:
        raise ConfigError(
            f"{vocab_size} entries have no room for 256 bytes and {len(special_tokens)} special tokens",
            where="vocab_size",
            fix=f"at least {least}",
        )
    if len(special_tokens) < 2 or len(set(special_tokens)) < len(special_tokens):
        raise ConfigError(
            f"special tokens must be at least two different ones, not {list(special_tokens)}",
            where="special_tokens",
            fix="the padding token, then the token that ends a text",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    seen = False

    def given() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen = seen or bool(text)
            yield text

    tokenizer.train_from_iterator(
        given(),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(special_tokens),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    if not seen:
        raise DataError("there is no text to train a tokenizer on", fix="give at least one text")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special_tokens[0],
        eos_token=special_tokens[1],
        additional_special_tokens=list(special_tokens[2:]) or None,
        clean_up_tokenization_spaces=False,
    )


def train_encoder_bpe(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer for an encoder: ``<cls>`` before a text, ``<eos>`` after it and after a second one.

    Parameters
    ----------
    texts, vocab_size
        As for `train_byte_bpe`.
    """
    from tokenizers.processors import TemplateProcessing

    tokenizer = train_byte_bpe(texts, vocab_size=vocab_size, special_tokens=("<pad>", "<eos>", "<cls>"))
    inner = tokenizer.backend_tokenizer
    inner.post_processor = TemplateProcessing(
        single="<cls> $A <eos>",
        pair="<cls> $A <eos> $B:1 <eos>:1",
        special_tokens=[(name, inner.token_to_id(name)) for name in ("<cls>", "<eos>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        cls_token="<cls>",
        sep_token="<eos>",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
