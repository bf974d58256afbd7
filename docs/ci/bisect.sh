#!/bin/sh
# For `git bisect run`, in a kernel tree that has a .config: builds the kernel and runs a scenario on it.
# 0 good, 1 bad, 125 nothing can be said: it does not build, or the run is inconclusive. 128 ends the bisection: bad usage.
scenario=$1
pmemsim=${PMEMSIM:-pmemsim}
[ -f "$scenario" ] || { echo "usage: bisect.sh SCENARIO [OPTIONS OF pmemsim run]" >&2; exit 128; }
shift

if [ -z "$BISECT_KERNEL" ]; then
    make olddefconfig >/dev/null && make -j"$(nproc)" vmlinux >/dev/null || exit 125
    BISECT_KERNEL=$PWD/vmlinux
fi

"$pmemsim" run "$scenario" --kernel "$BISECT_KERNEL" "$@"
case $? in
    0) exit 0 ;;
    1) exit 1 ;;
    2) exit 128 ;;
    *) exit 125 ;;
esac
