#!/usr/bin/env bash
# What attention needs the hardware for, within ten minutes: checks, benchmark, trace.
#   benchmarks/on_an_accelerator.sh mosaic_gpu h200     # or mosaic_tpu v5e, or augmented_second a100
# Needs the package and the jax of the machine (pip install -e '.[gpu]' or '.[tpu]'); where there is
# no network, see fetch_wheels.sh. The results are benchmarks/NAME.json and NAME.md; the trace is left
# in the folder OUT (default: runs/trace). A check that fails does not keep the rest from running, but
# the exit status is its own. With SMALL=1 it is a rehearsal on any machine, and all of it goes to OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
implementation=$1 name=$2 out=${OUT:-runs/trace} status=0
python=${PYTHON:-python3}
results=benchmarks/$name checks=() shapes=(--minutes 5)
traced=(--lengths 8192 --heads 32 --sizes 128 --layouts whole)
if [ -n "${SMALL:-}" ]; then
    results=$out/$name checks=(--cases 1) shapes=(--lengths 64 --heads 12 --samples 2)
    shapes+=(--sizes 64 --layouts whole packed --names "$implementation")
    traced=(--lengths 64 --heads 12 --sizes 64 --layouts whole --names "$implementation")
fi

check() {
    "$python" -m pallas_kernels.benchmark.check "$@" ${checks[@]+"${checks[@]}"} || status=$?
}

check "$implementation"
if [[ "$implementation" == mosaic_gpu ]]; then
    for way in augmented_wide augmented_second; do
        check "$way"
    done
fi
"$python" -m pallas_kernels.benchmark --out "$results" "${shapes[@]}"
"$python" -m pallas_kernels.benchmark --out "$out/traced" --trace "$out" --samples 2 "${traced[@]}"
exit "$status"
