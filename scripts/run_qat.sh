#!/bin/sh
# W4A4 quantization-aware training of every network with published weights, one after the other; each run resumes.
#
#     scripts/run_qat.sh [NETWORK ...]          default: all of the table below
#
# DATA (../shared/data): folder with T91, General100, Set5 and weights; OUT (build/qat): one folder per network;
# QAT: more options for every run, for example QAT="--epochs 40"; START: folder with the quantized networks to start
# from, one folder per network (an earlier OUT, say); a network without one starts from the recipe. Prints one line of
# JSON per network.
set -eu
cd "$(dirname "$0")/.."
data=${DATA:-../shared/data}
out=${OUT:-build/qat}
python=${PYTHON:-.venv/bin/python}

# network  weights  epochs  iterations  batch  patch (low-resolution pixels; a x4 network makes 16 times as many)
table='
edsr_mlperf_f32b5_x2 edsr_mlperf_f32b5_x2 40 400 8 32
edsr8_64_x2          edsr8_64_x2          20 200 8 32
rnet9_64_x4          rnet9_64_x4          20 200 8 24
carn_x2              carn_x2              20 200 8 32
srresnet8_bn_x4      srresnet8_bn_x4      20 200 8 24
idn_y_x4             idn_y_x4             20 200 8 24
'
wanted=" $* "
echo "$table" | while read -r network weights epochs iterations batch patch; do
    case "$wanted" in
        *" $network "* | "  ") ;;
        *) continue ;;
    esac
    [ -n "$network" ] || continue
    if [ -n "${START:-}" ] && [ -d "$START/$network" ]; then
        set -- --start "$START/$network"
    else
        set -- --init srq
    fi
    # shellcheck disable=SC2086  # QAT holds several words
    "$python" -m srq_hw qat "$network" --weights "$data/weights/$weights.pth" \
        --target int-generic --bits 4 --edges 8 --sums 16 "$@" \
        --data "$data/T91" --data "$data/General100" --val "$data/Set5" \
        --epochs "$epochs" --iterations "$iterations" --batch "$batch" --patch "$patch" \
        --out "$out/$network" --json ${QAT:-} </dev/null
done
