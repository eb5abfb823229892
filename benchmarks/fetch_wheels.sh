#!/usr/bin/env bash
# Fetches what a machine lacks that has jax, flax, optax and transformers, but no network.
#   benchmarks/fetch_wheels.sh FOLDER 3.12            # its version of Python; x86-64 Linux
#   benchmarks/fetch_wheels.sh FOLDER 3.12 NAME...    # other packages, each without its needs
# There, with FOLDER copied:
#   python3 -m pip install --no-index --no-deps --target site FOLDER/*.whl
#   export PYTHONPATH=$PWD/site:$PWD
set -euo pipefail
folder=$1 version=$2
shift 2
if [ $# -eq 0 ]; then
    set -- tyro docstring-parser typeguard
fi
platforms=()
for glibc in 17 24 27 28 31 34; do
    platforms+=(--platform "manylinux_2_${glibc}_x86_64")
done
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
    --python-version "$version" "${platforms[@]}" --dest "$folder" "$@"
ls "$folder"
