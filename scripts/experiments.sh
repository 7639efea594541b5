#!/usr/bin/env bash
# Experiments of the paper in the small, on CIFAR-10: an evening on a few cores (some five hours on two).
#
#   scripts/experiments.sh OUT [STEP]...      no step named: all of them, in this order
#   SMOKE=1 scripts/experiments.sh OUT        the same commands for a few updates: do they run here?
#
# transfer    pre-training on six classes at 32 px, a five-shot probe on the other four, then fine-tuning on these
#             at 32 and 64 px, beside training on them from scratch
# sizes       each of MODELS on 10, 30 and 100 % of the training set, as many updates each (Figure 2)
# shuffling   training on pictures as they are, with patches shuffled, with pixels shuffled (Figure 4)
#
# Runs, tables (transfer.md, sizes.md, shuffling.md) and pages of `mixer report` are left in OUT. The same command
# continues what was stopped, and does not do again what is done.
#
# MIXER     the binary; default target/release/mixer
# CIFAR     class folders {train,test}/<class>/*; default datasets/cifar10. With SMOKE and without such folders,
#           ten built-in classes
# SOURCE    class folders {train,test} to pre-train on in place of the six classes, as those of CIFAR-100
# MODELS    networks of `sizes`, default "mixer_64x4 vit_56x4 mixer_128x6 vit_108x6": each Vision Transformer has as
#           many parameters as the Mixer before it, to within 5 %, and so have the BiT-ResNets bit_256x5 and bit_512x6,
#           which take longer on CPUs; further ones in `network` below
# SEEDS     of `sizes` and `shuffling`, default "0"; the tables have a row for each
# EPOCHS    passes over the whole training set, default 10
# ARGS      more for every command that computes: "--threads 8", "--device cuda"
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "error: $*" >&2
    exit 2
}

[ $# -ge 1 ] || fail "no folder for the results; usage: scripts/experiments.sh OUT [transfer|sizes|shuffling]..."
out=$1
shift
steps=${*:-transfer sizes shuffling}
mixer=${MIXER:-target/release/mixer}
cifar=${CIFAR:-datasets/cifar10}
seeds=${SEEDS:-0}
epochs=${EPOCHS:-10}
models=${MODELS:-mixer_64x4 vit_56x4 mixer_128x6 vit_108x6}
read -ra more <<<"${ARGS:-}"

# The settings of a network by its name, into the array `dims`.
network() {
    case $1 in
        mixer_64x4) dims=(--set model.hidden_dim=64 --set model.num_blocks=4) ;;
        mixer_128x6) dims=(--set model.hidden_dim=128 --set model.num_blocks=6) ;;
        mixer_128x8) dims=(--set model.hidden_dim=128 --set model.num_blocks=8) ;;
        mixer_256x8) dims=(--set model.hidden_dim=256 --set model.num_blocks=8) ;;
        vit_56x4) dims=(--set model.hidden_dim=56 --set model.num_blocks=4 --set model.num_heads=2 --set model.pool=average) ;;
        vit_108x6) dims=(--set model.hidden_dim=108 --set model.num_blocks=6 --set model.num_heads=3 --set model.pool=average) ;;
        bit_256x5) dims=(--set model.hidden_dim=256 --set "model.depths=[2,2,1]" --set model.num_blocks=5 --set model.num_groups=8) ;;
        bit_512x6) dims=(--set model.hidden_dim=512 --set "model.depths=[2,2,2]" --set model.num_blocks=6 --set model.num_groups=8) ;;
        *) fail "MODELS has \`$1\`, expected mixer_64x4, mixer_128x6, mixer_128x8, mixer_256x8, vit_56x4, vit_108x6, bit_256x5 or bit_512x6" ;;
    esac
}

for step in $steps; do
    case $step in
        transfer | sizes | shuffling) ;;
        *) fail "the step \`$step\` is not known, expected transfer, sizes or shuffling" ;;
    esac
done
for model in $models; do network "$model"; done
for seed in $seeds; do [[ $seed =~ ^[0-9]+$ ]] || fail "SEEDS has \`$seed\`, expected whole numbers as \"0 1 2\""; done
[[ $epochs =~ ^[1-9][0-9]*$ ]] || fail "EPOCHS is \`$epochs\`, expected a whole number above 0"
command -v "$mixer" >/dev/null || fail "$mixer is no program; build it with \`cargo build --release\`, or set MIXER"
mkdir -p "$out" 2>/dev/null || fail "$out cannot be made"
out=$(cd "$out" && pwd)
if [ -n "${SMOKE:-}" ] && [ -z "${CIFAR:-}" ] && [ ! -d "$cifar/train" ]; then
    cifar=$out/data/builtin
    [ -d "$cifar" ] || "$mixer" data synthesise --out "$cifar" --image-size 32 --examples 200 --val-examples 100
    [ -e "$cifar/test" ] || ln -s val "$cifar/test"
fi
for split in train test; do
    [ -d "$cifar/$split" ] || fail "no folder $cifar/$split; CIFAR names the folder of class folders, see datasets/README.md"
    [ -z "${SOURCE:-}" ] || [ -d "$SOURCE/$split" ] || fail "no folder $SOURCE/$split; SOURCE names a folder of class folders"
