# Runs in a guest: the kernel patches the places of all its scheduler's and system calls' trace events,
# again and again, while both processors run through them.
mount -t tracefs trace /sys/kernel/tracing 2> /dev/null
cd /sys/kernel/tracing/events || exit
(while :; do :; done) &
(while :; do sleep 0.001; done) &
(while :; do cat /proc/self/stat > /dev/null; done) &
rounds=0
while [ $rounds -lt 8 ]; do
    for switched in 1 0; do
        echo $switched > sched/enable
        echo $switched > syscalls/enable
    done
    rounds=$((rounds + 1))
done
echo $rounds
