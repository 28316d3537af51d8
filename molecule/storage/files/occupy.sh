#!/bin/bash
# Makes each of the given disks something that the role has to refuse, with the real tools where they need no kernel module.
set -euo pipefail
disks=("$@")

pvcreate --quiet "${disks[0]}"
echo -n secret | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "${disks[1]}" -
make-bcache -B "${disks[2]}"

# Stand-ins for the superblocks of mdraid and ZFS.
python3 - "${disks[3]}" "${disks[4]}" <<'EOF'
import struct, sys

raid = bytearray(256)  # version 1.2, 4 KiB into the device, with a checksum that holds
struct.pack_into("<II", raid, 0, 0xA92B4EFC, 1)
raid[16:41] = bytes(range(16)) + b"storage:0"
struct.pack_into("<Q", raid, 144, 8)
total = sum(struct.unpack("<64I", raid))
struct.pack_into("<I", raid, 216, (total & 0xFFFFFFFF) + (total >> 32))
zfs = b"".join(struct.pack("<QQ", 0x00BAB10C, 5000).ljust(1024, b"\0") for _ in range(16))  # uberblocks of the first label
for path, offset, content in ((sys.argv[1], 4096, raid), (sys.argv[2], 128 * 1024, zfs)):
    with open(path, "r+b") as device:
        device.seek(offset)
        device.write(content)
EOF

mkswap --quiet "${disks[5]}"
mkswap --quiet "${disks[6]}" && swapon "${disks[6]}"
parted --script "${disks[7]}" mklabel gpt mkpart other 1MiB 100%
udevadm settle
mkfs.ext4 -q -L other "${disks[7]}p1"
parted --script "${disks[8]}" mklabel msdos mkpart primary 1MiB 100%
mkfs.ext4 -q "${disks[9]}" && mkdir -p /elsewhere && mount -o ro "${disks[9]}" /elsewhere
mkfs.ext4 -q "${disks[10]}" && mkdir -p /boot && mount -o ro "${disks[10]}" /boot
printf 'a database without a filesystem' | dd of="${disks[11]}" bs=1 seek=32 conv=notrunc status=none
sleep infinity <"${disks[12]}" >/dev/null 2>&1 &
echo $! >/run/occupied
blockdev --setro "${disks[13]}"
mkfs.ext4 -q -L old "${disks[15]}"

# What shows no signature: a partition of plain dm-crypt, a disk whose first MiB was cleared, raw pages in the middle.
parted --script "${disks[18]}" mklabel gpt mkpart secret 1MiB 100%
udevadm settle
head --bytes=62M /dev/urandom | dd of="${disks[18]}p1" bs=1M status=none iflag=fullblock
head --bytes=50M /dev/urandom | dd of="${disks[19]}" bs=1M seek=1 conv=notrunc status=none iflag=fullblock
head --bytes=64K /dev/urandom | dd of="${disks[20]}" bs=1M seek=33 conv=notrunc status=none iflag=fullblock

# What fstab names although nobody uses it now, and a disk with its copy.
mkfs.ext4 -q -L "my archive" "${disks[21]}"
mkswap --quiet --uuid 0a0a0a0a-1111-2222-3333-444444444444 "${disks[22]}"
mkfs.ext4 -q "${disks[23]}" && dd if="${disks[23]}" of="${disks[24]}" bs=1M status=none
cp /etc/fstab /run/fstab
cat >>/etc/fstab <<'EOF'
LABEL="my\040archive" /old/ ext4 nofail 0 2
UUID=0A0A0A0A-1111-2222-3333-444444444444 none swap sw,nofail 0 0
EOF
mkdir -p /srv/full/one /opt/real && ln -sfn /opt/real /linked
sync