done
cifar=$(cd "$cifar" && pwd)
mapfile -t classes < <(find -L "$cifar/train" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | LC_ALL=C sort)
[ "${#classes[@]}" -ge 8 ] || fail "$cifar/train has ${#classes[@]} class folders, expected the ten of CIFAR-10"

# As many updates for every part of the data: those of EPOCHS passes over the whole. Where it is only tried, few.
examples=$(find -L "$cifar/train" -type f | wc -l)
batch=128
length=(--set "train.steps=$((epochs * examples / batch))")
short=(--set train.epochs=3)
probed=("" "")
if [ -n "${SMOKE:-}" ]; then
    short=(--set train.steps=2 --set train.batch_size=8 --set train.microbatch_size=8 --set schedule.warmup_steps=1
        --set train.eval_every_steps=2 --set "data.train=train[:8 of each class]" --set "data.val=test[:4 of each class]")
    length=("${short[@]}")
    probed=("[:8 of each class]" "[:4 of each class]")
fi
[ -n "${SMOKE:-}" ] || [ $((epochs * examples / batch)) -gt 400 ] ||
    fail "$examples training pictures and $epochs epochs are fewer than the 400 updates of warm-up; set EPOCHS"

pretrain() {
    local run=$1
    shift
    "$mixer" pretrain configs/pretrain/cifar10_mixer.toml --run-dir "$run" --set "data.path=$cifar" "${length[@]}" "$@" "${more[@]}"
}

# The last evaluation of a run, in per cent.
top1() {
    sed -n 's/.*"kind":"eval".*"top1":\([0-9.e-]*\).*/\1/p' "$1/metrics.jsonl" | tail -n 1 | LC_ALL=C awk '{ printf "%.2f %%", 100 * $1 }'
}

# Class folders that are links: the folder, then the classes.
part() {
    local name=$1 class split
    shift
    for split in train test; do
        mkdir -p "$out/data/$name/$split"
        for class in "$@"; do ln -sfn "$cifar/$split/$class" "$out/data/$name/$split/$class"; done
    done
}

transfer() {
    local at=$out/transfer source=${SOURCE:-$out/data/six} four=$out/data/four side
    part six "${classes[@]:0:6}"
    part four "${classes[@]:6}"
    pretrain "$at/source" --set "data.path=$source"
    "$mixer" probe "$at/source" --train "$four/train${probed[0]}" --test "$four/test${probed[1]}" --shots 5 "${more[@]}" | tee "$at/probe.txt"
    for side in 32 64; do
        "$mixer" finetune configs/finetune/cifar10_64px.toml --init "$at/source" --run-dir "$at/${side}px" \
            --set "data.path=$four" --set "model.image_size=$side" --set "data.crop={pad={pixels=$((side / 8))}}" "${short[@]}" "${more[@]}"
    done
    pretrain "$at/scratch" --set "data.path=$four"
    {
        echo "| run | top-1, last evaluation |"
        echo "|---|---|"
        echo "| pre-training at 32 px | $(top1 "$at/source") |"
        echo "| the other classes, fine-tuned at 32 px | $(top1 "$at/32px") |"
        echo "| the other classes, fine-tuned at 64 px | $(top1 "$at/64px") |"
        echo "| the other classes, from scratch at 32 px, as many updates as in pre-training | $(top1 "$at/scratch") |"
        echo
        echo "Five-shot probe of the other classes after pre-training:"
        echo
        sed 's/^/    /' "$at/probe.txt"
    } >"$out/transfer.md"
    "$mixer" report "$at/source" "$at/32px" "$at/64px" "$at/scratch" --out "$out/transfer.html"
}

sizes() {
    local model part seed run runs=() rows=()
    for seed in $seeds; do
        for model in $models; do
            network "$model"
            for part in 0.1 0.3 1; do
                run=$out/sizes/$model,$part,seed=$seed
                pretrain "$run" "${dims[@]}" --set "data.train_fraction=$part" --set "seed=$seed"
                runs+=("$run")
                rows+=("| $model | $part | $seed | $(top1 "$run") |")
            done
        done
    done
    printf '%s\n' "| network | part of the training set | seed | top-1, last evaluation |" "|---|---|---|---|" "${rows[@]}" >"$out/sizes.md"
    "$mixer" report "${runs[@]}" --figure pareto --out "$out/sizes.html"
}

shuffling() {
    local order seed run runs=() rows=()
    for seed in $seeds; do
        for order in none patches pixels; do
            run=$out/shuffling/$order,seed=$seed
            local setting="{$order={seed=0}}"
            [ "$order" != none ] || setting=none
            pretrain "$run" --set "data.shuffle=$setting" --set "seed=$seed"
            runs+=("$run")
            rows+=("| $order | $seed | $(top1 "$run") |")
        done
    done
    printf '%s\n' "| shuffled | seed | top-1, last evaluation |" "|---|---|---|" "${rows[@]}" >"$out/shuffling.md"
    "$mixer" report "${runs[@]}" --out "$out/shuffling.html"
}

for step in $steps; do "$step"; done
for step in $steps; do
    printf '\n%s: %s\n\n' "$step" "$out/$step.html"
    cat "$out/$step.md"
done
