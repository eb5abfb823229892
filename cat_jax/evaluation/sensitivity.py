"""Sensitivity to an intervention: whether answers change when the right answer does, and only then.

Source: invariance and directional expectation tests (Ribeiro et al., Beyond Accuracy: Behavioral
Testing of NLP Models with CheckList, ACL 2020).
"""

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass

import numpy as np

from cat_jax.errors import InputError
from cat_jax.evaluation.statistics import Score, share_score

Judge = Callable[[str, str], bool]
"""Tells whether a parsed answer is as good as the target; ``Task.is_right``."""


@dataclass(frozen=True)
class Sensitivity:
    """What an intervention does to a model's answers; shares of the edited records.

    Attributes:
        changed: Answers that are not what they were.
        right: Answers that are right after the edit.
        rightly_changed: Of records whose right answer changed: answers that changed, and to the
            right one. None if there are no such records.
        wrongly_changed: Of records whose right answer stayed: answers that changed all the same,
            be it to the right one. None if there are no such records.
        unedited: Records that the intervention left as they were; they are in no share.
    """

    changed: Score
    right: Score
    rightly_changed: Score | None
    wrongly_changed: Score | None
    unedited: int = 0


def measure_sensitivity(
    before: Sequence[str],
    after: Sequence[str],
    targets_before: Sequence[str],
    targets_after: Sequence[str],
    judge: Judge = str.__eq__,
    *,
    edited: Sequence[bool] | None = None,
) -> Sensitivity:
    """Compare the answers to records before and after an intervention.

    Answers, and right answers, change if their texts differ, so all should be parsed alike
    (``Task.parse_answer``, ``Task.parse_reply``): "84" and "84.0" are two texts.

    Args:
        before: Parsed answers to the records as they were, [R].
        after: To the edited records, [R].
        targets_before: Right answers, [R].
        targets_after: Right answers after the edit, [R].
        judge: ``judge(answer, target)`` tells whether an answer is right; equality by default.
        edited: Which records the intervention changed, [R]; all by default. Interventions leave
            records as they are in which they find nothing to edit.

    Raises:
        InputError: The numbers of answers differ, or no record was edited.
    """
    _check_sizes(before, after, targets_before, targets_after)
    return score_sensitivity(
        [a != b for a, b in zip(before, after, strict=True)],
        [judge(answer, target) for answer, target in zip(after, targets_after, strict=True)],
        [a != b for a, b in zip(targets_before, targets_after, strict=True)],
        edited=edited,
    )


def score_sensitivity(
    changed: Sequence[bool] | np.ndarray,
    right: Sequence[bool] | np.ndarray,
    target_changed: Sequence[bool] | np.ndarray,
    *,
    edited: Sequence[bool] | np.ndarray | None = None,
) -> Sensitivity:
    """Return the same where what changed and what is right is known already.

    Args:
        changed: Whether each answer changed, [R].
        right: Whether each is right after the edit, [R].
        target_changed: Whether each right answer changed, [R].
        edited: Which records the intervention changed, [R]; all by default.

    Raises:
        InputError: The numbers of answers differ, or no record was edited.
    """
    edited = np.ones(len(changed), bool) if edited is None else np.asarray(edited, bool)
    shares = sensitivity_shares(changed, right, target_changed, edited)
    if not shares:
        raise InputError(
            f"the intervention edited none of {len(edited)} records, so there is no sensitivity; "
            "leave it out for this test set"
        )
    scores = {name: share_score(values) for name, values in shares.items()}
    return Sensitivity(
        scores["changed"],
        scores["right"],
        scores.get("rightly_changed"),
        scores.get("wrongly_changed"),
        int((~edited).sum()),
    )


def sensitivity_shares(
    changed: Sequence[bool] | np.ndarray,
    right: Sequence[bool] | np.ndarray,
    target_changed: Sequence[bool] | np.ndarray,
    edited: Sequence[bool] | np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the values of each share of ``Sensitivity`` by its name, bool; none of no record.

    Raises:
        InputError: The numbers of answers differ.
    """
    _check_sizes(changed, right, target_changed, edited)
    chosen = np.asarray(edited, bool)
    changed, right, moved = (
        np.asarray(values, bool)[chosen] for values in (changed, right, target_changed)
    )
    found = {
        "changed": changed,
        "right": right,
        "rightly_changed": (changed & right)[moved],
        "wrongly_changed": changed[~moved],
    }
    return {name: values for name, values in found.items() if values.size}


def _check_sizes(*values: Sized) -> None:
    sizes = [len(found) for found in values]
    if len(set(sizes)) > 1:
        listed = ", ".join(map(str, sizes))
        raise InputError(f"sensitivity needs the same records before and after, got {listed}")
