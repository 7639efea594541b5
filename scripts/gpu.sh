#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go. Leaves logs and JSON in OUT.
#
#   scripts/gpu.sh OUT [STEP]...      no step named: all of them, in this order
#
# tests       every operation in f32, bf16 and f16 against the CPU
# resume      a run that is killed three times beside one that is not
# peers       training and inference in bf16 beside PyTorch
# cifar       CIFAR-10, then at twice the resolution; the GPU and the CPU evaluate the same weights
# profile     where the time of a training step goes
# products    each matrix product by itself: Burn's kernels, cuBLASLt, and a square one
# precision   CIFAR-10 for SEED_EPOCHS in f32, bf16 and f16, three seeds each: mean and deviation of top-1
# data        how long training waits for JPEGs: DATA from files, and from shards that are made of it
# more_peers  f32 beside PyTorch, and a training step without anything kept (recompute)
#
# MIXER, DEVICE_TESTS  the binaries; built here where they are not given:
#                      cargo build --release --features cuda
#                      cargo test --release --features cuda -p mixer-kernels --test devices --no-run
# CIFAR                class folders of CIFAR-10, {train,test}/<class>/*; default datasets/cifar10
# DATA                 class folders of photographs with a split `val`; without it, `data` is left out
# SEED_EPOCHS          default 30
# DATA_ARGS            more for those runs, as "--set model.variant='S/32'"
# PEERS_ARGS           for scripts/bench_gpu.py, as "--models B/16 --time-limit 200"
# DEVICE               default cuda; another one to try this script
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?where to leave logs and JSON}
shift
steps=${*:-tests resume peers cifar profile products precision data more_peers}
device=${DEVICE:-cuda}
mkdir -p "$out"
if [ -z "${MIXER:-}" ]; then
    cargo build --release --features cuda || exit
    MIXER=target/release/mixer
fi

tests() {
    if [ -n "${DEVICE_TESTS:-}" ]; then "$DEVICE_TESTS" --nocapture --test-threads 1
    else cargo test --release --features cuda -p mixer-kernels --test devices -- --nocapture --test-threads 1; fi
}

# On a GPU the same data and draws, and losses that are equal but for rounding: both columns are printed.
resume() {
    local args=(configs/quickstart.toml --device "$device" --set train.steps=200 --set train.log_every_steps=20
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
        "$MIXER" bench train --model "${model%=*}" --batch-size "${model#*=}" --precision bf16 --gelu tanh \
            --device "$device" --steps 5 --warmup 3 --profile
    done
}

peers() {
    # shellcheck disable=SC2086
    python3 scripts/bench_gpu.py --mixer "$MIXER" --json "$out/peers.json" ${PEERS_ARGS:-}
}

cifar() {
    local run="$out/cifar10" data=${CIFAR:-datasets/cifar10}
    "$MIXER" pretrain configs/pretrain/cifar10_gpu.toml --device "$device" --run-dir "$run" \
        --set data.path="\"$data\"" ${CIFAR_ARGS:-} || return
    "$MIXER" finetune configs/finetune/cifar10_64px.toml --init "$run" --device "$device" --run-dir "$out/cifar10_64px" \
        --set data.path="\"$data\"" --set train.precision='"bf16"' ${FINETUNE_ARGS:-} || return
    for device in cuda flex; do
        "$MIXER" evaluate "$run/final.safetensors" --data "$data" --split test --device $device
    done
}

products() {
    for model in B/16=512 S/16=1024; do
        for format in table json; do
            "$MIXER" bench products --model "${model%=*}" --batch-size "${model#*=}" --precision bf16 \
                --device "$device" --steps 20 --warmup 5 --format $format |
                tee "$out/products_$(tr / _ <<< "${model%=*}").$format"
        done
    done
}

# Of the weights themselves, which is what the precision acts on: their average hides some of it.
precision() {
    local precision seed run
    for precision in f32 bf16 f16; do
        for seed in 0 1 2; do
            run="$out/seeds/${precision}_$seed"
            "$MIXER" pretrain configs/pretrain/cifar10_gpu.toml --device "$device" --run-dir "$run" \
                --set data.path="\"${CIFAR:-datasets/cifar10}\"" --set seed=$seed \
                --set train.epochs="${SEED_EPOCHS:-30}" --set train.precision="\"$precision\"" || return
        done
    done
    for precision in f32 bf16 f16; do
        tail -qn 20 "$out"/seeds/${precision}_?/metrics.jsonl | grep '"eval"' | grep -v average |
            sed 's/.*"top1":\([0-9.]*\).*/\1/' |
            awk -v precision=$precision '{ n++; sum += $1; squares += $1 * $1; all = all " " $1 }
                END { mean = sum / n; printf "%s: top-1%s, mean %.4f, deviation %.4f\n", precision, all, mean,
                    sqrt((squares - n * mean * mean) / (n - 1)) }'
    done | tee "$out/precision.txt"
}

data() {
    [ -n "${DATA:-}" ] || { echo "DATA is not set: left out"; return; }
    "$MIXER" data shard "$DATA" --split val --out "$out/shards" || return
    local kind
    for kind in files shards; do
        local path=$DATA split=val
        [ $kind = files ] || { path="$out/shards" split='val-*.tar'; }
        # shellcheck disable=SC2086
        "$MIXER" pretrain configs/pretrain/imagenet1k_mixer_b16.toml --device "$device" \
            --run-dir "$out/data_$kind" --set data.path="\"$path\"" --set data.train="\"$split\"" \
            --set data.val="\"$split\"" --set train.steps=40 --set schedule.warmup_steps=10 \
            --set train.batch_size=512 --set train.microbatch_size=512 --set 'train.precision="bf16"' \
            --set train.eval_every_steps=40 ${DATA_ARGS:-} || return
        grep '"train"' "$out/data_$kind/metrics.jsonl"
    done
}

more_peers() {
    # shellcheck disable=SC2086
    python3 scripts/bench_gpu.py --mixer "$MIXER" --json "$out/peers_f32.json" --precision f32 --models B/16 \
        --modes train ${PEERS_ARGS:-}
    "$MIXER" bench train --model B/16 --batch-size 512 --precision bf16 --gelu tanh --device "$device" --steps 10 \
        --recompute-blocks 12
}

for step in $steps; do
    echo "== $step"
    "$step" 2>&1 | tee "$out/$step.log" || echo "== $step failed"
done
