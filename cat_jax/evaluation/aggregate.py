"""Several evaluations of one task together: seeds of a method, and methods beside each other."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cat_jax.errors import InputError
from cat_jax.evaluation.results import Evaluation, is_absolute
from cat_jax.evaluation.statistics import PairedTest, Score, mean_score, paired_test, share_score


def aggregate_scores(
    evaluations: Sequence[Evaluation],
) -> tuple[dict[str, dict[str, Score]], dict[str, dict[str, Score]]]:
    """Return the scores of one method over its seeds, with 95 % intervals.

    The interval of one seed is Wilson's for shares, and a bootstrap over records for errors; of
    several seeds it is a bootstrap over seeds and records (``mean_interval``).

    Args:
        evaluations: Of one task, one for each seed.

    Returns:
        Scores by test set, as ``TestAnswers.scores`` names them, and by intervention, as
        ``Evaluation.intervention_shares`` does.
    """
    first = evaluations[0]
    crossed = {name: _is_crossed(evaluations, name) for name in first.sets}
    tests = {
        name: _over_seeds([_test_values(found, name) for found in evaluations], crossed[name])
        for name in first.sets
    }
    edited = crossed[next(iter(first.sets))]
    interventions = {
        name: _over_seeds([found.intervention_shares(name) for found in evaluations], edited)
        for name in first.edited
    }
    return tests, interventions


def _test_values(evaluation: Evaluation, name: str) -> dict[str, np.ndarray]:
    found = evaluation.sets[name]
    errors = {key: x[np.isfinite(x)] for key, x in found.measured.items() if is_absolute(key)}
    return found.shares | {key: values for key, values in errors.items() if values.size}


def _over_seeds(seeds: Sequence[dict[str, np.ndarray]], crossed: bool) -> dict[str, Score]:
    """Aggregate each score over the seeds that have it."""
    names = dict.fromkeys(name for values in seeds for name in values)
    found = {}
    for name in names:
        values = [seed[name] for seed in seeds if name in seed]
        if len(values) == 1 and not is_absolute(name):
            found[name] = share_score(values[0])
        else:
            # Errors of answers that are no numbers are left out: records no longer line up.
            same = crossed and len({len(x) for x in values}) == 1
            found[name] = mean_score(values, crossed=same)
    return found


def _is_crossed(evaluations: Sequence[Evaluation], name: str) -> bool:
    """Tell whether the seeds answered the same records."""
    first, *others = (found.sets[name].records for found in evaluations)
    return all(records == first for records in others)


def paired_tests(
    first: Sequence[Evaluation], second: Sequence[Evaluation]
) -> dict[str, PairedTest]:
    """Compare two methods on every test set, seed by seed on the same records.

    Args:
        first: Evaluations of one method, by seed.
        second: Of the other, the same seeds in the same order.

    Raises:
        InputError: The seeds answered other records, or there are not as many.
    """
    if len(first) != len(second):
        raise InputError(
            f"a paired test needs the same seeds of both methods, got {len(first)} and "
            f"{len(second)}"
        )
    tests = {}
    for name in first[0].sets:
        pairs = [(a.sets[name], b.sets[name]) for a, b in zip(first, second, strict=True)]
        if any(a.targets != b.targets for a, b in pairs):
            raise InputError(
                f"test set {name!r}: a paired test needs answers to the same records, these are "
                "others"
            )
        tests[name] = paired_test(
            np.concatenate([a.right for a, _ in pairs]), np.concatenate([b.right for _, b in pairs])
        )
    return tests


def summarize_evaluations(named: Mapping[str, Sequence[Evaluation]]) -> dict[str, Any]:
    """Return scores of methods on one task, and tests against the first of them, as JSON values.

    Args:
        named: Evaluations of each method by its name, one for each seed.

    Raises:
        InputError: As ``paired_tests``.
    """
    reference = next(iter(named))
    summary = {}
    for name, evaluations in named.items():
        tests, interventions = aggregate_scores(evaluations)
        summary[name] = {
            "seeds": len(evaluations),
            "sets": _as_json(tests),
            "interventions": _as_json(interventions),
            "causal_mass": _mean([found.causal_mass for found in evaluations]),
            "log_probability": {key: _log_probability(evaluations, key) for key in tests},
        }
        if name != reference:
            against = paired_tests(evaluations, named[reference])
            summary[name]["against"] = {
                reference: {key: test._asdict() for key, test in against.items()}
            }
    return summary


def _as_json(scores: Mapping[str, Mapping[str, Score]]) -> dict[str, dict[str, Any]]:
    return {
        key: {name: score._asdict() for name, score in values.items()}
        for key, values in scores.items()
    }


def _log_probability(evaluations: Sequence[Evaluation], name: str) -> float | None:
    """Return the mean log-probability of the right answers of a test set; None if not measured."""
    measured = (found.sets[name].log_probs for found in evaluations)
    return _mean([math.nan if x is None else float(x.mean()) for x in measured])


def _mean(values: Sequence[float]) -> float | None:
    mean = float(np.mean(values))
    return None if math.isnan(mean) else mean
