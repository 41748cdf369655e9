#!/busybox/busybox sh
# The first process of the virtual machine of `cargo xtask vm`. The kernel talks on the first
# serial port; the second is the tests' own, and only what is meant for the host is written there.

/busybox/busybox --install -s /busybox
export PATH=@PATH@:/busybox HOME=/ RUST_BACKTRACE=1 TCPMON_TEST_SLOWNESS=@SLOWNESS@
# The clock is this machine's own.
export TCPMON_MAY_SET_CLOCK=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
chmod 1777 /tmp
mount -t tmpfs tmpfs /run
mount -t securityfs securityfs /sys/kernel/security
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
# Not this one's: see CALLED in programs.rs.
shell=$(which sh)
mkdir -p /bin
[ -e /bin/sh ] || ln -s "$shell" /bin/sh
# Both hierarchies, as systemd's "hybrid" layout has them, where the kernel still has version 1.
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/memory
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory

# What does not load is told on the console, and missed by the tests that need it.
for module in /modules/*; do
    case $module in
        *.xz) xzcat "$module" > /module.ko && insmod /module.ko ;;
        *) insmod "$module" ;;
    esac
done
rm -f /module.ko
ip link set lo up

stty -F /dev/ttyS1 raw -echo
exec > /dev/ttyS1 2>&1
echo '@ALIVE@'
timeout -s KILL @SECONDS@ "$shell" /tests
echo "@ENDED@ $?"
# To close the port waits until all has been sent.
exec > /dev/console 2>&1
poweroff -f
