"""Reads answers out of what models write: numbers, choices, yes or no."""

import re
from collections.abc import Mapping
from fractions import Fraction

_NUMBER = re.compile(
    r"(?<![\w.])(?<!\d:)(?P<sign>[-−]?)\s?[$€£]?\s?"
    r"(?:(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?P<decimals>\.\d+)?|(?P<bare>\.\d+))"
    r"(?:(?:\s(?P<top>\d+))?\s?/\s?(?P<bottom>[1-9]\d*))?(?!\d|:\d)"
)
_MARKERS = re.compile(r"####|answer\s*(?:is|:)|=(?=[^=]*$)", re.IGNORECASE)

TOLERANCE = Fraction(1, 10_000)
"""How far numbers may be apart, as a share of the right one (of 1, if that is smaller)."""


def parse_number(text: str) -> str:
    """Return the number that a text answers with: "84" of "Answer: 84.0", "#### 84", "84 apples".

    It is the first number after the last "####", "answer is" or "answer:"; of a text with none of
    these, the number after a final "=", or else the last one. Thousands may have commas; currency,
    units and percent signs are left out; "3/4" is 0.75 and "1 1/2" is 1.5.

    Returns:
        The number as whole or decimal digits, of a text without number the text itself.
    """
    after = text
    for marker in _MARKERS.finditer(text):
        if _NUMBER.search(text, marker.end()):
            after = text[marker.end() :]
    found = list(_NUMBER.finditer(after))
    if not found:
        return text.strip()
    return format_number(_value(found[0] if after is not text else found[-1]))


def _value(match: re.Match[str]) -> Fraction:
    whole = Fraction((match["whole"] or "0").replace(",", ""))
    value = whole + Fraction(match["decimals"] or match["bare"] or 0)
    if match["bottom"]:
        bottom = int(match["bottom"])
        value = value + Fraction(int(match["top"]), bottom) if match["top"] else value / bottom
    return -value if match["sign"] else value


def format_number(value: Fraction) -> str:
    """Return whole numbers without decimals, others with at most ten."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.10f}".rstrip("0").rstrip(".")


def numbers_agree(answer: str, target: str) -> bool:
    """Tell whether two parsed numbers are the same, up to ``TOLERANCE``."""
    try:
        given, right = Fraction(answer), Fraction(target)
    except ValueError:
        return False
    return abs(given - right) <= TOLERANCE * max(1, abs(right))


def parse_choice(text: str, choices: Mapping[str, str]) -> str:
    """Return the label that a text chooses: by label, by the words of a choice, or by place.

    "B", "(B)", "B.", "Answer: B", "B. cold", "cold" and "The answer is cold." all choose B of
    ``{"A": "hot", "B": "cold"}``; where labels are letters, "2" does too.

    Args:
        text: What was written.
        choices: Texts of the choices by label, in their order.

    Returns:
        The label, of a text that chooses none the text itself.
    """
    answer = re.sub(r"(?is)^.*\banswer\s*(?:is|:)\s*", "", text).strip()
    plain = _plain(answer)
    labels = {label.lower(): label for label in choices}
    if plain in labels:
        return labels[plain]
    same = [label for label, words in choices.items() if _plain(words) == plain]
    if len(same) == 1:
        return same[0]
    # Before the words: a label with anything that is not part of a word behind it.
    marked = re.match(r"\(?([A-Za-z0-9])(?:[).:]|\s*$|\n)", answer)
    if marked and marked[1].lower() in labels:
        return labels[marked[1].lower()]
    if plain.isdigit() and not any(label.isdigit() for label in choices):
        place = int(plain) - 1
        return list(choices)[place] if 0 <= place < len(choices) else text.strip()
    named = [label for label, words in choices.items() if _plain(words) and _plain(words) in plain]
    return named[0] if len(named) == 1 else text.strip()


def parse_yes_no(text: str) -> str:
    """Return "yes" or "no", whichever a text says first; of a text with neither the text itself."""
    found = re.search(r"(?i)\b(yes|no)\b", text)
    return found[1].lower() if found else text.strip()


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s%$/-]", " ", text.lower()).split())
