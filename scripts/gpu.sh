#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: the kernels against the CPU, a run that is killed and
# continued against one that is not, speed beside PyTorch, and a CIFAR-10 training whose weights the CPU then
# evaluates. Leaves logs and JSON in OUT.
#
#   scripts/gpu.sh OUT [tests] [resume] [profile] [peers] [cifar]      no step named: all of them
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
steps=${*:-tests resume profile peers cifar}
mkdir -p "$out"
if [ -z "${MIXER:-}" ]; then
    cargo build --release --features cuda || exit
    MIXER=target/release/mixer
fi

tests() {
    if [ -n "${CUDA_TESTS:-}" ]; then "$CUDA_TESTS" --nocapture --test-threads 1
    else cargo test --release --features cuda -p mixer-kernels --test cuda -- --nocapture --test-threads 1; fi
}

# On a GPU the same data and draws, and losses that are equal but for rounding: both columns are printed.
resume() {
    local args=(configs/quickstart.toml --device cuda --set train.steps=200 --set train.log_every_steps=20
        --set train.eval_every_steps=100 --set train.checkpoint_every_steps=10)
    "$MIXER" pretrain "${args[@]}" --run-dir "$out/whole" || return
    for step in 40 90 150; do
        "$MIXER" pretrain "${args[@]}" --run-dir "$out/killed" &
        until [ -n "$(find "$out/killed/checkpoints" -name 'step_*' 2> /dev/null |
            awk -F_ -v step=$step '$NF + 0 >= step')" ]; do sleep 0.01; done
        kill -9 $!
        wait $!
    done
    "$MIXER" pretrain "${args[@]}" --run-dir "$out/killed" --resume must || return
    "$MIXER" weights verify "$out/killed"
    losses() { sed -n 's/.*"step":\([0-9]*\).*"loss":\([0-9.e-]*\).*/\1 \2/p' "$out/$1/metrics.jsonl"; }
    paste -d' ' <(losses whole) <(losses killed) |
        awk '{ print; if ($1 != $3) exit 1 } END { print "step, loss of the whole run, step, loss of the killed one" }'
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
