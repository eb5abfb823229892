"""Collectives of programs written by hand, whose traffic is counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.planning.hlo import bytes_by_kind, collectives

GROUPS = "channel_id={}, replica_groups={}, use_global_device_ids=true"


def loop(name, limit, step, body, counter=0):
    """A loop of ``limit / step`` iterations, as the compiler writes it."""
    return f"""
%{name}_body (p: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %p = (s32[], f32[8]{{0}}) parameter(0)
  %step = s32[]{{:T(128)}} constant({step})
  %i = s32[]{{:T(128)}} get-tuple-element(%p), index=0
  %x = f32[8]{{0}} get-tuple-element(%p), index=1
  %next = s32[]{{:T(128)}} add(%i, %step), metadata={{op_name="while/body/add"}}
{body}
  ROOT %out = (s32[], f32[8]{{0}}) tuple(%next, %x)
}}

%{name}_condition (q: (s32[], f32[8])) -> pred[] {{
  %limit = s32[]{{:T(128)}} constant({limit})
  %q = (s32[], f32[8]{{0}}) parameter(0)
  %j = s32[] get-tuple-element(%q), index={counter}
  ROOT %less = pred[]{{:T(512)}} compare(%j, %limit), direction=LT
}}
"""


def call(name, extra=""):
    return (
        f"  %w_{name} = (s32[], f32[8]{{0}}) while(%t), condition=%{name}_condition, "
        f"body=%{name}_body{extra}"
    )


def program(entry, *others):
    body = "\n".join(entry)
    return f"HloModule m\n{''.join(others)}\nENTRY %main (a: f32[8]) -> f32[8] {{\n{body}\n}}\n"


def gather(channel, groups="{{0,1,2,3},{4,5,6,7}}", name="g"):
    return (
        f"  %{name} = bf16[4,16]{{1,0:T(8,128)(2,1)S(1)}} all-gather(%x), "
        + GROUPS.format(channel, groups)
        + ", dimensions={0}"
    )


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[2,8]<=[16]", 8),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['axis_0'=16,'axis_1'=3] {'axis_0'}", 16),
        ("mesh['axis_0'=2,'axis_1'=5] {'axis_0','axis_1'}", 10),
        ("mesh['axis_0'=16,'axis_1'=3] {'axis_0':(2)4,'axis_1'}", 12),
        ("mesh['axis_0'=2,'axis_1'=8], device_ids=([8,2]T(1,0)) {'axis_0'}", 2),
    ],
)
def test_every_way_to_write_groups(groups, size):
    (one,) = collectives(program([gather(1, groups)]))
    assert (one.kind, one.group, one.executions) == ("all-gather", size, 1)
    assert one.received == 2 * 4 * 16 * (size - 1) / size


@pytest.mark.parametrize(
    ("line", "kind", "received"),
    [
        ("%r = f32[3,5]{1,0} all-reduce(%x)", "all-reduce", 2 * 60 * 3 / 4),
        ("%r = (f32[3]{0}, /*index=1*/s32[]{:T(128)}) all-reduce(%x, %y)", "all-reduce", 24),
        ("%r = f32[3,5]{1,0} reduce-scatter(%x)", "reduce-scatter", 60 * 3),
        ("%r = f32[3,5]{1,0} all-to-all(%x)", "all-to-all", 60 * 3 / 4),
        ("%r = (f32[2]{0}, f32[8]{0}) all-gather-start(%x)", "all-gather", 32 * 3 / 4),
    ],
)
def test_bytes_of_every_kind(line, kind, received):
    text = program(["  " + line + ", " + GROUPS.format(1, "{{0,1,2,3}}")])
    assert bytes_by_kind(collectives(text)) == {kind: received}


def test_a_permute_receives_one_buffer():
    line = (
        "  %p = (bf16[1,256]{1,0:S(1)}, bf16[1,256]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) "
        "collective-permute-start(%x), channel_id=5, source_target_pairs={{0,1},{1,0}}"
    )
    done = "  %d = bf16[1,256]{1,0} collective-permute-done(%p)"
    assert bytes_by_kind(collectives(program([line, done]))) == {"collective-permute": 512}


@given(st.integers(1, 90), st.integers(1, 9), st.integers(1, 5))
def test_loops_in_loops_multiply(outer, inner, step):
    inside = loop("inner", inner * step, step, gather(7))
    outside = loop("outer", outer, 1, gather(8) + "\n" + call("inner"))
    text = program([gather(9), call("outer")], inside, outside)
    assert sorted(one.executions for one in collectives(text)) == sorted([1, outer, outer * inner])


def test_a_trip_count_that_the_compiler_states_is_taken():
    known = ', backend_config={"known_trip_count":{"n":"13"}}'
    text = program([call("l", known)], loop("l", 4, 1, gather(1)))
    assert [one.executions for one in collectives(text)] == [13]


def test_a_counter_in_a_fusion_is_followed():
    text = program([call("l")], loop("l", 12, 1, gather(1)))
    fused = """
%count (c: s32[]) -> s32[] {
  %c = s32[] parameter(0)
  %three = s32[] constant(3)
  ROOT %sum = s32[] add(%c, %three)
}
"""
    text = text.replace(
        'add(%i, %step), metadata={op_name="while/body/add"}',
        "fusion(%i), kind=kLoop, calls=%count",
    )
    assert [one.executions for one in collectives(fused + text)] == [4]


def test_one_collective_in_several_fusions_counts_once():
    """It starts before a loop, goes on inside, and is done after it."""
    fusion = "\n%f{0} (a: f32[8]) -> f32[8] {{\n" + gather(3).replace("{", "{{").replace("}", "}}")
    fusion += "\n}}\n"
    body = loop("l", 6, 1, "  %z = f32[8]{0} fusion(%x), kind=kOutput, calls=%f1")
    start = "  %s = f32[8]{0} fusion(%a), kind=kCustom, calls=%f0"
    (one,) = collectives(program([start, call("l")], fusion.format(0), fusion.format(1), body))
    assert one.executions == 1


def test_a_reduction_that_is_scattered_is_told_from_its_computation():
    inside = "\n%all-reduce-scatter.3 (a: f32[8]) -> f32[2] {\n  %r = f32[8]{0} all-reduce(%a), "
    inside += GROUPS.format(1, "{{0,1,2,3}}") + "\n}\n"
    fusion = "  %s = f32[2]{0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.3"
    assert bytes_by_kind(collectives(program([fusion], inside))) == {"reduce-scatter": 24}


def test_what_never_runs_does_not_count():
    dead = "\n%dead (a: f32[8]) -> f32[8] {\n" + gather(1) + "\n}\n"
    assert collectives(program(["  %x = f32[8]{0} parameter(0)"], dead)) == []


def test_an_unknown_loop_is_refused():
    text = program(
        [call("odd")], loop("odd", 4, 1, gather(1)).replace("direction=LT", "direction=NE")
    )
    with pytest.raises(ValueError, match="trip count of the loop with the condition odd_condition"):
        collectives(text)
    with pytest.raises(ValueError, match="the replica groups of"):
        collectives(program([gather(1, "odd")]))
