#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
#
# The first process of a guest: mounts, modules, network, then the agent for ever.
# Settings come from the kernel's command line as lab.NAME=VALUE.

export PATH=/sbin:/usr/sbin:/usr/bin:/bin HOME=/root DM_DISABLE_UDEV=1 LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/ceph
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/lab
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t debugfs debug /sys/kernel/debug 2>/dev/null
mount -t configfs config /sys/kernel/config 2>/dev/null
ln -sf /proc/self/fd /dev/fd

# The disk with the programs and the modules is known by its serial.
[ -d /sys/module/virtio_blk ] || insmod /first/virtio_blk.ko
n=0
until [ -e /tools/usr ]; do
	for sys in /sys/block/vd*; do
		[ "$(cat "$sys/serial" 2>/dev/null)" != lab-tools ] ||
			mount -t ext4 -o ro "/dev/${sys##*/}" /tools
	done
	n=$((n + 1)); [ $n -gt 500 ] && { echo "lab: disks missing: the one with the programs"; break; }
	[ -e /tools/usr ] || usleep 20000
done
ln -sf /proc/mounts /etc/mtab

for word in $(cat /proc/cmdline); do
	case $word in
	lab.*=*)	word=${word#lab.}; eval "lab_${word%%=*}=\${word#*=}" ;;
	esac
done
hostname "${lab_name:-guest}"
echo "127.0.0.1 localhost" >/etc/hosts

# What this lab's kernel has as modules; a kernel that has them built in needs nothing.
for m in virtio_net virtio_rng dm-mod; do modprobe -q $m; done
# SCSI only where there is a controller (8).
! grep -qs 0x0008 /sys/bus/virtio/devices/*/device || for m in virtio_scsi sd_mod; do modprobe -q $m; done

# Network wires: lab.net=ADDRESS,NIC:PEER:MTU,... one wire for each peer, each with a host route.
ip link set lo up
if [ -n "$lab_net" ]; then
	address=${lab_net%%,*}
	i=0
	for wire in $(echo "${lab_net#*,}" | tr ',' ' '); do
		nic=eth$i; i=$((i + 1))
		peer=${wire%%:*}; mtu=${wire#*:}
		ip link set $nic mtu "$mtu" up
		ip addr add "$address/32" dev $nic
		ip route add "$peer/32" dev $nic src "$address"
	done
fi

# Disks behind a port, lab.nbd.BLOCK.NAME: the kernel's own NBD driver talks to the server.
i=0
for p in /sys/class/virtio-ports/*; do
	[ -e "$p" ] && what=$(cat "$p/name") && what=${what#lab.nbd.} || continue
	[ "$what" = "$(cat "$p/name")" ] && continue
	disk=${what#*.}
	[ -d /sys/module/nbd ] || modprobe nbd nbds_max=8
	/sbin/guest-agent pump "/run/nbd-$disk" "/dev/${p##*/}" 2>>/run/agent.log &
	until [ -S "/run/nbd-$disk" ]; do usleep 5000; done
	/usr/sbin/nbd-client -unix "/run/nbd-$disk" "/dev/nbd$i" -name "$disk" -block-size "${what%%.*}" >>/run/nbd.log 2>&1 ||
		cat /run/nbd.log /run/agent.log
	ln -sf "/dev/nbd$i" "/dev/lab/$disk"
	i=$((i + 1))
done

# Disks get the names that the lab gave them, whatever they are attached as.
lab_disks() {
	for sys in /sys/block/vd* /sys/block/sd* /sys/block/nvme*n*; do
		[ -e "$sys" ] || continue
		serial=
		[ -r "$sys/serial" ] && serial=$(cat "$sys/serial")
		[ -r "$sys/device/serial" ] && serial=$(cat "$sys/device/serial")
		# SCSI has it as a page of its own, behind four bytes.
		[ -r "$sys/device/vpd_pg80" ] && serial=$(tail -c +5 "$sys/device/vpd_pg80")
		serial=$(echo $serial)
		[ -z "$serial" ] || [ "$serial" = lab-tools ] || ln -sf "/dev/${sys##*/}" "/dev/lab/$serial"
	done
}
n=0
while :; do
	lab_disks
	[ "$(ls /dev/lab | wc -l)" -ge "${lab_disks:-0}" ] && break
	n=$((n + 1)); [ $n -gt 200 ] && { echo "lab: disks missing: $(ls /dev/lab)"; break; }
	usleep 50000
done

# A terminal for people.
if [ -n "$lab_tty" ]; then
	( while :; do PS1="$lab_name# " setsid -c bash --norc </dev/hvc0 >/dev/hvc0 2>&1; sleep 1; done ) &
fi

port=/dev/vport0p1
for p in /sys/class/virtio-ports/*; do
	[ -e "$p" ] && [ "$(cat "$p/name")" = lab.agent ] && port=/dev/${p##*/}
done
# Output of stray processes must not mix with kernel messages on the console.
while :; do
	/sbin/guest-agent $port >/dev/null 2>>/run/agent.log </dev/null
	usleep 100000
done
