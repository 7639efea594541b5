#!/bin/sh
# Trains the quick-start model for hours, with an evaluation and a checkpoint every few seconds, and watches
# what the process holds: resident memory, file handles and threads must stay flat.
#
#   scripts/soak.sh [TIME] [RUN_DIR]      TIME as `2h10m`, the default
#
# Prints one line a minute (CSV) and the first, middle and last one again at the end.
set -eu
cd "$(dirname "$0")/.."
time=${1:-2h10m}
run=${2:-runs/soak}
mixer=${MIXER:-target/release/mixer}

mkdir -p "$run"
"$mixer" pretrain configs/quickstart.toml --run-dir "$run/run" --max-time "$time" --threads "${THREADS:-1}" \
    --set train.steps=1000000000 --set data.val_examples=500 --set train.ema_decay=0.999 \
    --set train.eval_every_steps=40 --set train.checkpoint_every_steps=20 \
    2> "$run/stderr" &
pid=$!
echo "seconds,step,resident_kb,peak_kb,file_handles,threads" > "$run/soak.csv"
started=$(date +%s)
while kill -0 "$pid" 2> /dev/null; do
    sleep 60
    [ -d "/proc/$pid/fd" ] || break
    resident=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
    [ -n "$resident" ] || break
    peak=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status")
    threads=$(awk '/^Threads/ { print $2 }' "/proc/$pid/status")
    handles=$(ls "/proc/$pid/fd" | wc -l)
    step=$(tail -n 1 "$run/run/metrics.jsonl" | sed 's/.*"step":\([0-9]*\).*/\1/')
    echo "$(($(date +%s) - started)),$step,$resident,$peak,$handles,$threads" | tee -a "$run/soak.csv"
done
wait "$pid"
lines=$(($(wc -l < "$run/soak.csv") - 1))
echo "first, middle, last of $lines:"
for line in 2 $((lines / 2 + 1)) $((lines + 1)); do sed -n "${line}p" "$run/soak.csv"; done
tail -n 3 "$run/stderr"
