#!/bin/sh
# Everything about GPUs, with one command, on a machine with an NVIDIA GPU:
#
#     benchmarks/gpu.sh                       # makes build/gpu-venv with torch for CUDA
#     benchmarks/gpu.sh -- --index-url URL    # what follows -- goes to `pip install` of torch
#     benchmarks/gpu.sh --python .venv/bin/python --device cpu --small    # the same in small, without a GPU
#
# It verifies the example bundle with --device cpu and --device cuda, trains benchmarks/gpu/cnn.py again and again, and
# writes results/gpu_NAME.json. Without a GPU (and without --device cpu) it ends with exit code 3.
set -eu
cd "$(dirname "$0")/.."

device=cuda runs=10 python='' small='' example=yes
usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    echo 'options: --device cpu|cuda  --runs N  --python PYTHON (as it is)  --small  --no-example'
}
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --runs) runs=$2; shift 2 ;;
        --python) python=$2; shift 2 ;;
        --small) small=yes; shift ;;
        --no-example) example=''; shift ;;
        --help | -h) usage; exit 0 ;;
        --) shift; break ;;
        *) echo "gpu.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
done

if [ "$device" = cuda ] && ! ls /dev/nvidia[0-9]* > /dev/null 2>&1; then
    echo 'gpu.sh: there is no CUDA device on this machine (no /dev/nvidia0): nothing was measured.' >&2
    echo 'gpu.sh: --device cpu --small runs the same in small without one.' >&2
    exit 3
fi

if [ -z "$python" ]; then
    [ -d build/gpu-venv ] || "${PYTHON:-python3}" -m venv build/gpu-venv
    python=build/gpu-venv/bin/python
    pip="$python -m pip --disable-pip-version-check install -q"
    # Torch for CUDA first; the example asks for the build for CPUs, and the report will name the difference.
    pinned=$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' example_bundle/credit_scoring/requirements.txt)
    $pip "$@" "${pinned:-torch}"
    sed '/^torch==/d; /^--/d; s/ *--hash=[^ ]*//g; s/ *\\$//' example_bundle/credit_scoring/requirements.txt > build/gpu-requirements.txt
    $pip -r build/gpu-requirements.txt -e .
fi
bin=$(dirname "$python")

reports=build/bench/gpu
rm -rf "$reports"
mkdir -p "$reports"
if [ -n "$example" ]; then
    "$bin/bundler" keygen -o "$reports/keys"
    "$bin/build-bundle" example_bundle/bundle.yaml -o "$reports/bundle" --key "$reports/keys/key.pem"
    for each in cpu $([ "$device" = cpu ] || echo "$device"); do
        # Any verdict is a result; that there is none is not.
        "$bin/verify-bundle" "$reports/bundle" --trust "$reports/keys/trust.pem" --rerun --device "$each" \
            --report "$reports/example-$each.json" || [ -s "$reports/example-$each.json" ]
    done
fi

size='' results=benchmarks/results
[ -z "$small" ] || size='--examples 512 --epochs 1'
[ "$device" = cuda ] || results=build/bench
# shellcheck disable=SC2086 # several words
"$python" benchmarks/gpu/measure.py --device "$device" --runs "$runs" --reports "$reports" --results "$results" $size
