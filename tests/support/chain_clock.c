/* Preloaded, it steps the wall clock of a process by the seconds that stand in the file $CHAIN_CLOCK. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now)
{
    long result = syscall(SYS_clock_gettime, id, now);
    const char *path = getenv("CHAIN_CLOCK");
    if (result == 0 && id == CLOCK_REALTIME && path) {
        FILE *file = fopen(path, "r");
        long step = 0;
        if (file) {
            if (fscanf(file, "%ld", &step) == 1)
                now->tv_sec += step;
            fclose(file);
        }
    }
    return (int)result;
}
