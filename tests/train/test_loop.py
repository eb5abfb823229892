"""The loop on a real tiny model: resuming, signals, divergence, and what it writes."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cat_jax.config import Guidance, Optimizer, Training
from cat_jax.data.batches import training_batches
from cat_jax.errors import Diverged, Interrupted
from cat_jax.losses.schedules import guidance_weight
from cat_jax.models import CausalLM, LoraConfig, ModelConfig, init_lora
from cat_jax.sharding import MeshShape, make_mesh
from cat_jax.train.checkpoint import Checkpoints
from cat_jax.train.loop import train
from cat_jax.train.metrics import MetricsLog, read_metrics
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.state import FrozenBase, new_state
from cat_jax.train.step import make_train_step
from cat_jax.train.throughput import step_flops

MODEL = CausalLM(ModelConfig(13, 8, 12, 2, 2, 1, 4))
CONFIG = Training(steps=12, batch_size=4, log_every=3, eval_every=5, save_every=4)


class Run:
    """One training run in ``folder``; calling it trains until the end or an exception.

    With ``lora`` it trains adapters.
    """

    def __init__(self, folder, examples, config=CONFIG, lora=None):
        self.folder, self.examples, self.config, self.lora = folder, examples, config, lora
        self.reported = []

    def __call__(self, optimizer=None, on_step=lambda step: None):
        guidance = Guidance(weight=0.5, schedule="linear")
        optimizer = optimizer or make_optimizer(Optimizer(learning_rate=1e-2), self.config.steps)
        mesh = make_mesh(MeshShape(), self.config.batch_size)
        params = MODEL.init(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))["params"]
        self.base = None
        if self.lora is not None:
            self.base = FrozenBase(params, self.lora, seed=5)
            params = init_lora(jax.random.key(2), MODEL.config, self.lora)
        gamma = guidance_weight("linear", 0.5, rate=1, steps=self.config.steps, steps_per_epoch=4)
        batches = training_batches(self.examples, batch_size=4, seed=3)
        checkpoints = Checkpoints(self.folder / "checkpoints", {"a": 1})
        state = new_state(params, optimizer, mesh)
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(state, batches)
        self.start = int(state.step)
        step_function = make_train_step(MODEL, optimizer, mesh, guidance, gamma, self.base)

        def step(state, batch):
            on_step(int(state.step) + 1)
            return step_function(state, batch)

        report = [lambda line: line["kind"] == "train" and self.reported.append(line["step"])]
        log = MetricsLog(self.folder, resume_step=self.start, callbacks=report)
        try:
            return train(
                state,
                step,
                batches,
                config=self.config,
                steps_per_epoch=3,
                flops=step_flops(MODEL.config),
                checkpoints=checkpoints,
                log=log,
                evaluate=lambda params: {"iid": 0.5},
            )
        finally:
            log.close()
            checkpoints.close()

    def losses(self):
        lines = read_metrics(self.folder / "metrics.jsonl")
        return [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]


class Killed(Exception):
    """Stands for a crash: nothing of the loop's own handling sees it coming."""


def kill_at(fatal):
    def on_step(step):
        if step == fatal:
            raise Killed

    return on_step


@pytest.fixture(scope="module")
def examples(make_examples):
    return make_examples(18)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, examples):
    run = Run(tmp_path_factory.mktemp("undisturbed"), examples)
    return run, run()


def assert_same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_writes_what_the_config_asks_for(undisturbed):
    run, state = undisturbed
    lines = list(read_metrics(run.folder / "metrics.jsonl"))
    assert [line["step"] for line in lines if line["kind"] == "train"] == [3, 6, 9, 12]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [5, 10, 12]
    assert run.reported == [3, 6, 9, 12]
    assert int(state.step) == 12
    saved = {path.name for path in (run.folder / "checkpoints").iterdir()}
    assert saved == {"8", "12"}
    assert list((run.folder / "tensorboard").iterdir())
    assert lines[-1]["kind"] == "eval"
    assert {"loss", "next_token_loss", "guidance_loss", "gamma", "gradient_norm"} <= lines[0].keys()
    np.testing.assert_allclose(lines[0]["gamma"], 0.5 * (1 - 2 / 12), rtol=1e-6)


def test_the_loss_falls(undisturbed):
    losses = [loss for _, loss in undisturbed[0].losses()]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("fatal", [2, 7, 12])
def test_a_crash_costs_only_the_steps_since_the_last_checkpoint(
    tmp_path, examples, undisturbed, fatal
):
    run = Run(tmp_path, examples)
    with pytest.raises(Killed):
        run(on_step=kill_at(fatal))
    state = run()
    assert run.start == (fatal - 1) // CONFIG.save_every * CONFIG.save_every
    assert_same(state, undisturbed[1])
    assert run.losses() == undisturbed[0].losses()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first(tmp_path, examples, undisturbed, signum):
    run = Run(tmp_path, examples)
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted, match="step 6 is saved") as caught:
        run(on_step=lambda step: os.kill(os.getpid(), signum) if step == 6 else None)
    assert caught.value.signum == signum
    assert signal.getsignal(signum) is before
    state = run()
    assert run.start == 6
    assert_same(state, undisturbed[1])


def test_resuming_a_finished_run_changes_nothing(tmp_path, examples, undisturbed):
    run = Run(tmp_path, examples)
    run()
    assert_same(run(), undisturbed[1])
    assert run.losses() == undisturbed[0].losses()


def test_divergence_names_the_step_and_the_last_good_checkpoint(tmp_path, examples):
    config = dataclasses.replace(CONFIG, save_every=1)
    run = Run(tmp_path, examples, config)
    with pytest.raises(Diverged) as caught:
        run(optax.sgd(1e30))
    message = str(caught.value)
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"last good checkpoint is {tmp_path / 'checkpoints' / str(saved[-1])}" in message
    assert f"diverged at step {saved[-1] + 1}:" in message


def test_divergence_before_any_checkpoint_says_so(tmp_path, examples):
    with pytest.raises(Diverged, match="no checkpoint was saved yet"):
        Run(tmp_path, examples, dataclasses.replace(CONFIG, save_every=100))(optax.sgd(1e30))


@pytest.mark.slow
def test_adapters_resume_the_same_on_a_base_that_stays(tmp_path, examples):
    lora = LoraConfig(rank=3, alpha=6.0, dropout=0.5, targets=("q_proj", "down_proj"))
    undisturbed = Run(tmp_path / "undisturbed", examples, lora=lora)
    state = undisturbed()
    losses = [loss for _, loss in undisturbed.losses()]
    assert losses[-1] < 0.95 * losses[0]
    params = MODEL.init(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))["params"]
    assert_same(undisturbed.base.params, params)

    crashed = Run(tmp_path / "crashed", examples, lora=lora)
    with pytest.raises(Killed):
        crashed(on_step=kill_at(7))
    assert_same(crashed(), state)
    assert crashed.start == 4
    assert crashed.losses() == undisturbed.losses()

    new = init_lora(jax.random.key(2), MODEL.config, lora)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 1e-3, state.params, new)
    assert all(jax.tree.leaves(moved))
    allowed = {leaf.shape for leaf in jax.tree.leaves(new)} | {()}
    assert {leaf.shape for leaf in jax.tree.leaves(state)} == allowed
    saved = json.loads((tmp_path / "crashed/checkpoints/12/state/_METADATA").read_text())
    names = saved["tree_metadata"].keys()
    assert len([name for name in names if name.startswith("('params'")]) == 4
    assert not any("kernel" in name or "embed" in name for name in names)
