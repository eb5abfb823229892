import dataclasses
import json

import pytest
from experiments.run_folder import check_folder, create_folder, settings

from cat_jax.config import Experiment, GeneratedData, Guidance, JsonlData, Scratch, Training
from cat_jax.errors import InputError


@pytest.fixture
def config(tmp_path):
    out = str(tmp_path / "runs")
    return Experiment("one", GeneratedData(), Scratch(), seeds=(0, 3), out=out)


@pytest.fixture
def resumable(config):
    create_folder(check_folder(config), config)
    return dataclasses.replace(config, resume=True)


def test_a_new_folder_is_named_but_not_made(config, tmp_path):
    assert check_folder(config) == tmp_path / "runs" / "one"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_will_do(config, tmp_path):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    assert check_folder(config) == tmp_path / "runs" / "one"


def test_settings_are_json_and_hold_all_that_decides_numbers(config):
    saved = settings(config)
    assert json.loads(json.dumps(saved)) == saved
    assert saved["seeds"] == [0, 3]
    assert saved["train"]["steps"] == config.train.steps
    fields = {field.name for field in dataclasses.fields(Experiment)}
    assert fields - saved.keys() == {"resume", "out", "distributed"}


def test_the_folder_keeps_the_settings(resumable):
    folder = check_folder(resumable)
    assert json.loads((folder / "config.json").read_text()) == settings(resumable)


def test_another_run_is_never_overwritten(config, resumable):
    with pytest.raises(InputError, match=r"one already holds a run; .*--resume.*--name"):
        check_folder(config)
    assert json.loads((check_folder(resumable) / "config.json").read_text())["name"] == "one"


def test_a_file_in_the_way(config, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").write_text("")
    for resume in (False, True):
        with pytest.raises(InputError, match="one"):
            check_folder(dataclasses.replace(config, resume=resume))


def test_resuming_what_does_not_exist(config):
    with pytest.raises(InputError, match=r"nothing to resume: .*config\.json does not exist"):
        check_folder(dataclasses.replace(config, resume=True))


def test_resuming_takes_another_parent_folder_and_the_same_settings_back(resumable, tmp_path):
    (tmp_path / "runs").rename(tmp_path / "moved")
    moved = dataclasses.replace(resumable, out=str(tmp_path / "moved"))
    assert check_folder(moved) == tmp_path / "moved" / "one"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seeds": (0, 3, 4)}, "seeds: [0, 3] there, [0, 3, 4] now"),
        ({"train": Training(steps=7)}, "train.steps: 1000 there, 7 now"),
        ({"guidance": Guidance(layers=(1,))}, "guidance.layers: None there, [1] now"),
        (
            {"data": GeneratedData(game="stg_h", trace=True)},
            "data.game: 'stg' there, 'stg_h' now; data.trace: False there, True now",
        ),
        ({"published": True}, "published: False there, True now"),
    ],
)
def test_resuming_with_other_settings_names_each(resumable, change, difference):
    with pytest.raises(InputError) as caught:
        check_folder(dataclasses.replace(resumable, **change))
    assert f"({difference})" in str(caught.value)


def test_resuming_with_other_data_names_the_fields_of_both(resumable):
    other = dataclasses.replace(resumable, data=JsonlData("a", "b", "c"))
    with pytest.raises(InputError) as caught:
        check_folder(other)
    assert "data.game: 'stg' there, None now" in str(caught.value)
    assert "data.train: None there, 'a' now" in str(caught.value)
