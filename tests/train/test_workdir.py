"""A workdir belongs to one run and its settings."""

import dataclasses
import json

import pytest
from etils import epath

from cat_jax.config import Guidance, MeshShape, Optimizer, Training
from cat_jax.errors import InputError
from cat_jax.tasks import files, stg, stg_h
from cat_jax.testing import toy_model
from cat_jax.train.workdir import (
    NEUTRAL,
    check_workdir,
    init_workdir,
    json_settings,
    start_settings,
    training_settings,
)


def settings(**changes):
    sections = {
        "seeds": (0, 3),
        "data": stg(),
        "guidance": Guidance(),
        "optimizer": Optimizer(),
        "train": training_settings(Training()),
        "published": False,
    }
    return json_settings(**(sections | changes))


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path / "runs" / "one")


@pytest.fixture
def used(workdir):
    init_workdir(workdir, settings())
    return workdir


@pytest.mark.parametrize("resume", [False, True])
def test_a_new_workdir_is_not_made_by_looking_at_it(workdir, tmp_path, resume):
    assert not check_workdir(workdir, settings(), resume=resume)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_an_empty_folder_will_do(workdir, resume):
    workdir.mkdir(parents=True)
    assert not check_workdir(workdir, settings(), resume=resume)


def test_settings_are_json_and_hold_all_that_decides_numbers():
    saved = settings()
    assert json.loads(json.dumps(saved)) == saved
    assert saved["seeds"] == [0, 3]
    fields = {field.name for field in dataclasses.fields(stg)}
    assert saved["data"].keys() == {"task", *fields}
    assert (saved["data"]["task"], saved["data"]["train_records"]) == ("stg", 1600)
    fields = {field.name for field in dataclasses.fields(Training)}
    assert fields - saved["train"].keys() == set(NEUTRAL)
    assert saved["train"]["steps"] == Training().steps


def penalty(mass, causal_count, visible_count):
    return mass


def test_functions_are_named_and_models_in_memory_described():
    saved = json_settings(guidance=Guidance(form=penalty), model=start_settings(toy_model(width=6)))
    assert saved["guidance"]["form"] == f"{__name__}.penalty"
    assert saved["model"]["in_memory"]["width"] == 6


def test_the_workdir_keeps_settings_and_environment(used):
    assert check_workdir(used, settings(), resume=True)
    assert json.loads((used / "config.json").read_text()) == settings()
    assert (used / "environment.json").is_file()


def test_settings_that_are_not_known_yet_are_not_compared(used):
    known = {name: value for name, value in settings().items() if name != "data"}
    assert check_workdir(used, known, resume=True)


def test_another_run_is_never_overwritten(used):
    before = {path: path.read_bytes() for path in used.iterdir()}
    with pytest.raises(InputError, match=r"one already holds a run; .*--resume.*--name"):
        check_workdir(used, settings(), resume=False)
    assert {path: path.read_bytes() for path in used.iterdir()} == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_in_the_way(workdir, resume):
    workdir.parent.mkdir()
    workdir.write_text("")
    with pytest.raises(InputError, match="one"):
        check_workdir(workdir, settings(), resume=resume)


def test_a_folder_of_something_else_is_not_resumed(workdir):
    workdir.mkdir(parents=True)
    (workdir / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds no run \(config.json is missing\)"):
        check_workdir(workdir, settings(), resume=True)


def test_damaged_settings_are_not_resumed(used):
    (used / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is not valid JSON .* restore it"):
        check_workdir(used, settings(), resume=True)


def test_resuming_takes_another_parent_folder_and_the_same_settings_back(used):
    moved = used.parent.parent / "moved"
    used.parent.rename(moved)
    assert check_workdir(moved / "one", settings(), resume=True)


def test_resuming_takes_other_devices(used):
    other = Training(
        mesh=MeshShape(fsdp=2),
        keep=5,
        profile="trace",
        unmatched="unmatched.jsonl",
        wandb_project="cat",
        export_dtype="bfloat16",
    )
    assert {name for name in NEUTRAL if getattr(other, name) != getattr(Training(), name)} == {
        *NEUTRAL
    }
    assert check_workdir(used, settings(train=training_settings(other)), resume=True)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seeds": (0, 3, 4)}, "seeds: [0, 3] there, [0, 3, 4] now"),
        ({"train": training_settings(Training(steps=7))}, "train.steps: 1000 there, 7 now"),
        ({"guidance": Guidance(layers=(1,))}, "guidance.layers: None there, [1] now"),
        (
            {"data": stg(test_records=7, trace=True)},
            "data.test_records: 400 there, 7 now; data.trace: False there, True now",
        ),
        ({"published": True}, "published: False there, True now"),
    ],
)
def test_resuming_with_other_settings_names_each(used, change, difference):
    with pytest.raises(InputError) as caught:
        check_workdir(used, settings(**change), resume=True)
    assert f"({difference})" in str(caught.value)


def test_resuming_with_other_data_names_the_fields_of_both(used):
    with pytest.raises(InputError) as caught:
        check_workdir(used, settings(data=files(train="a", iid="b")), resume=True)
    assert "data.trace: False there, None now" in str(caught.value)
    assert "data.train: None there, 'a' now" in str(caught.value)


def test_another_task_with_the_same_fields_is_another_run(used):
    with pytest.raises(InputError, match=r"data\.task: 'stg' there, 'stg_h' now"):
        check_workdir(used, settings(data=stg_h()), resume=True)
