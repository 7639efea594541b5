#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: the kernels against the CPU, speed beside PyTorch, and a
# CIFAR-10 training whose weights the CPU then evaluates. Leaves logs and JSON in OUT.
#
#   scripts/gpu.sh OUT [tests] [profile] [peers] [cifar]      no step named: all of them
#
# MIXER, CUDA_TESTS   the binaries; built here where they are not given:
#                     cargo build --release --features cuda
#                     cargo test --release --features cuda -p mixer-kernels --test cuda --no-run
# CIFAR               class folders of CIFAR-10, {train,test}/<class>/*; default datasets/cifar10
# PEERS_ARGS          for scripts/bench_gpu.py, as "--models B/16 --time-limit 200"
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?where to leave logs and JSON}
shift
steps=${*:-tests profile peers cifar}
mkdir -p "$out"
if [ -z "${MIXER:-}" ]; then
    cargo build --release --features cuda || exit
    MIXER=target/release/mixer
fi

tests() {
    if [ -n "${CUDA_TESTS:-}" ]; then "$CUDA_TESTS" --nocapture --test-threads 1
    else cargo test --release --features cuda -p mixer-kernels --test cuda -- --nocapture --test-threads 1; fi
}

profile() {
    "$MIXER" devices
    for model in B/16=512 S/16=1024; do
        "$MIXER" bench --model "${model%=*}" --batch-size "${model#*=}" --precision bf16 --gelu tanh \
            --device cuda --steps 5 --warmup 3 --profile
    done
}

peers() {
    # shellcheck disable=SC2086
    python3 scripts/bench_gpu.py --mixer "$MIXER" --json "$out/peers.json" ${PEERS_ARGS:-}
}

cifar() {
    local run="$out/cifar10" data=${CIFAR:-datasets/cifar10}
    "$MIXER" pretrain configs/pretrain/cifar10_gpu.toml --device cuda --run-dir "$run" \
        --set data.path="\"$data\"" ${CIFAR_ARGS:-} || return
    "$MIXER" finetune configs/finetune/cifar10_64px.toml --init "$run" --device cuda --run-dir "$out/cifar10_64px" \
        --set data.path="\"$data\"" --set train.precision='"bf16"' ${FINETUNE_ARGS:-} || return
    for device in cuda flex; do
        "$MIXER" evaluate "$run/final.safetensors" --data "$data" --split test --device $device
    done
}

for step in $steps; do
    echo "== $step"
    "$step" 2>&1 | tee "$out/$step.log" || echo "== $step failed"
done
