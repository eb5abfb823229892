"""Write and open pages of attention maps: this package's, CircuitsVis's and BertViz's.

All show the same maps of a pretrained model over a text of the Spurious Token Game.
"""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cat_jax.ranges import Count, check_ranges
from experiments.benchmarking.attention_pages import DRAWN, PAGES, Contender, Task
from experiments.benchmarking.processes import run_module
from experiments.command_line import exit_status, parse_arguments

if TYPE_CHECKING:
    import numpy as np

CDN = "https://cdnjs.cloudflare.com/ajax/libs/"
SCRIPTS = {
    f"{CDN}require.js/2.3.6/require.min.js": "require.min.js",
    f"{CDN}d3/5.7.0/d3.min": "d3.min",
    f"{CDN}jquery/2.0.0/jquery.min": "jquery.min",
}


@dataclass(frozen=True)
class Args:
    """What is measured.

    Attributes:
        out: Results, written to OUT.json and OUT.md.
        model: Hugging Face folder or hub name.
        lengths: Tokens of the text, one measurement each.
        scripts: Folder with the files that BertViz loads from a network (require.min.js of 2.3.6,
            d3.min.js of 5.7.0, jquery.min.js of 2.0.0), to draw its pages all the same.
        seconds: How long a page may take to draw.
        memory_gib: Memory that the writing of a page may take.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    lengths: tuple[Count, ...] = (256, 1024)
    scripts: Path | None = None
    seconds: Count = 120
    memory_gib: Count = 14

    def __post_init__(self):
        check_ranges(self, "")


@dataclass(frozen=True)
class Result:
    """A page.

    Attributes:
        contender: Whose.
        tokens: T.
        layers: Layers that it shows.
        bytes: Its size; 0 if it could not be written.
        write_seconds: Time to write it.
        open_seconds: Time until it is drawn; None if it is not.
        loads: Addresses on other machines that it asks for.
        failed: Why it could not be written or drawn; empty if it could.
    """

    contender: Contender
    tokens: int
    layers: int
    bytes: int = 0
    write_seconds: float = 0.0
    open_seconds: float | None = None
    loads: tuple[str, ...] = ()
    failed: str = ""


def main() -> None:
    """Measure, print and write the results.

    Raises:
        InputError: The model cannot be read, or there is no Chromium.
    """
    args = parse_arguments(
        Args, prog="python -m experiments.benchmark_attention_page", description=__doc__
    )
    import numpy as np

    from cat_jax.train.provenance import describe_environment
    from experiments.results import write_results

    machine = describe_environment(("circuitsvis", "bertviz", "selenium"))
    results: list[Result] = []
    errors: list[dict[str, Any]] = []
    for length in args.lengths:
        with tempfile.TemporaryDirectory() as folder:
            maps_NHTT, tokens = read_text(args.model, length)
            errors.append({"tokens": length} | code_errors(maps_NHTT))
            np.save(Path(folder) / "maps.npy", maps_NHTT)
            (Path(folder) / "tokens.json").write_text(json.dumps(tokens))
            layers = len(maps_NHTT)
            del maps_NHTT
            for contender in PAGES:
                for shown in dict.fromkeys((layers, 1)):
                    results.append(measure(args, contender, Path(folder), length, shown))
                    print(results[-1], flush=True)
        rows = [asdict(result) for result in results]
        write_results(args.out, [*rows, *errors], page(args, results, errors, machine))
    print(page(args, results, errors, machine))


def read_text(model: str, length: int) -> "tuple[np.ndarray, list[str]]":
    """Return the maps [N, H, T, T] of a text of so many tokens, and the tokens."""
    import jax.numpy as jnp
    import numpy as np

    from cat_jax.analysis import attention_maps
    from cat_jax.data.records import Record
    from cat_jax.models.language_model import load_language_model
    from cat_jax.tasks import TASKS

    loaded = load_language_model(model)
    records = TASKS["stg"].records("train")[: length // 16]
    text = "\n".join(record.text for record in records if isinstance(record, Record))
    found = loaded.tokenizer(text, return_offsets_mapping=True)
    tokens = [text[start:end] for start, end in found["offset_mapping"][:length]]
    ids = jnp.array([found["input_ids"][:length]])
    maps_NBHTT = attention_maps(loaded.model, loaded.params, ids)
    return np.asarray(maps_NBHTT)[:, 0], tokens


def code_errors(maps_NHTT: "np.ndarray") -> dict[str, float]:
    """Return what eight bits are off by on these maps: evenly spaced codes, and those of a page.

    For each: the mean error of the pairs that a query sees, and the share of the attention that
    stands in values stored as 0.
    """
    import numpy as np

    from cat_jax.analysis.pages.codes import encode

    seen_TT = np.tri(maps_NHTT.shape[-1], dtype=bool)
    sums = np.zeros(4)
    for maps_HTT in maps_NHTT:
        exact = maps_HTT[:, seen_TT].astype(np.float64)
        for at, stored in enumerate((np.rint(255 * exact) / 255, (encode(exact) / 255.0) ** 2)):
            lost = exact[stored == 0].sum() / exact.sum()
            sums[2 * at : 2 * at + 2] += abs(stored - exact).mean(), lost
    names = "even_error", "even_lost", "page_error", "page_lost"
    return dict(zip(names, (sums / len(maps_NHTT)).tolist(), strict=True))


def measure(args: Args, contender: Contender, folder: Path, length: int, layers: int) -> Result:
    """Write a page and open it."""
    if find_spec(contender.split()[0]) is None:
        return Result(contender, length, layers, failed="is not installed")
    out = folder / "page.html"
    task = Task(
        contender,
        str(folder / "maps.npy"),
        str(folder / "tokens.json"),
        layers,
        str(out),
        args.memory_gib * 2**30,
    )
    written = run_module("experiments.benchmarking.attention_pages", task)
    if isinstance(written, str):
        reason = f"{written}, within {args.memory_gib} GiB" if "Memory" in written else written
        return Result(contender, length, layers, failed=f"not written: {reason}")
    size = out.stat().st_size
    seconds, loads, failed = open_page(out, contender, args.seconds)
    if loads and args.scripts:
        text = out.read_text("utf-8")
        for address, name in SCRIPTS.items():
            text = text.replace(address, (args.scripts.absolute() / name).as_uri())
        out.write_text(text, "utf-8")
        del text
        seconds, _, failed = open_page(out, contender, args.seconds)
    return Result(
        contender, length, layers, size, written["seconds"], seconds, tuple(loads), failed
    )


class TookTooLong(Exception):
    """A page, and with it the driver, did not answer in time."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TookTooLong when the block takes longer: drivers themselves wait on and try again."""

    def stop(number: int, frame: object) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def open_page(file: Path, contender: Contender, limit: int) -> tuple[float | None, list[str], str]:
    """Return the seconds until a page is drawn, what it asks a network for, and why it failed."""
    from selenium.common.exceptions import WebDriverException

    from experiments.benchmarking.browser import end, open_browser, requested_elsewhere

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        driver = open_browser(Path(folder))
        try:
            with time_limit(limit):
                start = time.perf_counter()
                driver.get(file.as_uri())
                while not driver.execute_script(DRAWN[contender]):
                    loads = requested_elsewhere(driver)
                    if loads:
                        return None, loads, "nothing is drawn without a network"
                    time.sleep(0.05)
                driver.execute_script("return document.body.offsetHeight")  # laid out
                return time.perf_counter() - start, requested_elsewhere(driver), ""
        except TookTooLong:
            return None, [], f"nothing is drawn within {limit} s"
        except WebDriverException as error:
            return None, [], f"the browser failed: {(error.msg or '').splitlines()[:1]}"
        finally:
            end(driver)


