"""Every number of every configuration has a range, and what a range lets through trains."""

import dataclasses
import math
import re
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import jax
import numpy as np
import pytest

import cat_jax as cat
from cat_jax import tasks
from cat_jax.compare.compare import compare
from cat_jax.config import (
    AttentionDropout,
    Guidance,
    InputGradient,
    LoraConfig,
    MeshShape,
    Optimizer,
    PretrainedLora,
    RunConfig,
    Scratch,
    Training,
)
from cat_jax.errors import Diverged, InputError, SettingError
from cat_jax.ranges import Count, Range, Seed, Share, check_number, check_ranges, declared_ranges
from cat_jax.tasks.base import Task
from cat_jax.testing import toy_model, toy_records
from experiments.compare import Args
from experiments.planning.options import JobOptions

TASKS = (tasks.stg(), tasks.stg_h(), tasks.files(train="a.jsonl"))
TRAIN = Training(steps=2, batch_size=4, max_length=19, log_every=1)
SCRATCH = Scratch(width=8, mlp_width=12, num_layers=2, num_heads=2, num_kv_heads=1)
RUN = RunConfig(name="a", model=SCRATCH, data=TASKS[0])
BASES = (
    RUN,
    SCRATCH,
    PretrainedLora("a"),
    LoraConfig(rank=3),
    Guidance(weight=0.5),
    InputGradient(),
    AttentionDropout(),
    Optimizer(),
    TRAIN,
    MeshShape(),
    JobOptions(),
    Args(RUN),
    *TASKS,
)
"""One instance of every dataclass of settings; the test below finds any that is missing."""
EXTREMES = (-1, 0, math.nan, math.inf, 1e30)


def parts(hint):
    """The types that a type is made of; settings of all tasks are those of the tasks we have."""
    if hint is Task:
        yield from map(type, TASKS)
    elif get_origin(hint) is Annotated:
        yield from parts(get_args(hint)[0])
    elif get_args(hint):
        for part in get_args(hint):
            yield from parts(part)
    else:
        yield hint


def hints_of(kind):
    fields = {field.name for field in dataclasses.fields(kind)}
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if name in fields}


def reachable(kind):
    yield kind
    for hint in hints_of(kind).values():
        for part in parts(hint):
            if dataclasses.is_dataclass(part):
                yield from reachable(part)


NUMERIC = [
    (base, name, hint)
    for base in BASES
    for name, hint in hints_of(type(base)).items()
    if {int, float} & set(parts(hint))
]


def named(value):
    return value if isinstance(value, str) else None


def candidates(hint):
    """Extremes, and the bounds of the range itself, as this field would hold them."""
    kind = int if int in set(parts(hint)) else float
    range_ = next((note for note in notes(hint) if isinstance(note, Range)), Range())
    bounds = [bound for bound in (range_.ge, range_.le) if bound is not None and kind is float]
    for value in (*EXTREMES, *bounds):
        number = int(value) if kind is int and math.isfinite(value) else value
        yield (number,) if tuple in origins(hint) else number


def notes(hint):
    if get_origin(hint) is Annotated:
        yield from get_args(hint)[1:]
    for part in get_args(hint):
        yield from notes(part)


def origins(hint):
    return {get_origin(hint), *(get_origin(part) for part in get_args(hint))}


def test_every_dataclass_of_settings_is_tried():
    found = {kind for root in (RunConfig, JobOptions, Args) for kind in reachable(root)}
    assert found <= {type(base) for base in BASES} | {cat.Pretrained}
    assert len(NUMERIC) > 35


@pytest.mark.parametrize(("base", "name", "hint"), NUMERIC, ids=named)
def test_every_number_declares_a_range_that_its_class_checks(base, name, hint):
    assert name in declared_ranges(type(base))
    value = (math.nan,) if tuple in origins(hint) else math.nan
    with pytest.raises(InputError, match=rf"{name} must be .*, got nan"):
        used(base, name, value)


def used(base, name, value):
    """Settings with this value, as the first function that takes them finds them."""
    if name == "seeds":
        return compare(toy_model(), tasks.stg(), methods=["baseline"], seeds=value)
    return dataclasses.replace(base, **{name: value})


def outcomes():
    """What becomes of every candidate: settings, or the error."""
    for base, name, hint in NUMERIC:
        for value in candidates(hint) if name != "seeds" else ():
            try:
                yield base, name, value, used(base, name, value)
            except InputError as error:
                yield base, name, value, error


OUTCOMES = list(outcomes())
REFUSED = [case for case in OUTCOMES if isinstance(case[-1], InputError)]
RUNNABLE = [
    case
    for case in OUTCOMES
    if not isinstance(case[-1], InputError | JobOptions | Task | Args)
    and not (case[1] == "epochs" and case[2] > 1)  # which would take long
]


