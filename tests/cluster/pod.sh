#!/bin/bash
# Runs a command as the container of a pod would: a root file system of its own, in which the image
# is at /app and nothing else of this machine's data exists, a host name, and the user 1000.
#
#   pod.sh HOSTNAME IMAGE PYTHON "SOURCE:TARGET ..." COMMAND...
#
# PYTHON is the installation that the image's environment was made from. The network is shared:
# servers on loopback stand where the services of a cluster would.
set -euo pipefail
if [ "${IN_POD:-}" != yes ]; then
    export IN_POD=yes
    exec unshare --mount --uts --pid --fork --kill-child --propagation private "$0" "$@"
fi
name=$1 image=$2 python=$3 volumes=$4
shift 4

hostname "$name"
root=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$root"
for path in bin lib lib32 lib64 sbin; do
    if [ -L "/$path" ]; then cp -P "/$path" "$root/$path"; fi
    if [ ! -L "/$path" ] && [ -d "/$path" ]; then mkdir "$root/$path"; mount --bind "/$path" "$root/$path"; fi
done
mkdir -p "$root"/{app,dev,etc,home,proc,tmp,usr,.layers/new,.layers/work} "$root/$python"
mount --rbind /dev "$root/dev"
mount --bind /etc "$root/etc"
mount --bind /usr "$root/usr"
case $python in /usr*) ;; *) mount --bind "$python" "$root/$python" ;; esac
mount -t overlay overlay \
    -o "lowerdir=$image,upperdir=$root/.layers/new,workdir=$root/.layers/work" "$root/app"
chown 1000:1000 "$root/app" "$root/home"
chmod 1777 "$root/tmp"
for volume in $volumes; do
    mkdir -p "$root${volume#*:}"
    mount --bind "${volume%%:*}" "$root${volume#*:}"
done
mount -t proc proc "$root/proc"
export HOME=/home
unset IN_POD
exec /usr/sbin/chroot "$root" setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs \
    bash -c 'cd /app && exec "$@"' bash "$@"
