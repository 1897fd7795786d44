/* Times programs from exec to exit as the kubelet would wait for them: `times COUNT VERB DIR PROGRAM…`,
 * in turn, so that a busy machine is busy for all. Answers them as an agent with four files would. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void must(int holds, const char *what) {
    if (!holds) {
        perror(what);
        exit(1);
    }
}

/* Base64 of so many bytes. */
static const char *content(int bytes) {
    static char text[4][4096];
    static int used;
    char *t = text[used++ % 4];
    int length = (bytes + 2) / 3 * 4;
    memset(t, 'A', length);
    memset(t + length - (3 - bytes % 3) % 3, '=', (3 - bytes % 3) % 3);
    t[length] = 0;
    return t;
}

static int create(char *answer) {
    static char body[16384];
    const char *owner = "\"owner\":{\"uid\":0,\"gid\":2000}";
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    int n = sprintf(body, "{\"id\":\"%032x\",\"attach_by\":%lld,\"directory\":{\"mode\":493,%s,\"size\":1048576},\"files\":[", 1, (now.tv_sec + 60LL) * 1000, owner);
    static const struct { const char *name; int size, mode; } files[] = {
        {"token", 92, 0640}, {"token.json", 420, 0640}, {"vault-addr", 18, 0644}, {"ca.crt", 1900, 0644}};
    for (int i = 0; i < 4; i++)
        n += sprintf(body + n, "%s{\"name\":\"%s\",\"mode\":%d,%s,\"bytes\":\"%s\"}", i ? "," : "", files[i].name, files[i].mode, owner, content(files[i].size));
    n += sprintf(body + n, "]}");
    return sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\ndate: Sat, 21 Nov 2026 04:04:04 GMT\r\n\r\n%s", n, body);
}

static void serve(int listener) {
    static char request[65536], answer[20000];
    for (;;) {
        int client = accept(listener, 0, 0);
        while (read(client, request, sizeof request) > 0) {
            int mint = !strncmp(request, "POST /v1/volumes ", 17);
            int n = mint ? create(answer) : sprintf(answer, "HTTP/1.1 204 No Content\r\n\r\n");
            if (write(client, answer, n) != n) break;
        }
        close(client);
    }
}

static int order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double microseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double once(const char *program, char **argv, posix_spawn_file_actions_t *quiet) {
    pid_t pid;
    int status;
    double start = microseconds();
    must(!posix_spawn(&pid, program, quiet, 0, argv, environ), program);
    waitpid(pid, &status, 0);
    double took = microseconds() - start;
    must(status == 0, program);
    return took;
}

int main(int argc, char **argv) {
    must(argc > 4, "times COUNT VERB DIR PROGRAM...");
    int count = atoi(argv[1]), programs = argc - 4, mounts = !strcmp(argv[2], "mount");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, getenv("VAULTTMPFS_SOCKET"), sizeof address.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(!bind(listener, (struct sockaddr *)&address, sizeof address) && !listen(listener, 64), "socket");
    pid_t agent = fork();
    if (!agent) serve(listener);

    char *options = "{\"kubernetes.io/fsType\":\"\",\"kubernetes.io/mounterArgs.FsGroup\":\"2000\",\"kubernetes.io/pod.name\":\"app-7d9\",\"kubernetes.io/pod.namespace\":\"default\",\"kubernetes.io/pvOrVolumeName\":\"vol1\",\"kubernetes.io/readwrite\":\"rw\",\"kubernetes.io/serviceAccount.name\":\"default\",\"vault/policies\":\"app,db\"}";
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    double *times = malloc(sizeof *times * count * programs);
    for (int i = -20; i < count; i++)
        for (int j = 0; j < programs; j++) {
            char *call[] = {argv[4 + j], argv[2], mounts ? argv[3] : 0, options, 0};
            double took = once(argv[4 + j], call, &quiet);
            if (i >= 0) times[j * count + i] = took;
            if (mounts) must(!umount2(argv[3], 0), "umount");
        }
    kill(agent, SIGTERM);
    for (int j = 0; j < programs; j++) {
        double *t = times + j * count;
        qsort(t, count, sizeof *t, order);
        printf("%-8s %8.0f %8.0f %8.0f us  %s\n", argv[2], t[count / 10], t[count / 2], t[count * 9 / 10], strrchr(argv[4 + j], '/') + 1);
    }
}