def test_what_is_refused_is_a_sentence_with_name_value_and_range():
    assert len(REFUSED) > 150
    for _, name, value, error in REFUSED:
        assert re.fullmatch(rf"[a-z.]*{name} .*must be .*", str(error)), error
        assert "or a step" in str(error) or str(error).endswith(f"got {number_in(value)}"), error


def number_in(value):
    return value[0] if isinstance(value, tuple) else value


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name", "value", "changed"), RUNNABLE, ids=named)
def test_what_is_allowed_trains_to_finite_numbers_or_says_that_it_diverged(
    base, name, value, changed
):
    options: dict[str, Any] = {"model": toy_model(), "train": TRAIN}
    match changed:
        case RunConfig():
            options["seed"] = changed.seed
        case Scratch():
            options["model"] = changed
        case LoraConfig():
            options["lora"] = changed
        case Guidance():
            options["guidance"] = changed
        case InputGradient() | AttentionDropout():
            options["regularizer"] = changed
        case Optimizer():
            options["optimizer"] = changed
        case Training():
            options["train"] = changed
        case MeshShape():
            options["train"] = dataclasses.replace(TRAIN, mesh=changed)
    diverged = None
    try:
        run = cat.fit(options.pop("model"), toy_records(count=9), **options)
    except Diverged as error:
        diverged = str(error)
    if diverged is not None:
        assert re.search(rf"far from usual: [a-z]+\.{name} is", diverged), diverged
        return
    assert np.isfinite([line["loss"] for line in run.history if line["kind"] == "train"]).all()
    trained = run.params if run.adapters is None else run.adapters
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))


@pytest.mark.parametrize(
    ("range_", "inside", "outside", "said"),
    [
        (Range(ge=1), (1, 7), (0, math.inf, math.nan), "at least 1 and finite"),
        (Range(gt=0, le=5), (1e-9, 5), (0, 5.1, math.nan, -1), "greater than 0 and at most 5"),
        (Range(ge=0, lt=1), (0, 0.999), (1, -1e-9), "at least 0 and less than 1"),
        (Range(gt=0, le=math.inf), (3, math.inf), (0, math.nan, -math.inf), "greater than 0"),
        (Range(ge=2, le=10**6), (2, 10**6), (10**6 + 1,), "at least 2 and at most 1,000,000"),
    ],
)
def test_ranges_hold_what_they_say(range_, inside, outside, said):
    assert all(value in range_ for value in inside)
    assert not any(value in range_ for value in outside)
    assert str(range_) == said


@pytest.mark.parametrize(
    ("value", "declared", "message"),
    [
        (True, Count, "a must be a whole number, got True"),
        ("3", Count, "a must be a whole number, got '3'"),
        (2.0, Count, "a must be a whole number, got 2.0"),
        ([1], Share, r"a must be a number, got \[1\]"),
        (2**32, Seed, "a must be at least 0 and at most 4,294,967,295, got 4294967296"),
    ],
)
def test_numbers_of_another_type_are_refused(value, declared, message):
    with pytest.raises(SettingError, match=message):
        check_number("a", value, declared)


def test_numbers_of_numpy_are_numbers():
    assert Training(steps=np.int64(3)).steps == 3
    assert Optimizer(learning_rate=np.float32(0.5)).learning_rate == 0.5


def test_ranges_are_found_in_unions_and_tuples():
    @dataclasses.dataclass
    class Settings:
        a: Count | None = None
        b: tuple[Share, ...] = (0.5,)
        c: int = -1

    assert declared_ranges(Settings).keys() == {"a", "b"}
    check_ranges(Settings(), "x")
    with pytest.raises(SettingError, match=r"^x\.a must be at least 1 .*, got 0$"):
        check_ranges(Settings(a=0), "x")
    with pytest.raises(SettingError, match=r"^b must be at least 0 and less than 1, got 1$"):
        check_ranges(Settings(b=(0.1, 1)), "")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Guidance(alpha=0, form="hinge"), r"guidance\.alpha is 0, .* costs nothing"),
        (lambda: Guidance(layers=()), r"guidance\.layers names no layer"),
        (lambda: Optimizer(learning_rate=0.1, weight_decay=11), r"\(11\) x .* turn the sign"),
        (lambda: Scratch(width=12, num_heads=4), r"num_heads \(4\) must divide .* even size"),
        (
            lambda: PretrainedLora("a", frozen_dtype=cast("Any", "int4")),
            r"^model\.frozen_dtype must be one of float32, bfloat16, int8, .*, got 'int4'$",
        ),
        (lambda: JobOptions(frozen_dtype="int8"), "^frozen_dtype is of a model under adapters; "),
        (lambda: Scratch(num_kv_heads=3), r"model\.num_kv_heads \(3\) must divide"),
        (lambda: Training(log_every=9, eval_every=3, patience=1, best="a"), "must not exceed"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()
