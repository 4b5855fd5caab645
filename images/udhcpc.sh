#!/bin/busybox sh
# What the test guest does with a lease.
case $1 in
    deconfig) ip -4 addr flush dev "$interface" ;;
    bound | renew)
        ip addr add "$ip/${mask:-24}" dev "$interface"
        [ -n "$router" ] && ip route add default via "${router%% *}"
        echo "lease $ip from $serverid" >>/tmp/udhcpc.lease
        ;;
esac
exit 0
