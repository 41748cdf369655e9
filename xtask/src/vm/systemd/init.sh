#!/busybox/busybox sh
# The first process of the virtual machine of `cargo xtask vm --systemd`: makes the Debian root out
# of what the kernel has unpacked, and gives way to systemd.

/busybox/busybox mkdir -p /busybox /proc /dev
/busybox/busybox --install -s /busybox
export PATH=/busybox

mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev

# Loaded here: there is no modprobe in that root, and no kernel that it was installed with.
for module in /modules/*; do
    case $module in
        *.xz) xzcat "$module" > /module.ko && insmod /module.ko ;;
        *) insmod "$module" ;;
    esac
done
rm -rf /module.ko /modules

stty -F /dev/ttyS1 raw -echo
echo '@ALIVE@' > /dev/ttyS1

# A mount of its own: systemd's services pivot away from the root, and nobody can from the first
# one. It lies in the same file system, so what is below stays where it is.
mount --bind /newroot /newroot
mkdir -p /newroot/opt/checks
mv /checks/* /newroot/opt/checks/
mv /newroot/opt/checks/checks.service /newroot/etc/systemd/system/
mkdir -p /newroot/etc/systemd/system/multi-user.target.wants
ln -s ../checks.service /newroot/etc/systemd/system/multi-user.target.wants/checks.service
umount /proc
mount --move /dev /newroot/dev
cd /newroot
mount --move . /
exec chroot . /sbin/init