def page(
    args: Args, results: Sequence[Result], errors: Sequence[dict[str, Any]], machine: str
) -> str:
    """Return the page: what was measured where, and the tables."""
    from cat_jax.markdown import markdown_table

    columns = ["tokens", "layers", "page", "size", "write", "open until drawn", "asks a network"]
    table = markdown_table(columns, [_cells(result) for result in results])
    of_codes = markdown_table(
        ["tokens", "evenly spaced: mean error", "stored as 0", "page: mean error", "stored as 0"],
        [
            [f"{x['tokens']:,}", f"{x['even_error']:.1e}", f"{x['even_lost']:.1%}",
             f"{x['page_error']:.1e}", f"{x['page_lost']:.2%}"]
            for x in errors
        ],
        "right",
    )  # fmt: skip
    scripts = "; here local copies took their place (`--scripts`)" if args.scripts else ""
    return f"""# Pages of attention maps

`python -m experiments.benchmark_attention_page OUT`: the maps of {Path(args.model).name} over
one text, all layers or the first, written by `cat.attention_page`, by CircuitsVis
(`attention_heads`, a view for each layer, with its script in the page) and by BertViz
(`html_action="return"`); pip install circuitsvis bertviz. Pages are opened from disk by headless
Chromium without a network. BertViz asks a network for three scripts, without which it draws
nothing{scripts}. A page has {args.seconds} s to draw, and its writing {args.memory_gib} GiB.

{table}

Of this package's page at the longer lengths some maps are whole and all others pooled, as the page
says; the others hold every value as decimal text.

What eight bits are off by on these maps, of the pairs that a query sees, and the share of the
attention that they store as 0:

{of_codes}

{machine}
"""


def _cells(x: Result) -> list[str]:
    start = [f"{x.tokens:,}", str(x.layers), x.contender]
    if not x.bytes:
        return [*start, x.failed, "", "", ""]
    return [
        *start,
        f"{x.bytes / 1e6:,.1f} MB",
        f"{x.write_seconds:.1f} s",
        x.failed if x.open_seconds is None else f"{x.open_seconds:.1f} s",
        "yes" if x.loads else "no",
    ]


if __name__ == "__main__":
    sys.exit(exit_status(main))
