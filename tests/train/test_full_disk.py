"""Wherever the disk is full or read-only, one sentence names the last good checkpoint."""

import errno
import json
import os
import resource
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pytest
from full_disk import VALIDATION, FullDisk, error_of_run, full_disk
from small_runs import assert_same, run

from cat_jax.errors import InputError, SaveFailed
from cat_jax.models import load_pretrained
from cat_jax.train import run as run_module
from cat_jax.train.checkpoint import DamagedCheckpoint
from cat_jax.train.remains import last_good
from cat_jax.train.throughput import TIMINGS

SHARES = [n / 7 for n in range(7)]
"""Points of a run, as shares of what it writes."""


def without_times(history):
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in history]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run in a folder, and all that it writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with full_disk(FullDisk(folder)) as disk:
        return run(workdir=folder / "run", validation=VALIDATION), disk.events


def assert_whole(workdir):
    """Whatever is there under its own name is complete."""
    for name in ("config.json", "data.json", "environment.json"):
        if (workdir / name).exists():
            json.loads((workdir / name).read_text())
    assert not list(workdir.glob(".*"))
    if (workdir / "model").exists():
        load_pretrained(workdir / "model")


@pytest.fixture(scope="module")
def process():
    """A process for runs that fail; threads of orbax are left there that would wait for minutes."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool
        with pytest.raises(BrokenProcessPool):
            pool.submit(os._exit, 0).result()


def assert_fails_and_goes_on(process, workdir, undisturbed, room, code):
    workdir.parent.mkdir(exist_ok=True)
    error = process.submit(error_of_run, workdir, room, code).result()
    assert isinstance(error, SaveFailed | InputError), error
    said = str(error)
    assert "\n" not in said
    if room == 0:  # the folder itself
        assert isinstance(error, SaveFailed if code == errno.ENOSPC else InputError)
        assert not workdir.exists()
    else:
        assert isinstance(error, SaveFailed)
        assert last_good(workdir) in said
        mend = "make room" if code == errno.ENOSPC else "make the folder writable"
        assert said.endswith(f"; {mend} and resume")
        assert_whole(workdir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedCheckpoint)
        result = run(workdir=workdir, validation=VALIDATION)
    assert_same(result.params, undisturbed[0].params)
    assert without_times(result.history) == without_times(undisturbed[0].history)
    assert_whole(workdir)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize("share", SHARES)
def test_at_some_writes(process, tmp_path, undisturbed, share, code):
    room = round(share * len(undisturbed[1]))
    assert_fails_and_goes_on(process, tmp_path / "run", undisturbed, room, code)


@pytest.mark.slow
def test_at_every_ninth_write(process, tmp_path, undisturbed):
    for room in range(1, len(undisturbed[1]), 9):
        workdir = tmp_path / f"{room}" / "run"
        assert_fails_and_goes_on(process, workdir, undisturbed, room, errno.ENOSPC)


def test_all_kinds_of_files_are_among_the_writes(undisturbed):
    names = " ".join(path for _, path in undisturbed[1])
    kinds = ["run.lock", "config.json", "data.json", "environment.json", "metrics.jsonl"]
    kinds += ["tensorboard/events", "checkpoints/4", "model/config.json", "tokenizer_config.json"]
    for kind in kinds:
        assert kind.rpartition("/")[2] in names, kind


@pytest.mark.parametrize("size", [1000, 20_000], ids=["tokenizer", "weights"])
def test_while_the_model_is_handed_over(tmp_path, undisturbed, monkeypatch, size):
    """Native code writes them, and tokenizers: here no file gets longer than ``size`` bytes."""
    limits, export = resource.getrlimit(resource.RLIMIT_FSIZE), run_module._export

    def full(result, workdir):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            export(result, workdir)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_export", full)
        with pytest.raises(SaveFailed) as caught:
            run(workdir=workdir, validation=VALIDATION)
    good = Path(workdir / "checkpoints" / "5")
    assert f"the last good checkpoint is {good}; make room and resume" in str(caught.value)
    assert "model" not in os.listdir(workdir)
    assert_whole(workdir)
    assert_same(run(workdir=workdir, validation=VALIDATION).params, undisturbed[0].params)
    assert_whole(workdir)
