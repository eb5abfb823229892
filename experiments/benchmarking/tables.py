"""Pages of the benchmarks, in Markdown."""

from collections.abc import Sequence

from jax import __version__ as jax_version

from cat_jax.markdown import markdown_table
from experiments.benchmarking import loss, step
from experiments.benchmarking.sizes import Sizes

STEP_EXPLANATION = """\
Both steps train the same model on the same batch, in turn in one process, so that both see the
same machine. The ratio is that of each pair of steps; the table gives its median and quartiles."""
LOSS_EXPLANATION = """\
All compute attention, the hinge loss of CAT (Han et al., EMNLP 2025) and its gradient with respect
to queries and keys. The torch version does what the paper's code does: it keeps the maps of all
layers and heads, averages them, and loops over their rows. Each measurement has a process of its
own, so that its peak memory is its own; that of JAX includes its compiler's, 100 MiB."""


def step_page(results: Sequence[step.Result], sizes: Sizes, samples: int) -> str:
    """Return the page of the train step: a table with a row per length."""
    columns = ["T", "sequences", "attention", "plain, s", "CAT, s"]
    rows = [
        [
            str(r.length),
            str(r.sequences),
            r.attention,
            f"{r.plain_seconds:.3g}",
            f"{r.cat_seconds:.3g}",
            f"{r.ratio:.3f} ({r.ratio_low:.3f} to {r.ratio_high:.3f})",
            f"{r.cat_rates['tokens_per_second']:,.0f}",
        ]
        for r in results
    ]
    note = (
        f"{results[0].device}, jax {jax_version}; {sizes.num_layers} layers of width "
        f"{sizes.width}, {sizes.num_heads} query heads and {sizes.num_kv_heads} key/value heads of "
        f"size {sizes.head_dim}, vocabulary {sizes.vocab_size}, {sizes.dtype}, remat "
        f"`{sizes.remat}`; {step.EFFECTS:.1%} of the positions are effects, {step.CAUSES:.1%} "
        f"causes; {samples} pairs of steps."
    )
    table = markdown_table([*columns, "CAT / plain (quartiles)", "CAT, tokens/s"], rows, "right")
    title = "# A train step with and without guidance"
    return "\n\n".join([title, STEP_EXPLANATION, table, note]) + "\n"


def loss_page(results: Sequence[loss.Result]) -> str:
    """Return the page of the guidance loss: a row per length, two columns per implementation."""
    columns = [f"{name}, {unit}" for name in loss.IMPLEMENTATIONS for unit in ("s", "MiB")]
    rows = []
    for length in dict.fromkeys(result.length for result in results):
        found = [r for r in results if r.length == length]
        cells = [(f"{r.seconds:.3g}", f"{r.peak_bytes / 2**20:.0f}") for r in found]
        rows.append([str(length), *(cell for pair in cells for cell in pair)])
    table = markdown_table(["T", *columns], rows, "right")
    sizes = f"{loss.LAYERS} layers, {loss.HEADS} heads of size {loss.SIZE}"
    note = f"{sizes}, one sequence, float32; medians."
    return "\n\n".join(["# The guidance loss on a CPU", LOSS_EXPLANATION, table, note]) + "\n"
