#!/usr/bin/env bash
# Becomes a systemd of its own in the namespaces that it was started in, over a layer on top of this machine's files, which stay as they are.
#   unshare --pid --fork --mount --net --uts --ipc systemd.sh boot GROUP LAYER AGENT UNIT CONFIG
#   unshare --mount systemd.sh remove GROUP LAYER        what it leaves in the kernel: empty control groups
set -euo pipefail
what=$1 group=$2 layer=$3

if [ "$what" != inside ]; then
  mount --make-rprivate /
  mount -t tmpfs tmpfs "$layer"
  mkdir "$layer/groups"
  mount -t cgroup2 cgroup2 "$layer/groups"
fi
if [ "$what" = remove ]; then
  exec find "$layer/groups/$group" -depth -type d -exec rmdir {} +
fi
if [ "$what" = boot ]; then
  # The group is the root of what this systemd sees and divides.
  mkdir "$layer/groups/$group"
  echo 0 >"$layer/groups/$group/cgroup.procs"
  umount "$layer/groups"
  shift
  exec unshare --cgroup "$0" inside "$@"
fi

agent=$4 unit=$5 config=$6
mkdir "$layer/up" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/up,workdir=$layer/work" "$layer/root"
# Installed as docs/operations.md has it.
root=$layer/root
install -m 755 "$agent" "$root/usr/local/bin/anyvip"
rm -rf "$root/etc/anyvip" "$root/var/lib/anyvip" "$root"/etc/systemd/system/*.wants "$root/etc/systemd/system/anyvip.service.d"
install -D -m 644 "$config" "$root/etc/anyvip/config.toml"
install -m 644 "$unit" "$root/etc/systemd/system/anyvip.service"
for other in systemd-udevd systemd-udev-trigger systemd-logind systemd-tmpfiles-setup-dev systemd-sysctl; do
  ln -sf /dev/null "$root/etc/systemd/system/$other.service"
done
printf '[Unit]\nWants=systemd-journald.service\n' >"$root/etc/systemd/system/bare.target"

cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for fresh in run tmp dev; do mount -t tmpfs tmpfs "$fresh"; done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do
  mknod -m 666 "dev/$device" c "0x$(stat -c %t "/dev/$device")" "0x$(stat -c %T "/dev/$device")"
done
ip link set lo up
ip link add eth0 type veth peer name router
ip address add 10.0.0.2/24 dev eth0
ip link set eth0 up
ip link set router up
mkdir old
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=bare.target --show-status=0 --log-target=console
