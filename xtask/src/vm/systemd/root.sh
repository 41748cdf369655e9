# Makes the Debian root of `cargo xtask vm --systemd`, as an archive that the kernel unpacks at its
# start. Runs as root, in a mount namespace of its own: what debootstrap mounts goes with it.
set -eu
stage=$1 suite=$2 mirror=$3 packages=$4 busybox=$5 image=$6

rm -rf --one-file-system "$stage" "$image.part"
mkdir -p "$stage/newroot"
debootstrap --variant=minbase --include="$packages" "$suite" "$stage/newroot" "$mirror"
cd "$stage/newroot"
# All of it is in the machine's memory, and none of this is of use there.
rm -rf usr/share/doc/* usr/share/man/* usr/share/locale/* usr/share/info/* usr/share/zoneinfo \
    var/cache/apt/* var/lib/apt/lists/* var/log/bootstrap.log debootstrap
# The machine has no disk.
: > etc/fstab
echo tcpmon-vm > etc/hostname
# Nothing but what the checks do changes a file.
for unit in serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-tmpfiles-clean.timer; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
# Or the first boot would ask what nobody answers.
: > etc/machine-id
cd "$stage"
find newroot -xdev | "$busybox" cpio -o -H newc > "$image.part"
cd /
rm -rf "$stage"
chmod 644 "$image.part"
# Last, so that a file of that name is complete.
mv "$image.part" "$image"
