#!/bin/busybox sh
# The machine around a nested Cloud Hypervisor: a kernel whose KVM runs on emulated SVM, so that a host without
# usable KVM can still run the real thing. It runs /lab/run and powers off.
/bin/busybox --install -s /bin
rm -f /bin/ip
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
while read -r module; do insmod "/modules/$module.ko"; done </modules/order
ip link set lo up
echo "PORTCULLIS-OUTER-UP $(cat /proc/uptime)"
sh /lab/run
echo "PORTCULLIS-OUTER-EXIT $?"
poweroff -f
