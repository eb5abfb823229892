"""Communication between chips, read from the text of a compiled HLO program.

A collective inside a loop counts once per iteration. Loops nest: the layers, and within a layer the
steps of a matrix product whose operands travel while it runs. XLA's own cost analysis counts
neither iterations nor kernels.
"""

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}

_HEAD = re.compile(r"^(ENTRY )?%(\S+) \(.*\{$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|true_computation|false_computation)=%([^\s,)}]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations|calls)=\{([^}]*)\}")
_WHILE = re.compile(r" while\(.*?condition=%([^\s,]+), body=%([^\s,]+)")
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=[^{]*)? \{((?:'[^}]*)?)\}")
_IOTA = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")


@dataclass(frozen=True)
class Collective:
    """One collective operation of a step.

    Attributes:
        kind: Operation, one of ``KINDS``.
        group: Chips in each replica group.
        executions: Executions per step.
        received: Bytes that each chip receives per execution.
    """

    kind: str
    group: int
    executions: int
    received: float

    @property
    def bytes(self) -> float:
        """Bytes that each chip receives per step."""
        return self.executions * self.received


def collectives(text: str) -> list[Collective]:
    """Return the collectives of an optimised program (``compiled.as_text()``).

    An asynchronous collective is split over several fusions, inside loops too, that share its
    channel: it counts once, with the fewest executions.

    Raises:
        ValueError: The program does not tell a loop's trip count or a collective's group.
    """
    bodies = computations(text)
    executions = execution_counts(bodies)
    found: dict[str, Collective] = {}
    for name, lines in bodies.items():
        scatters = "all-reduce-scatter" in name
        for number, line in enumerate(lines):
            match = _COLLECTIVE.search(line)
            if match is None or not executions[name]:
                continue
            channel = re.search(r"channel_id=(\d+)", line)
            key = channel[1] if channel else f"{name} {number}"
            this = _collective(match, line, executions[name], scatters)
            if key not in found or this.executions < found[key].executions:
                found[key] = this
    return list(found.values())


def bytes_by_kind(found: list[Collective]) -> dict[str, float]:
    """Return the bytes that each chip receives per step, by kind of collective."""
    total: dict[str, float] = defaultdict(float)
    for one in found:
        total[one.kind] += one.bytes
    return {kind: total[kind] for kind in KINDS if total[kind]}


def computations(text: str) -> dict[str, list[str]]:
    """Return the lines of every computation by its name, ``ENTRY`` for the entry computation."""
    bodies: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            name = "ENTRY" if head[1] else head[2]
            bodies[name] = []
        elif line.startswith("}"):
            name = None
        elif name is not None:
            bodies[name].append(line)
    return bodies


def execution_counts(bodies: dict[str, list[str]]) -> Counter[str]:
    """Return the executions of each computation per step; conditions of loops are left out."""
    executions: Counter[str] = Counter()

    def visit(name: str, times: int) -> None:
        executions[name] += times
        for callee, count in calls[name]:
            visit(callee, times * count)

    calls = {
        name: [c for line in lines for c in _calls(line, bodies)] for name, lines in bodies.items()
    }
    visit("ENTRY", 1)
    return executions


def _calls(line: str, bodies: dict[str, list[str]]) -> list[tuple[str, int]]:
    loop = _WHILE.search(line)
    if loop:
        known = _KNOWN.search(line)
        return [(loop[2], int(known[1]) if known else trip_count(bodies, *loop.groups()))]
    names = _CALLED.findall(line)
    for listed in _BRANCHES.findall(line):
        names += re.findall(r"%([^\s,]+)", listed)
    return [(name, 1) for name in names if name in bodies]


def trip_count(bodies: dict[str, list[str]], condition: str, body: str) -> int:
    """Return the trip count of a loop that counts from 0 by a constant step to a constant limit.

    Raises:
        ValueError: The loop has another form.
    """
    compare = re.search(r"ROOT .* compare\(([^)]*)\), direction=LT", "\n".join(bodies[condition]))
    if compare:
        counter, limit = re.findall(r"%([^\s,)]+)", compare[1])
        index = re.search(
            r" get-tuple-element\(.*index=(\d+)", _definition(bodies[condition], counter)
        )
        most = _constant(bodies[condition], limit)
        if index and most is not None:
            step = _step(bodies, body, int(index[1]))
            if step:
                return math.ceil(most / step)
    raise ValueError(f"cannot tell the trip count of the loop with the condition {condition}")


def _step(bodies: dict[str, list[str]], body: str, index: int) -> int | None:
    """Return the constant that the body adds to its loop counter, in a fusion or outside."""
    lines = bodies[body]
    root = next(line for line in lines if line.lstrip().startswith("ROOT"))
    value = _definition(lines, re.findall(r"%([^\s,)]+)", root.partition(" tuple(")[2])[index])
    called = _CALLED.search(value)
    if called:
        lines = bodies[called[1]]
        value = next(line for line in lines if line.lstrip().startswith("ROOT"))
    added = re.search(r" add\(([^)]*)\)", value)
    terms = re.findall(r"%([^\s,)]+)", added[1]) if added else []
    return next((step for term in terms if (step := _constant(lines, term))), None)


def _definition(lines: list[str], name: str) -> str:
    return next(
        (line for line in lines if re.match(rf"\s*(ROOT )?%{re.escape(name)} = ", line)), ""
    )


def _constant(lines: list[str], name: str) -> int | None:
    found = re.search(r" constant\((\d+)\)", _definition(lines, name))
    return int(found[1]) if found else None


def _collective(match: re.Match[str], line: str, executions: int, scatters: bool) -> Collective:
    result, kind, start = match.groups()
    size = _result_bytes(result, two_sided=bool(start) and kind != "all-reduce")
    group = 2 if kind == "collective-permute" else _group(line)
    others = (group - 1) / group
    if kind == "all-reduce" and scatters:
        return Collective("reduce-scatter", group, executions, size * others)
    received = {
        "all-gather": size * others,
        "all-reduce": 2 * size * others,
        "reduce-scatter": size * (group - 1),
        "all-to-all": size * others,
        "collective-permute": size,
    }[kind]
    return Collective(kind, group, executions, received)


def _result_bytes(result: str, two_sided: bool) -> float:
    """Return the bytes of a result; a ``-start`` op lists its operands before its results."""
    arrays = [a for a in _ARRAY.findall(result) if a[0] in BYTES]
    if two_sided:
        arrays = [array for array in arrays if array[1]]  # scalars are semaphores
        arrays = arrays[len(arrays) // 2 :]
    return sum(
        BYTES[kind] * math.prod(map(int, filter(None, dims.split(",")))) for kind, dims in arrays
    )


def _group(line: str) -> int:
    mesh = _MESH.search(line)
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    iota = _IOTA.search(line)
    if iota:
        return int(iota[1])
    listed = _LISTED.search(line)
    if listed is None:
        raise ValueError(f"cannot tell the replica groups of: {line.strip()[:200]}")
    return len(listed[1].split(","))
