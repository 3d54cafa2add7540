"""conlleval once more, in its own way: one pass over all words with a state, and tables of what ends and what begins.

The script of the CoNLL-2000 shared task compares two columns line by line and never holds an entity. Written from its
rules, for tests.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

_ENDS = {"BB", "BO", "IB", "IO"}
"""Letters of two tags in a row between which an entity ends, whatever their types."""
_BEGINS = {"BB", "IB", "OB", "OI"}
BORDER = ("O", "")


def counts(predicted: Iterable[Sequence[str]], true: Iterable[Sequence[str]]) -> dict[str, Counter[str]]:
    """Numbers of right, found and wanted entities by type, for tags of IOB1 or IOB2, whether well formed or not."""
    numbers: dict[str, Counter[str]] = {name: Counter() for name in ("right", "found", "wanted")}
    last_guess = last_truth = BORDER
    is_right_so_far = False
    for guess, truth in _words(predicted, true):
        guess_ends, truth_ends = _ends(last_guess, guess), _ends(last_truth, truth)
        if is_right_so_far:
            if guess_ends and truth_ends and last_guess[1] == last_truth[1]:
                is_right_so_far = False
                numbers["right"][last_truth[1]] += 1
            elif guess_ends != truth_ends or guess[1] != truth[1]:
                is_right_so_far = False
        guess_begins, truth_begins = _begins(last_guess, guess), _begins(last_truth, truth)
        if guess_begins and truth_begins and guess[1] == truth[1]:
            is_right_so_far = True
        if truth_begins:
            numbers["wanted"][truth[1]] += 1
        if guess_begins:
            numbers["found"][guess[1]] += 1
        last_guess, last_truth = guess, truth
    return numbers


def _words(
    predicted: Iterable[Sequence[str]], true: Iterable[Sequence[str]]
) -> Iterable[tuple[tuple[str, str], tuple[str, str]]]:
    """Predicted and true tag of each word, with a border behind each sentence."""
    for guesses, truths in zip(predicted, true, strict=True):
        for guess, truth in zip(guesses, truths, strict=True):
            yield _split(guess), _split(truth)
        yield BORDER, BORDER


def _split(tag: str) -> tuple[str, str]:
    letter, _, kind = tag.partition("-")
    return letter, kind


def _ends(last: tuple[str, str], now: tuple[str, str]) -> bool:
    return last[0] + now[0] in _ENDS or (last[0] != "O" and last[1] != now[1])


def _begins(last: tuple[str, str], now: tuple[str, str]) -> bool:
    return last[0] + now[0] in _BEGINS or (now[0] != "O" and last[1] != now[1])
