/* Preloaded into a program: its wall clock is ahead by the seconds that the file named by WALL_CLOCK_AHEAD
 * says, its monotonic one by those of MONOTONIC_CLOCK_AHEAD, and no other clock is touched. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long ahead(const char *name)
{
    char text[32] = "";
    const char *path = getenv(name);
    if (path == NULL)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        abort();
    close(fd);
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += ahead("WALL_CLOCK_AHEAD");
    if (result == 0 && clock == CLOCK_MONOTONIC)
        now->tv_sec += ahead("MONOTONIC_CLOCK_AHEAD");
    return result;
}
