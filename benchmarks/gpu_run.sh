#!/usr/bin/env bash
# Everything that a GPU must show, most important first; each part with its own time limit and its own file of results.
# In the environment of `make env` with a torch for CUDA:   benchmarks/gpu_run.sh [FOLDER]
# The first lines of FOLDER/summary.txt say which parts ended well; a part that fails stops no other.
set -uo pipefail
cd "$(dirname "$0")/.."
results=$(realpath -m "${1:-out/gpu}")
mkdir -p "$results"
: > "$results/summary.txt"

part() { # part NAME SECONDS COMMAND...
    local name=$1 seconds=$2 begun=$SECONDS status
    shift 2
    timeout --kill-after=10 "$seconds" "$@" > "$results/$name.txt" 2>&1
    status=$?
    printf '%-32s exit %3d after %4d s: %s\n' "$name" "$status" "$((SECONDS - begun))" "$*" | tee -a "$results/summary.txt"
}

python - <<'PYTHON' || exit 1
import sys, torch
sys.exit(None if torch.cuda.is_available() else "torch sees no GPU: install a torch for CUDA, look at nvidia-smi")
PYTHON

part device 20 nvidia-smi
part environment 60 python -m torch.utils.collect_env
part tests 600 python -m pytest -q -m "cuda or not slow" test/model test/inference
part kernels 600 python -m pytest -q -m slow test/model/test_compiled_kernels.py

models="bevformerv2_r50_t1 r50_t1_two_stage bevformerv2_r50_t8 r50_t8_two_stage"
for precision in bfloat16 float16 float32; do
    for model in $models; do
        part "stages_${model}_$precision" 300 bevformer-ros benchmark --device cuda --model "$model" \
            --precision "$precision" --repeats 200 --naive --json "$results/stages_${model}_$precision.json"
    done
done
for model in $models; do # what was expected of this GPU, to stand beside what it did
    part "roofline_$model" 60 bevformer-ros benchmark --model "$model" --precision bfloat16 --roofline "${GPU:-h100}" \
        --json "$results/roofline_$model.json"
done
part node 300 bevformer-ros benchmark-node --device cuda --model r50_t8_two_stage --precision bfloat16 --rate 12
part node_demo 180 bevformer-ros benchmark-node --device cuda --model demo --precision bfloat16 --rate 12
part scaling 300 bevformer-ros benchmark-scaling --device cuda --model bevformerv2_r50_t1 --precision bfloat16 \
    --repeats 50 -o "$results/scaling_cuda.svg"
part training 600 bevformer-ros train --config demo_first_stage --output "$results/training" --device cuda # 124: time is up
cat "$results/summary.txt"
