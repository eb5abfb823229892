"""What is saved, what is kept, and what becomes of checkpoints that went bad."""

import gc
import json
import os
import resource
import signal
import time
from dataclasses import replace

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import CONFIG, Toy, assert_same, make_rows

from cat_jax.data.batches import training_batches
from cat_jax.errors import InputError, Interrupted, SaveFailed
from cat_jax.train.checkpoint import Checkpoints, DamagedCheckpoint
from cat_jax.train.state import TrainState
from experiments.command_line import exit_status

# Where a read or write fails, orbax leaves coroutines behind that complain when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collect_coroutines():
    """Before they complain in the tests of others."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = Toy(tmp_path_factory.mktemp("undisturbed"))
    return run, run()


def batches():
    return training_batches(make_rows(), batch_size=4, seed=3)


def open_checkpoints(folder, keep=2):
    return Checkpoints(folder, {"a": 1}, keep=keep)


def random_state(step, *shape):
    return TrainState(jnp.int32(step), {"w": jax.random.normal(jax.random.key(step), shape)}, ())


def save_steps(folder, *steps, keep=9):
    """Checkpoints of states that differ in every element, and those states."""
    checkpoints, states = open_checkpoints(folder, keep), {}
    for step in steps:
        state = random_state(step, 300, 7)
        states[step] = jax.device_get(state)
        data = batches()
        for _ in range(step):
            next(data)
        checkpoints.save(state, data)
    checkpoints.close()
    return states


def blank():
    return TrainState(jnp.int32(0), {"w": jnp.zeros((300, 7))}, ())


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_what_is_written_is_the_state_of_its_step_though_training_went_on(tmp_path):
    double = jax.jit(lambda state: jax.tree.map(lambda x: 2 * x, state), donate_argnums=0)
    checkpoints = open_checkpoints(tmp_path)
    # 128 MB that do not compress: the write outlives many steps into the same buffers.
    state = TrainState(
        jnp.int32(1), {"w": jax.random.normal(jax.random.key(0), (32, 1024, 1024))}, ()
    )
    want = np.array(state.params["w"])
    checkpoints.save(state, batches())
    during = 0
    while checkpoints._manager.is_saving_in_progress():
        state = double(state)
        during += 1
    assert during > 3
    restored = checkpoints.restore(state, batches())
    checkpoints.close()
    np.testing.assert_array_equal(restored.params["w"], want)


def test_restoring_moves_the_data_and_gives_the_old_memory_back(tmp_path):
    states = save_steps(tmp_path, 3)
    data, old, checkpoints = batches(), blank(), open_checkpoints(tmp_path)
    restored = checkpoints.restore(old, data)
    checkpoints.close()
    assert_same(jax.device_get(restored), states[3])
    assert old.params["w"].is_deleted()
    expected = batches()
    for _ in range(3):
        next(expected)
    assert_same(next(data), next(expected))
    assert data.get_state() != batches().get_state()


def test_the_position_counts_batches_whatever_the_rows_in_them(tmp_path):
    data = batches()
    for _ in range(7):
        next(data)
    assert isinstance(data, grain.DatasetIterator)
    assert data.get_state() == {"next_index": 7}


def test_the_newest_are_kept_and_the_best(tmp_path):
    scores = {4: 1.0, 8: 5.0, 12: 2.0, 16: 2.0, 20: 4.0, 24: 3.0}
    config = replace(CONFIG, best="score")
    run = Toy(tmp_path, config, lambda params: {"score": scores[run.evaluated[-1]]})
    state = run()
    assert run.saved() == [8, 18, 24]
    assert int(state.step) == 8


def test_keep_one(tmp_path):
    save_steps(tmp_path, 1, 2, 3, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


@pytest.mark.parametrize("damage", [flip, truncate, os.unlink])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    states = save_steps(tmp_path, 2, 4, 6)
    for step in (4, 6):
        damage(largest_file(tmp_path / str(step) / "state"))
    checkpoints, data = open_checkpoints(tmp_path), batches()
    with pytest.warns(DamagedCheckpoint) as warned:
        restored = checkpoints.restore(blank(), data)
    assert_same(jax.device_get(restored), states[2])
    assert data.get_state() == {"next_index": 2}
    for step, warning in zip((6, 4), warned, strict=True):
        assert f"{tmp_path / str(step)} is damaged" in str(warning.message)
        assert f"continuing from {tmp_path / '2'}" in str(warning.message)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4.damaged-1", "6.damaged-1"]
    checkpoints.save(TrainState(jnp.int32(4), restored.params, ()), data)  # the name is free again
    checkpoints.close()
    assert open_checkpoints(tmp_path).latest_step() == 4


def test_damage_to_the_position_is_seen(tmp_path):
    save_steps(tmp_path, 2, 4)
    path = tmp_path / "4" / "run" / "metadata"
    run = json.loads(path.read_text())
    assert run["position"] == {"next_index": 4}
    path.write_text(json.dumps(run | {"position": {"next_index": 5}}))
    checkpoints = open_checkpoints(tmp_path)
    with pytest.warns(DamagedCheckpoint, match="other values than were saved"):
        assert int(checkpoints.restore(blank(), batches()).step) == 2
    checkpoints.close()


def test_no_good_checkpoint_is_an_error_that_moves_nothing(tmp_path):
    save_steps(tmp_path, 2, 4)
    for step in (2, 4):
        flip(largest_file(tmp_path / str(step) / "state"))
    checkpoints = open_checkpoints(tmp_path)
    with pytest.raises(InputError, match=rf"none of the checkpoints in {tmp_path} can be restored"):
        checkpoints.restore(blank(), batches())
    checkpoints.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4"]


def test_another_model_is_an_error_that_moves_nothing(tmp_path):
    save_steps(tmp_path, 2, 4)
    checkpoints = open_checkpoints(tmp_path)
    other = TrainState(jnp.int32(0), {"v": jnp.zeros((300, 7))}, ())
    with pytest.raises(InputError, match="can be restored"):
        checkpoints.restore(other, batches())
    checkpoints.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4"]


def test_a_partly_written_checkpoint_is_dropped_loudly(tmp_path):
    states = save_steps(tmp_path, 2, 4)
    torn = tmp_path / "4.orbax-checkpoint-tmp"
    (tmp_path / "4").rename(torn)
    with pytest.warns(DamagedCheckpoint) as warned:
        checkpoints = open_checkpoints(tmp_path)
    message = str(warned[0].message)
    assert str(torn) in message
    assert f"the last good checkpoint is {tmp_path / '2'}" in message
    assert_same(jax.device_get(checkpoints.restore(blank(), batches())), states[2])
    checkpoints.save(TrainState(jnp.int32(4), {"w": jnp.zeros((300, 7))}, ()), batches())
    checkpoints.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4"]


def test_a_damaged_best_checkpoint_is_named(tmp_path):
    config = replace(CONFIG, best="score")
    run = Toy(tmp_path, config, lambda params: {"score": -run.evaluated[-1]})
    assert int(run().step) == 4
    flip(largest_file(tmp_path / "checkpoints" / "4" / "state"))
    with pytest.raises(InputError, match=r"the best checkpoint, .*/4, cannot be restored"):
        run()


def test_a_full_disk_stops_with_the_last_good_step(tmp_path, undisturbed, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step):
        if step == 10:  # no file gets longer, as on a full disk; 12 is the next to be saved
            run.checkpoints.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    run = Toy(tmp_path)
    try:
        status = exit_status(lambda: run(on_step=fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert status == 1
    assert error.count("\n") == 1
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / '6'}; make room" in error
    with pytest.warns(DamagedCheckpoint, match=r"12\.orbax.* was not written to its end"):
        state = run()
    assert run.start == 6
    assert_same(state, undisturbed[1])


def test_a_full_disk_under_the_log_stops_too(tmp_path, undisturbed, capsys):
    run = Toy(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step):
        if step == 9:
            run.checkpoints.wait()
            size = (tmp_path / "metrics.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))

    try:
        status = exit_status(lambda: run(on_step=fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1
    assert (
        f"the last good checkpoint is {tmp_path / 'checkpoints' / '6'}" in capsys.readouterr().err
    )
    assert_same(run(), undisturbed[1])
    assert run.lines() == undisturbed[0].lines()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_wait_for_an_evaluation(tmp_path, undisturbed, signum):
    began = []

    def slow(params):
        if run.evaluated == [4, 8]:
            began.append(time.monotonic())
            os.kill(os.getpid(), signum)
            time.sleep(60)
        return undisturbed[0].evaluate(params)

    run = Toy(tmp_path, evaluate=slow)
    with pytest.raises(Interrupted, match="step 8 is saved"):
        run()
    assert time.monotonic() - began[0] < 10
    assert_same(run(), undisturbed[1])
    assert run.start == 8
    assert run.evaluated == [4, 8, 8, 12, 16, 20, 24]  # the one given up is made up for
    assert run.lines() == undisturbed[0].lines()


def test_a_signal_waits_for_the_write_and_the_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    run = Toy(tmp_path)
    with pytest.raises(Interrupted):
        run(on_step=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 5 else None)
    assert run.saved() == [5]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_write_that_failed_meanwhile_shows_at_the_next_save_or_wait(tmp_path):
    checkpoints, limits = open_checkpoints(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        checkpoints.save(random_state(1, 300, 300), batches())
        with pytest.raises(SaveFailed, match="no checkpoint was saved yet"):
            checkpoints.save(random_state(2, 300, 300), batches())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.latest_step() is None
    checkpoints.save(random_state(2, 300, 300), batches())
    checkpoints.wait()
    assert checkpoints.last_good().endswith("/2")
    checkpoints.close()
