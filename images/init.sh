#!/bin/busybox sh
# The test guest: load the virtio driver, take an address, start what the kernel command line asks for, then run
# the commands that come over the agent's serial line. Everything it is told comes as pc.NAME=VALUE words.
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run

while read -r module; do insmod "/modules/$module.ko"; done </modules/order

arg() {
    for word in $(cat /proc/cmdline); do
        case $word in "pc.$1="*) echo "${word#*=}" ;; esac
    done
}

hostname "$(arg name)"
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up
    for address in $(arg addr | tr , ' '); do ip addr add "$address" dev eth0; done
    if [ -n "$(arg dhcp)" ]; then
        udhcpc -i eth0 -n -q -t 8 -T 2 -s /etc/udhcpc.sh >/tmp/udhcpc 2>&1 || echo "no lease" >>/tmp/udhcpc
    fi
fi

for service in $(arg serve | tr , ' '); do
    port=${service#*:}
    case $service in
        http:*) httpd -p "$port" -h /www ;;
        tcp:* | udp:*) guest-probe serve "${service%%:*}" "$port" >"/tmp/serve-$service" 2>&1 & ;;
        iperf3:*) iperf3 -s -p "$port" >/tmp/iperf3-server 2>&1 & ;;
    esac
done

echo "PORTCULLIS-UP $(cat /proc/uptime)" >/dev/console
if [ -n "$(arg halt)" ]; then poweroff -f; fi

# A request is one line, "@TAG COMMAND"; the answer is "<TAG", what the command printed, and ">TAG STATUS".
tty=/dev/$(arg agent)
stty -F "$tty" raw -echo 115200
exec <"$tty" >"$tty" 2>&1
while true; do
    read -r tag command || { sleep 1; continue; }
    case $tag in @*) tag=${tag#@} ;; *) continue ;; esac
    printf '\n<%s\n' "$tag"
    sh -c "$command" </dev/null 2>&1
    printf '\n>%s %d\n' "$tag" $?
done
