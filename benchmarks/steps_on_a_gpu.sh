#!/usr/bin/env bash
# Training steps of this package beside torch's, with a profile of ours: SmolLM2-135M's and
# Qwen2.5-1.5B's shapes with random weights, T = 2,048 and 8,192, all but a few tokens trained.
#   benchmarks/steps_on_a_gpu.sh OUT            # OUT/SHAPE.md, .json and OUT/trace
#   SMALL=1 benchmarks/steps_on_a_gpu.sh OUT    # a rehearsal on a CPU, at toy sizes
# The exit status is 1 where a bar is missed (experiments/benchmark_against_torch.py).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1 status=0
python=${PYTHON:-python3}

shape() { # name, architecture, type, width, mlp, layers, heads, key/value heads, tokens, theta
    mkdir -p "$out/$1"
    cat >"$out/$1/config.json" <<END
{"architectures": ["$2"], "model_type": "$3", "hidden_size": $4, "intermediate_size": $5,
 "num_hidden_layers": $6, "num_attention_heads": $7, "num_key_value_heads": $8, "vocab_size": $9,
 "rope_theta": ${10}, "rms_norm_eps": 1e-6, "max_position_embeddings": 8192, "hidden_act": "silu",
 "tie_word_embeddings": true, "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2}
END
}

steps() { # length, sequences, targets, options
    for name in "${names[@]}"; do
        "$python" -m experiments.benchmark_against_torch "$out/${name}_$1" \
            --model "$out/$name" --length "$1" --sequences "$2" --targets "$3" \
            --contenders plain torch_plain cat torch_cat --trace "$out/trace/$name" "${@:4}" ||
            status=$?
    done
}

if [ -n "${SMALL:-}" ]; then
    names=(toy)
    shape toy LlamaForCausalLM llama 48 96 2 6 3 97 10000.0
    steps 40 2 30 --steps 2
else
    names=(smollm2_135m qwen2.5_1.5b)
    shape smollm2_135m LlamaForCausalLM llama 576 1536 30 9 3 49152 100000.0
    shape qwen2.5_1.5b Qwen2ForCausalLM qwen2 1536 8960 28 12 2 151936 1000000.0
    steps 2048 2 2000 --device gpu --steps 8
    steps 8192 1 8000 --device gpu --steps 8
fi
exit "$status"
