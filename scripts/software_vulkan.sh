#!/usr/bin/env bash
# Runs a program with Vulkan on the CPU: Mesa's lavapipe with LLVM 19, as Debian 13 has it (with LLVM 15 some
# of Burn's kernels compile for many minutes). To cargo it can be what runs tests:
#
#   cargo test --config "target.'cfg(all())'.runner = '$PWD/scripts/software_vulkan.sh'" \
#       --profile gpu-check --workspace --features mixer-train/wgpu --test devices
#
# The driver and its libraries live in a Debian 13 of their own below the user's cache folder, made on
# first use with debootstrap: it takes root, and a minute. With `--prepare`, that is all that is done.
set -euo pipefail

root="${XDG_CACHE_HOME:-$HOME/.cache}/mixer/software-vulkan"
if [[ ! -e "$root/ready" ]]; then
    # An attempt that was cut short leaves a folder behind.
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include=mesa-vulkan-drivers trixie "$root" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; exit 1; }
    touch "$root/ready"
fi
[[ "${1:-}" == --prepare ]] && exec unshare --mount true

# The program sees the folders that it was built in and works in, at the same paths. The mounts are this
# process's own and go with it.
workspace="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
target="$(cd "$(dirname "$1")/.." && pwd)"
exec unshare --mount bash -c '
    set -euo pipefail
    root="$1" workspace="$2" target="$3" directory="$4"
    shift 4
    for folder in "$workspace" "$target" /dev /proc; do
        mkdir -p "$root$folder"
        mount --rbind "$folder" "$root$folder"
    done
    # Unoptimised kernels are compiled many times faster, and run once.
    exec env HOME=/root TMPDIR=/tmp XDG_RUNTIME_DIR=/tmp XDG_CACHE_HOME=/tmp/cache \
        VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json GALLIVM_PERF=nopt CUBECL_AUTOTUNE_LEVEL=minimal \
        MIXER_EXPECT_GPU=1 chroot "$root" env -C "$directory" "$@"
' software_vulkan "$root" "$workspace" "$target" "$PWD" "$@"
