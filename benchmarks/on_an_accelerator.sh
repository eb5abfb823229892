#!/usr/bin/env bash
# Everything that needs the hardware, within ten minutes: checks, benchmark, trace.
#   benchmarks/on_an_accelerator.sh mosaic_gpu h200     # or mosaic_tpu v5e
# Needs the package and the jax of the machine (pip install -e '.[gpu]' or '.[tpu]'). The results are
# benchmarks/NAME.json and NAME.md; the trace is left in the folder OUT (default: runs/trace).
set -euo pipefail
cd "$(dirname "$0")/.."
implementation=$1 name=$2 out=${OUT:-runs/trace}
python=${PYTHON:-python3}

"$python" -m pallas_kernels.benchmark.check "$implementation"
"$python" -m pallas_kernels.benchmark.check augmented --cases 1
"$python" -m pallas_kernels.benchmark --out "benchmarks/$name"
"$python" -m pallas_kernels.benchmark --out "$out/traced" --trace "$out" --samples 2 \
    --lengths 8192 --heads 32 --sizes 128
