# An emulated machine (QEMU without KVM, which not every machine has): a kernel of Debian, busybox, and the tools of this machine with
# their libraries, all in its memory. What it says on its serial line is its result. Read in with `.` after serve.sh and debian.sh.
# shellcheck shell=sh

kernel_package() { # The kernel's real name, which the package that always means the newest one tells.
    debian_lists
    apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1
}

with_libraries() { # FOLDER PROGRAM...: copied there
    into=$1
    shift
    for program in "$@"; do
        program=$(command -v "$program")
        for file in "$program" $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do
            [ -e "$into$file" ] || install -D "$(realpath "$file")" "$into$file"
        done
    done
}

with_module() { # NAME: and those that it needs before it, numbered in that order. One that is not there is in the kernel itself.
    file=$(find "$CACHE/kernel/lib/modules" -name "$(echo "$1" | tr - _).ko*" -o -name "$(echo "$1" | tr _ -).ko*")
    if [ -z "$file" ] || ls "$root"/modules/*-"$1.ko" >/dev/null 2>&1; then return 0; fi
    # Nothing in that machine could unpack it.
    case $file in *.xz) xz --decompress --stdout "$file" ;; *) cat "$file" ;; esac >"$root/modules/$1.part"
    for needed in $(grep -a -z -m 1 '^depends=' "$root/modules/$1.part" | tr -d '\0' | sed 's/^depends=//' | tr ',' ' '); do with_module "$needed"; done
    count=$((count + 1))
    mv "$root/modules/$1.part" "$root/modules/$count-$1.ko"
}

machine_files() { # MODULES PROGRAMS: $WORK/initramfs and $kernel
    needs qemu-system-x86_64=qemu-system-x86 xz=xz-utils
    [ -e "$CACHE/kernel" ] || debian_package "$(kernel_package)" kernel
    debian_package busybox-static busybox
    kernel=$(ls "$CACHE"/kernel/boot/vmlinuz-*)
    root=$WORK/root
    count=100
    mkdir -p "$root/modules" "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run" "$root/mnt"
    for module in $1; do with_module "$module"; done
    # shellcheck disable=SC2086 # These are several.
    with_libraries "$root" $2
    # After those, whose folders may be links on this machine.
    busybox=$(find "$CACHE/busybox" -name busybox -type f -perm /100)
    cp "$busybox" "$root/bin/busybox"
    cp "$here/guest/init" "$root/init"
    cp "$here/guest/$SUITE" "$root/suite"
    chmod +x "$root/init" "$root/suite"
    (cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$WORK/initramfs"
    rm -r "$root"
}

machine_starts() { # SECONDS QEMU_OPTIONS...: $machine, whose words are in $WORK/serial
    seconds=$1
    shift
    : >"$WORK/serial"
    timeout --foreground --kill-after=5 "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -nographic -nodefaults -no-reboot \
        -kernel "$kernel" -initrd "$WORK/initramfs" -append "console=ttyS0 quiet panic=1 $machine_words" -serial "file:$WORK/serial" "$@" \
        >"$WORK/qemu.log" 2>&1 &
    machine=$!
    pids="$pids $machine"
}

machine_ends() { # Its results are ours: lines of `RESULT passed|FAILED SECONDS WORDS`.
    wait "$machine" || true
    tr -d '\r' <"$WORK/serial" >"$WORK/serial.txt"
    while read -r _ outcome seconds words; do
        result "$outcome" "$seconds" "$words"
    done <<END
$(grep -a '^RESULT ' "$WORK/serial.txt")
END
    grep -a '^FIGURE ' "$WORK/serial.txt" | sed 's/^FIGURE //' >>"$WORK/figures" || true
    grep -q '^DONE' "$WORK/serial.txt" || result FAILED 0 "the machine did not come to its end: $(tail -n 1 "$WORK/serial.txt")"
}
