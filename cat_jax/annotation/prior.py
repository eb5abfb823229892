"""A task's causal prior: a graph over kinds of spans and a few annotated examples, in YAML.

::

    task: Word problems; the answer is a number.
    kinds:
      number: a quantity that the calculation uses
      question: the words that say what is asked for
      answer: the result
    edges: [number -> answer, question -> answer]
    answer: answer
    examples:
      - input: "Tom has 3 apples and buys 2. How many has he now? Answer: "
        target: "5"
        annotations:
          - effect: {text: "5", kind: answer}
            causes: [{text: "3", kind: number}, {text: "2", kind: number}]

Source: CAT (Han et al., EMNLP 2025) starts from such a graph and one example for each data set.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import networkx
import yaml
from pydantic import ValidationError

from cat_jax.annotation.checks import InvalidReply, locate
from cat_jax.annotation.drawing import prior_fragment, prior_page
from cat_jax.annotation.reply import Reply
from cat_jax.data.records import Record
from cat_jax.errors import InputError, name_hint
from cat_jax.files import one_line, write_text

FOLDER = resources.files("cat_jax.annotation") / "priors"
PRIORS = tuple(sorted(x.name.removesuffix(".yaml") for x in FOLDER.iterdir()))
"""Names of the priors that come with the package."""
FIELDS = ("task", "kinds", "edges", "answer", "examples")
MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Prior:
    """What is known of a task before a record is read.

    Attributes:
        task: What the task is, in a sentence or two.
        kinds: Kinds of spans, each with a sentence that says what belongs to it.
        edges: Pairs of kinds: spans of the second depend on spans of the first.
        answer: Kind of the answer.
        examples: Annotated records.
        sha256: Digest of the file.
    """

    task: str
    kinds: Mapping[str, str]
    edges: tuple[tuple[str, str], ...]
    answer: str
    examples: tuple[tuple[Record, Reply], ...]
    sha256: str

    @property
    def graph(self) -> networkx.DiGraph:
        """Return the graph over the kinds."""
        graph = networkx.DiGraph()
        graph.add_nodes_from(self.kinds)
        graph.add_edges_from(self.edges)
        return graph

    @property
    def records(self) -> list[Record]:
        """Return the examples as records, annotated."""
        return [
            Record(record.input, record.target, locate(reply, record, self))
            for record, reply in self.examples
        ]

    def save_html(self, path: str | PathLike[str]) -> None:
        """Write a page with the graph and the examples, coloured by kind; it loads nothing."""
        write_text(path, prior_page(self))

    def _repr_html_(self) -> str:
        return prior_fragment(self)


def read_prior(source: str | PathLike[str]) -> Prior:
    """Read a prior from a YAML file, or one of ``PRIORS`` by its name.

    Raises:
        InputError: The file cannot be read, or what it says is no prior; file and field are named.
    """
    if str(source) in PRIORS:
        path, content = f"prior {source}", (FOLDER / f"{source}.yaml").read_bytes()
    else:
        path, content = str(source), _read(Path(source))
    try:
        values = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML ({one_line(error)}); correct it") from error
    return _parse(values, path, hashlib.sha256(content).hexdigest())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        hint = "" if path.suffix else f"; of this package, {name_hint(str(path), PRIORS)}"
        raise InputError(
            f"{path} cannot be read ({one_line(error)}); name a YAML file{hint}"
        ) from (error)


def _parse(values: Any, path: str, digest: str) -> Prior:
    if not isinstance(values, dict) or set(values) != {*FIELDS}:
        given = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise InputError(
            f"{path} must have the fields {', '.join(FIELDS)}; it has {given or 'none'}"
        )
    kinds = values["kinds"]
    if not isinstance(kinds, dict) or not all(
        isinstance(text, str) and text.strip() for pair in kinds.items() for text in pair
    ):
        raise InputError(
            f"{path}, field 'kinds': give each kind a sentence, as 'number: a quantity'"
        )
    if not isinstance(values["task"], str) or not values["task"].strip():
        raise InputError(f"{path}, field 'task': say in a sentence what the task is")
    edges = _parse_edges(values["edges"], kinds, path)
    answer = values["answer"]
    if answer not in kinds or not any(effect == answer for _, effect in edges):
        raise InputError(
            f"{path}, field 'answer': must be a kind that others point to, not {answer!r}"
        )
    bare = Prior(values["task"].strip(), kinds, edges, answer, (), digest)
    examples = _parse_examples(values["examples"], bare, path)
    return Prior(bare.task, kinds, edges, answer, examples, digest)


def _parse_edges(edges: Any, kinds: Mapping[str, str], path: str) -> tuple[tuple[str, str], ...]:
    where = f"{path}, field 'edges'"
    if not isinstance(edges, list) or not edges:
        raise InputError(f"{where}: give a list of edges such as 'number -> answer'")
    pairs: list[tuple[str, str]] = []
    for edge in edges:
        ends = [end.strip() for end in edge.split("->")] if isinstance(edge, str) else []
        if len(ends) != 2:
            raise InputError(f"{where}: {edge!r} must be of the form 'number -> answer'")
        for end in ends:
            if end not in kinds:
                raise InputError(f"{where}: {edge!r}: no kind is named {end!r}")
        pairs.append((ends[0], ends[1]))
    # Spans of a kind may depend on earlier ones of it: the order of the text rules out circles.
    graph = networkx.DiGraph(pair for pair in pairs if pair[0] != pair[1])
    if not networkx.is_directed_acyclic_graph(graph):
        circle = [a for a, _ in networkx.find_cycle(graph)]
        raise InputError(
            f"{where}: {' -> '.join([*circle, circle[0]])} is a circle; nothing depends on itself"
        )
    unused = [kind for kind in kinds if not any(kind in pair for pair in pairs)]
    if unused:
        raise InputError(f"{where}: the kind {unused[0]!r} has no edge; give it one, or remove it")
    return tuple(pairs)


def _parse_examples(examples: Any, prior: Prior, path: str) -> tuple[tuple[Record, Reply], ...]:
    if not isinstance(examples, list) or not 1 <= len(examples) <= MOST_EXAMPLES:
        raise InputError(f"{path}, field 'examples': give one to {MOST_EXAMPLES} annotated records")
    return tuple(
        _parse_example(example, prior, f"{path}, example {number}")
        for number, example in enumerate(examples, 1)
    )


def _parse_example(example: Any, prior: Prior, where: str) -> tuple[Record, Reply]:
    if not isinstance(example, dict) or set(example) != {"input", "target", "annotations"}:
        raise InputError(f"{where}: must have the fields input, target and annotations")
    if not all(isinstance(example[name], str) and example[name] for name in ("input", "target")):
        raise InputError(f"{where}: input and target must be text; put numbers in quotes")
    record = Record(example["input"], example["target"])
    try:
        reply = Reply(annotations=example["annotations"])
        locate(reply, record, prior)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}, field '{place}': {first['msg'].lower()}; correct it") from error
    except InvalidReply as error:
        raise InputError(f"{where}: {error}") from error
    return record, reply
