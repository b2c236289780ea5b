"""Metrics of labels for words: entities that BIO labels mark, and their F1.

An entity counts when its first and last word and its type are right, as in the CoNLL shared tasks (Tjong Kim
Sang and De Meulder 2003); the rules for labels out of place are those of the ``seqeval`` package as it comes.
Left out: other schemes, such as BIOES.
"""

from collections.abc import Iterable, Sequence

from trainshed.errors import DataError

OUTSIDE = "O"
Entity = tuple[str, int, int]


def is_bio(names: Iterable[str]) -> bool:
    """Return whether labels are of the BIO scheme: ``O``, and ``B-`` or ``I-`` before a type."""
    found = set(names)
    marked = {name for name in found if name[:2] in ("B-", "I-") and len(name) > 2}
    return bool(marked) and found <= marked | {OUTSIDE}


def entities(labels: Sequence[str]) -> list[Entity]:
    """Return the entities of one text as (type, first word, last word).

    An ``I-`` that does not go on with an entity of its type begins one.
    """
    found: list[Entity] = []
    kind, start = "", 0
    for place, label in enumerate([*labels, OUTSIDE]):
        mark, _, name = label.partition("-")
        if kind and (mark != "I" or name != kind):
            found.append((kind, start, place - 1))
            kind = ""
        if not kind and mark in ("B", "I"):
            kind, start = name, place
    return found


def entity_metrics(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return precision, recall and F1 over all entities, and the F1 of each type.

    Parameters
    ----------
    expected, predicted
        Labels of the words of each text.

    Returns
    -------
    dict
        ``entity_precision``, ``entity_recall``, ``entity_f1``, and ``f1/<type>``; 0 where nothing is
        predicted or nothing expected.

    Raises
    ------
    DataError
        When lengths differ.
    """
    truth, guess = _all_entities(expected), _all_entities(predicted)
    if [len(row) for row in expected] != [len(row) for row in predicted]:
        raise DataError("the texts have other numbers of predicted labels than of expected ones")
    precision, recall, f1 = _scores(truth, guess)
    metrics = {"entity_precision": precision, "entity_recall": recall, "entity_f1": f1}
    for kind in sorted({name for _, name, _, _ in truth | guess}):
        ours = {entity for entity in truth if entity[1] == kind}
        theirs = {entity for entity in guess if entity[1] == kind}
        metrics[f"f1/{kind}"] = _scores(ours, theirs)[2]
    return metrics


def _all_entities(rows: Sequence[Sequence[str]]) -> set[tuple[int, str, int, int]]:
    return {(number, *entity) for number, labels in enumerate(rows) for entity in entities(labels)}


def _scores(
    truth: set[tuple[int, str, int, int]], guess: set[tuple[int, str, int, int]]
) -> tuple[float, float, float]:
    hits = len(truth & guess)
    precision = hits / len(guess) if guess else 0.0
    recall = hits / len(truth) if truth else 0.0
    total = len(truth) + len(guess)
    return precision, recall, 2.0 * hits / total if total else 0.0
