"""A language of a few words, a small model of it, and rows to learn from."""

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

NUMBERS = [f"n{number}" for number in range(10)]
WORDS = ["<pad>", "</s>", "after", "is", ".", *NUMBERS]


def make_tokenizer():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="."))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def make_model(seed=0):
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def successors(count, seed=0, numbers=range(10)):
    """Pairs: the number that follows is chosen, any other is rejected."""
    rows, chance = [], random.Random(seed)
    for _ in range(count):
        number, other = chance.choice(list(numbers)), chance.randrange(9)
        right = (number + 1) % 10
        wrong = other if other < right else other + 1
        rows.append(
            {
                "prompt": " ".join(chance.choices(NUMBERS, k=2)) + f" . after n{number} is",
                "chosen": f" n{right}",
                "rejected": f" n{wrong}",
            }
        )
    return rows


def completions(rows):
    return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]


def unpaired(rows):
    """Good and bad answers by turns, those of one pair apart."""
    halves = []
    for good, bad in zip(rows, [*rows[1:], rows[0]], strict=True):
        halves.append({"prompt": good["prompt"], "completion": good["chosen"], "label": True})
        halves.append({"prompt": bad["prompt"], "completion": bad["rejected"], "label": False})
    return halves
