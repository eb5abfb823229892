"""One folder, one process: the lock of a workdir, and the lease where there are no locks."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from etils import epath
from small_runs import RECORDS, run

from cat_jax.errors import InputError
from cat_jax.train import lock
from cat_jax.train.lock import LOCK_FILE, Holder, check_free, hold_workdir
from cat_jax.train.workdir import begin_workdir

HOLD = """
import sys
from etils import epath
from cat_jax.train.lock import hold_workdir
with hold_workdir(epath.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path / "runs" / "one")


@pytest.fixture
def other(workdir):
    """Another process that holds the workdir until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, workdir],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(params=["no locks", "object store"])
def lease(request, monkeypatch):
    """A file system on which only the lease tells who holds a folder."""

    def no_locks(descriptor, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if request.param == "no locks":
        monkeypatch.setattr(fcntl, "flock", no_locks)
    else:
        monkeypatch.setattr(lock, "_is_remote", lambda path: True)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.3)


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def write_lease(workdir, **fields):
    workdir.mkdir(parents=True)
    holder = {**asdict(Holder()), **fields}
    (workdir / LOCK_FILE).write_text(json.dumps(holder).ljust(lock.SIZE))


def read_lease(workdir):
    """An object store writes whole objects; the folder in its place is empty for a moment."""
    while not (text := (workdir / LOCK_FILE).read_text()):
        time.sleep(0.001)
    return json.loads(text)


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def assert_held(workdir, by=r"process \d+ on \S+, since [-0-9]+ [:0-9]+"):
    for take in (check_free, lambda folder: hold_workdir(folder).__enter__()):
        with pytest.raises(InputError, match=rf"one is in use by {by}") as caught:
            take(workdir)
        assert "\n" not in str(caught.value)


def test_the_second_process_is_refused_and_told_which_the_first_is(workdir, other):
    before = contents(workdir)
    assert_held(workdir, by=rf"process {other.pid} on ")
    assert contents(workdir) == before
    other.communicate()
    check_free(workdir)
    assert os.listdir(workdir) == []
    with hold_workdir(workdir):
        assert os.listdir(workdir) == [LOCK_FILE]
        assert_held(workdir, by=rf"process {os.getpid()} on ")
    assert os.listdir(workdir) == []


def test_a_run_is_refused_beside_a_living_one_and_writes_nothing(workdir, other):
    before = contents(workdir)
    for resume in (True, False):
        with pytest.raises(InputError, match=rf"in use by process {other.pid} on "):
            run(workdir=workdir, resume=resume)
    assert contents(workdir) == before


def test_the_lock_of_a_killed_process_is_gone(workdir, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (workdir / LOCK_FILE).exists()
    check_free(workdir)
    with hold_workdir(workdir):
        pass
    assert os.listdir(workdir) == []


def test_a_process_that_came_while_the_model_was_read_keeps_the_folder(workdir):
    """The folder is free when a run looks at it, and no longer when it writes."""
    with hold_workdir(workdir) as held:
        assert held is None
    taken = hold_workdir(workdir)

    def take(result):
        taken.__enter__()
        return {"score": 1.0}

    try:
        with pytest.raises(InputError, match=rf"in use by process {os.getpid()} on "):
            run(workdir=workdir, evaluators=[take])
        assert os.listdir(workdir) == [LOCK_FILE]
    finally:
        taken.__exit__(None, None, None)


def test_a_run_that_began_while_the_model_was_read_is_not_mixed_with_another(workdir):
    def begin(result):
        run(workdir=workdir, seed=1)
        return {"score": 1.0}

    with pytest.raises(InputError, match=r"other settings \(seed: 1 there, 0 now\)"):
        run(workdir=workdir, evaluators=[begin])
    assert json.loads((workdir / "config.json").read_text())["seed"] == 1


def test_a_run_holds_its_folder_from_its_first_to_its_last_line(workdir):
    refused = []

    def look(line):
        with pytest.raises(InputError) as caught:
            check_free(workdir)
        refused.append((line["step"], str(caught.value)))

    run(workdir=workdir, validation=RECORDS[:5], callbacks=[look])
    assert {step for step, _ in refused} == {0, 2, 4, 5}
    assert all(f"in use by process {os.getpid()} on " in said for _, said in refused)
    assert not (workdir / LOCK_FILE).exists()


def test_where_there_are_locks_nobody_waits(workdir, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"slept {seconds} s"))
    with hold_workdir(workdir):
        pass


def test_a_run_in_memory_has_no_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock, "Holder", lambda: pytest.fail("a lock was taken"))
    run()
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("lease")
def test_a_lease_is_held_and_given_back(workdir):
    with hold_workdir(workdir):
        assert_held(workdir)
    check_free(workdir)
    assert os.listdir(workdir) == []


@pytest.mark.usefixtures("lease")
def test_the_lease_of_another_machine_counts_until_it_is_too_old(workdir):
    write_lease(workdir, machine="elsewhere", host="far", renewed=time.time() - 50)
    assert_held(workdir, by=r"process \d+ on far, since .* \(last seen 5\d s ago; after 60 s ")


@pytest.mark.usefixtures("lease")
@pytest.mark.parametrize("kind", ["old", "dead"])
def test_the_lease_of_a_dead_process_is_taken_over(workdir, kind):
    if kind == "old":
        write_lease(workdir, machine="elsewhere", renewed=time.time() - 61)
    else:
        write_lease(workdir, pid=dead_pid())
    check_free(workdir)
    with hold_workdir(workdir):
        assert json.loads((workdir / LOCK_FILE).read_text())["pid"] == os.getpid()


@pytest.mark.usefixtures("lease")
def test_of_several_that_come_at_once_one_holds_the_lease(workdir):
    start, end, held = threading.Barrier(3), threading.Event(), []

    def take():
        start.wait()
        try:
            with hold_workdir(workdir):
                held.append(True)
                end.wait()
        except InputError as error:
            held.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(held) < 3:
        time.sleep(0.01)
    end.set()
    for thread in threads:
        thread.join()
    refused = [said for said in held if said is not True]
    assert len(refused) == 2
    assert all("one is in use by " in said for said in refused)


@pytest.mark.usefixtures("lease")
def test_a_lease_is_renewed_while_it_is_held(workdir, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.02)
    with hold_workdir(workdir):
        first = read_lease(workdir)
        deadline = time.monotonic() + 20
        while read_lease(workdir)["renewed"] == first["renewed"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        last = json.loads((workdir / LOCK_FILE).read_text())
        assert {**last, "renewed": first["renewed"]} == first


@pytest.mark.usefixtures("lease")
def test_a_process_that_slept_too_long_leaves_the_lease_to_its_successor(workdir, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.02)
    with hold_workdir(workdir):
        (workdir / LOCK_FILE).unlink()
        workdir.rmtree()
        write_lease(workdir, token="another")
        time.sleep(0.2)
        assert json.loads((workdir / LOCK_FILE).read_text())["token"] == "another"
    assert json.loads((workdir / LOCK_FILE).read_text())["token"] == "another"


@pytest.mark.parametrize("primary", [True, False])
def test_only_the_primary_process_holds_the_folder(workdir, monkeypatch, primary):
    with begin_workdir(workdir, {"seed": 3}, lambda: None, str):
        pass
    monkeypatch.setattr("cat_jax.train.workdir.is_primary", lambda: primary)
    with begin_workdir(workdir, {"seed": 3}, lambda: None, str):
        assert (workdir / LOCK_FILE).exists() == primary
