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

# network  weights  epochs  iterations  batch  patch (low-resolution pixels; a x4 network makes 16 times as many)  rate
# more: the first runs of docs/qat.md, "Measured"
table='
edsr_mlperf_f32b5_x2 edsr_mlperf_f32b5_x2 20  400 8 32 0.005
edsr8_64_x2          edsr8_64_x2          14 1000 4 24 0.002
rnet9_64_x4          rnet9_64_x4          12  100 8 24 0.005
carn_x2              carn_x2              20  100 8 32 0.005  --tail 8
carn_m_x4            carn_m_x2x3x4        20  150 8 24 0.005  --tail 8
srresnet8_bn_x4      srresnet8_bn_x4      12 1000 4 16 0.0015
idn_y_x2             idn_y_x2              8  500 4 24 0.0015
idn_y_x4             idn_y_x4              8  500 4 16 0.0015
'
wanted=" $* "
echo "$table" | while read -r network weights epochs iterations batch patch rate more; do
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
    # shellcheck disable=SC2086  # QAT and more hold several words
    "$python" -m srq_hw qat "$network" --weights "$data/weights/$weights.pth" \
        --target int-generic --bits 4 --edges 8 --sums 16 "$@" \
        --data "$data/T91" --data "$data/General100" --val "$data/Set5" \
        --epochs "$epochs" --iterations "$iterations" --batch "$batch" --patch "$patch" \
        --rate "$rate" $more --out "$out/$network" --json ${QAT:-} </dev/null
done
